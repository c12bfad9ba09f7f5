"""DINOv2 ViT-S/14 on OpenVINO, built straight from the verified safetensors: no torch, no export, no ONNX.

The graph computes what timm's ``VisionTransformer`` computes, so that both runtimes give the same tokens.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors.numpy import load_file

from backend.common.config import DEFAULT_MODEL_BLOCKS
from backend.common.errors import ConfigError
from backend.network.openvino_library import op, ov
from backend.network.runtimes import int8
from backend.network.runtimes.base import blocks_name, earlier_block
from backend.network.runtimes.rotation import BACK, Tensors, rotated

PATCH = 14
BLOCKS = DEFAULT_MODEL_BLOCKS
HEADS = 6
DIM = 384
LAYER_NORM_EPS = 1e-6


class OpenVinoRuntime:
    """The ViT compiled for this machine's CPU (see `Runtime`).

    Args:
        weights: safetensors file with timm's names.
        input_size: side of the input in pixels, a multiple of 14.
        precision: ``"float32"``, or ``"bfloat16"`` or ``"int8"`` for matrix products only; see `build_vit`.
        threads: how many threads a forward pass uses; 0 leaves it to OpenVINO.
        block: after which the network ends, 1..12; None is the last.
        blocks: several blocks instead of one, 1..12, rising: a token has those of all, side by side.

    Raises:
        ConfigError: the CPU has no instructions for `precision`, or there is no such block.
    """

    name = "openvino"
    device = "cpu"
    # One pass over 2 or 4 images takes as long as 2 or 4 passes on two cores, and inferences wait for a whole pass.
    batch = 1

    def __init__(
        self,
        weights: Path,
        input_size: int,
        precision: str = "float32",
        threads: int = 0,
        block: int | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        side = input_size // PATCH
        self.grid_hw = (side, side)
        self.precision = precision
        last = earlier_block(block, BLOCKS)
        self._blocks = tuple(blocks) if blocks else (last or BLOCKS,)
        self.block: int | str | None = blocks_name(self._blocks) if blocks else last
        self.dim = DIM * len(self._blocks)
        lower_attention = has_bfloat16()
        if precision == "bfloat16" and not lower_attention:
            raise ConfigError("PRECISION=bfloat16: this CPU has no instructions for it; use PRECISION=float32")
        hints = {
            # What is not bfloat16 by construction stays float32: left alone, OpenVINO may lower all of it.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Pinned, the passes of two processes would share the same cores and leave the others idle.
            "ENABLE_CPU_PINNING": False,
        }
        exact_kernels = precision != "int8" or int8.has_exact_kernels()
        self.advice = None if exact_kernels else int8.ADVICE
        model = build_vit(load_file(weights), input_size, precision, self._blocks, exact_kernels, lower_attention)
        self.compiled = ov.Core().compile_model(model, "CPU", hints)
        self._request = self.compiled.create_infer_request()

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Runtime.forward`."""
        tokens = np.empty((len(pixels), self.grid_hw[0] * self.grid_hw[1], self.dim), np.float32)
        for image, own_tokens in zip(np.ascontiguousarray(pixels), tokens, strict=True):
            found = self._request.infer([image[None]], share_inputs=True, share_outputs=True)
            for number in range(len(self._blocks)):
                own_tokens[:, number * DIM : (number + 1) * DIM] = found[number][0]
        return tokens


@cache
def has_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16.

    OpenVINO's own list of what a CPU can do is not enough: it has bfloat16 where oneDNN may not use the instructions
    (``ONEDNN_MAX_CPU_ISA``), and a pass takes twenty times as long there. So a product is compiled, to see its kernel.
    """
    if "BF16" not in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return False
    tokens = op.parameter([1, DIM, DIM], np.float32)
    found = FloatProducts(ov.Type.bf16).of(tokens, np.ones((DIM, DIM), np.float32))
    compiled = ov.Core().compile_model(ov.Model(found, [tokens], "probe"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [info["primitiveType"].astype(str) for info in infos if info["layerType"].astype(str) == "FullyConnected"]
    return any(kernel.startswith("brgemm") and kernel.endswith("bf16") for kernel in kernels)


def build_vit(
    weights: Tensors,
    input_size: int,
    precision: str = "float32",
    blocks: Sequence[int] = (BLOCKS,),
    exact_kernels: bool = True,
    lower_attention: bool = False,
) -> ov.Model:
    """Write the forward pass in OpenVINO's own operations.

    Two things are left out, because they change nothing, and attention is cheaper and rounds better without them. The
    scale of attention is in the weights of the query (1/8, exact). Keys have no bias: it would add the same number, up
    to 400 here, to all logits of a query, and the softmax would remove it again.

    In ``"bfloat16"`` the inputs and outputs of matrix products are rounded. Norms, GELU, softmax and the residual
    stream stay float32: a few of its numbers are so large that rounding would drown the others. In ``"int8"`` the
    stream is rotated (`rotated`), and the inputs of products with weights are rounded, from block `int8.FIRST_BLOCK`
    on; see `int8`.

    Args:
        weights: float32 tensors under timm's names for ``vit_small_patch14_dinov2``.
        input_size: side of the input in pixels, a multiple of 14.
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        blocks: after which the final norm is taken, rising; those after the last of them are left out.
        exact_kernels: for ``"int8"``, see `int8.has_exact_kernels`.
        lower_attention: for ``"int8"``, whether the attention of the rounded blocks is in bfloat16.

    Returns:
        A model from ``[1, 3, S, S]`` to the normalised patch tokens ``[1, (S / 14)², 384]`` of each of the blocks. Its
        shape is fixed: OpenVINO fuses more then.
    """
    n_patches = (input_size // PATCH) ** 2
    products = FloatProducts(ov.Type.bf16 if precision == "bfloat16" else None)
    later_products: Products = products
    if precision == "int8":
        weights = rotated(weights)
        later_products = int8.Int8Products(exact_kernels, ov.Type.bf16 if lower_attention else None)
    pixels = op.parameter([1, 3, input_size, input_size], np.float32, name="pixels")

    patches = op.convolution(
        pixels, _constant(weights["patch_embed.proj.weight"]), [PATCH, PATCH], [0, 0], [0, 0], [1, 1]
    )
    patches = op.transpose(op.reshape(patches, _shape(1, DIM, n_patches), False), _shape(0, 2, 1))
    position = resample_position_grid(weights["pos_embed"], input_size // PATCH)
    tokens = op.add(patches, _constant(position[:, 1:] + weights["patch_embed.proj.bias"]))
    tokens = op.concat([_constant(weights["cls_token"] + position[:, :1]), tokens], 1)

    outputs = []
    for index in range(blocks[-1]):
        block = f"blocks.{index}."
        own = products if index + 1 < int8.FIRST_BLOCK else later_products
        tokens = op.add(tokens, _attention(tokens, weights, block, n_patches + 1, own))
        tokens = op.add(tokens, _mlp(tokens, weights, block, own))
        if index + 1 in blocks:
            normed = _final_norm(tokens, weights)
            outputs.append(op.slice(normed, _shape(1), _shape(n_patches + 1), _shape(1), _shape(1)))
    return ov.Model(outputs, [pixels], "dinov2_vits14")


def resample_position_grid(pos_embed: npt.NDArray[np.float32], side: int) -> npt.NDArray[np.float32]:
    """Resample the 37×37 position grid as timm does (bicubic, antialiased): Pillow's filter, channel by channel.

    Args:
        pos_embed: float32 [1, 1 + 37², 384], the class position first.
        side: tokens per side of the wanted grid.

    Returns:
        float32 [1, 1 + side², 384].
    """
    prefix, grid = pos_embed[:, :1], pos_embed[0, 1:]
    trained = round(len(grid) ** 0.5)
    if side == trained:
        return pos_embed
    channels = grid.reshape(trained, trained, -1).transpose(2, 0, 1)
    resized = [np.asarray(Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)) for c in channels]
    return np.concatenate([prefix, np.stack(resized, axis=-1).reshape(1, side * side, -1)], axis=1)


class FloatProducts:
    """Products of tokens and weights, of and in a floating-point type.

    Args:
        lower: the type, also that of the attention; None is float32.
    """

    def __init__(self, lower: ov.Type | None = None) -> None:
        self.attention = lower

    def of(
        self, tokens: ov.Output, *matrices: npt.NDArray[np.float32], source: int8.Gelu | None = None
    ) -> list[ov.Output]:
        """``tokens @ matrix.T`` for each of the matrices, float32 [O, D]; the source makes no difference."""
        tokens = _converted(tokens, self.attention)
        return [op.matmul(tokens, _constant(matrix, self.attention), False, True) for matrix in matrices]


Products = FloatProducts | int8.Int8Products


def _attention(tokens: ov.Output, weights: Tensors, block: str, n_tokens: int, products: Products) -> ov.Output:
    head_dim, lower = DIM // HEADS, products.attention
    query_weight, key_weight, value_weight = np.split(weights[block + "attn.qkv.weight"], 3)
    query_bias, _, value_bias = np.split(weights[block + "attn.qkv.bias"], 3)
    scale = np.float32(head_dim**-0.5)
    found = products.of(_layer_norm(tokens, weights, block + "norm1"), query_weight * scale, key_weight, value_weight)
    query, keys, values = (_converted(part, lower) for part in found)
    query, values = op.add(query, _constant(query_bias * scale, lower)), op.add(values, _constant(value_bias, lower))
    query, keys, values = (
        op.transpose(op.reshape(part, _shape(1, n_tokens, HEADS, head_dim), False), _shape(0, 2, 1, 3))
        for part in (query, keys, values)
    )
    heads = op.matmul(op.softmax(op.matmul(query, keys, False, True), -1), values, False, False)
    attended = op.reshape(op.transpose(heads, _shape(0, 2, 1, 3)), _shape(1, n_tokens, DIM), False)
    return _branch(attended, weights, block + "attn.proj", block + "ls1", products)


def _mlp(tokens: ov.Output, weights: Tensors, block: str, products: Products) -> ov.Output:
    weight, bias = weights[block + "mlp.fc1.weight"], weights[block + "mlp.fc1.bias"]
    (hidden,) = products.of(_layer_norm(tokens, weights, block + "norm2"), weight)
    hidden = op.gelu(op.add(_converted(hidden), _constant(bias)), "erf")
    return _branch(hidden, weights, block + "mlp.fc2", block + "ls2", products, int8.Gelu(weight, bias))


def _branch(
    inputs: ov.Output,
    weights: Tensors,
    key: str,
    layer_scale: str,
    products: Products,
    source: int8.Gelu | None = None,
) -> ov.Output:
    """The last layer of a residual branch, with LayerScale in its weights: float32."""
    gamma = weights.get(layer_scale + ".gamma", np.ones(DIM, np.float32))
    (product,) = products.of(inputs, weights[key + ".weight"] * gamma[:, None], source=source)
    return op.add(_converted(product), _constant(weights[key + ".bias"] * gamma))


def _final_norm(tokens: ov.Output, weights: Tensors) -> ov.Output:
    if BACK not in weights:
        return _layer_norm(tokens, weights, "norm")
    back = op.matmul(_layer_norm(tokens, weights, "norm"), _constant(weights[BACK]), False, True)
    return op.add(back, _constant(weights["norm.bias"]))


def _layer_norm(tokens: ov.Output, weights: Tensors, key: str) -> ov.Output:
    normed = op.mvn(tokens, _shape(-1), True, LAYER_NORM_EPS, "inside_sqrt")
    if key + ".weight" not in weights:  # it is in the next product
        return normed
    return op.add(op.multiply(normed, _constant(weights[key + ".weight"])), _constant(weights[key + ".bias"]))


def _converted(tokens: ov.Output, lower: ov.Type | None = None) -> ov.Output:
    """The same tokens in a type; None is float32."""
    wanted = lower or ov.Type.f32
    return tokens if tokens.get_element_type() == wanted else op.convert(tokens, wanted)


def _constant(values: npt.NDArray[np.float32], lower: ov.Type | None = None) -> ov.Output:
    constant = op.constant(np.ascontiguousarray(values))
    return constant if lower is None else op.convert(constant, lower)


def _shape(*sizes: int) -> ov.Output:
    return op.constant(np.array(sizes, dtype=np.int64))
