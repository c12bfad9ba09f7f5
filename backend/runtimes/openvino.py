"""DINOv2 ViT-S/14 on OpenVINO, built straight from the verified safetensors: no torch, no export, no ONNX.

The graph follows timm's ``VisionTransformer`` operation by operation, so that both runtimes give the same tokens.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as op
from PIL import Image
from safetensors.numpy import load_file

PATCH = 14
BLOCKS = 12
HEADS = 6
DIM = 384
LAYER_NORM_EPS = 1e-6

Tensors = dict[str, npt.NDArray[np.float32]]


class OpenVinoRuntime:
    """The ViT compiled for this machine's CPU, float32, any batch size (see `Runtime`).

    Args:
        weights: safetensors file with timm's names.
        input_size: side of the input in pixels, a multiple of 14.
    """

    name = "openvino"
    device = "cpu"
    precision = "float32"
    dim = DIM
    # One pass over 2 or 4 images takes as long as 2 or 4 passes on two cores, and inferences wait for a whole pass.
    fit_batch = 1

    def __init__(self, weights: Path, input_size: int) -> None:
        side = input_size // PATCH
        self.grid_hw = (side, side)
        model = build_vit(load_file(weights), input_size)
        # Without the hint OpenVINO may choose bfloat16 by itself on CPUs that have it.
        hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Runtime.forward`."""
        result = self._request.infer([np.ascontiguousarray(pixels)], share_inputs=True)
        return np.array(result[0])


def build_vit(weights: Tensors, input_size: int) -> ov.Model:
    """Write the forward pass in OpenVINO's own operations.

    Args:
        weights: float32 tensors under timm's names for ``vit_small_patch14_dinov2``.
        input_size: side of the input in pixels, a multiple of 14.

    Returns:
        A model from ``[B, 3, S, S]`` to the normalised patch tokens ``[B, (S / 14)², 384]``, B dynamic.
    """
    n_patches = (input_size // PATCH) ** 2
    pixels = op.parameter([-1, 3, input_size, input_size], np.float32, name="pixels")

    patches = op.convolution(
        pixels, _constant(weights["patch_embed.proj.weight"]), [PATCH, PATCH], [0, 0], [0, 0], [1, 1]
    )
    patches = op.transpose(op.reshape(patches, _shape(0, DIM, n_patches), True), _shape(0, 2, 1))
    position = resample_position_grid(weights["pos_embed"], input_size // PATCH)
    tokens = op.add(patches, _constant(position[:, 1:] + weights["patch_embed.proj.bias"]))
    cls = _constant(weights["cls_token"] + position[:, :1])
    batch = op.gather(op.shape_of(pixels), _shape(0), _scalar(0))
    tokens = op.concat([op.broadcast(cls, op.concat([batch, _shape(1, DIM)], 0)), tokens], 1)

    for index in range(BLOCKS):
        block = f"blocks.{index}."
        attended = _attention(_layer_norm(tokens, weights, block + "norm1"), weights, block + "attn.", n_patches + 1)
        tokens = op.add(tokens, op.multiply(attended, _constant(weights[block + "ls1.gamma"])))
        hidden = _linear(_layer_norm(tokens, weights, block + "norm2"), weights, block + "mlp.fc1")
        mixed = _linear(op.gelu(hidden, "erf"), weights, block + "mlp.fc2")
        tokens = op.add(tokens, op.multiply(mixed, _constant(weights[block + "ls2.gamma"])))

    tokens = _layer_norm(tokens, weights, "norm")
    patch_tokens = op.slice(tokens, _shape(1), _shape(n_patches + 1), _shape(1), _shape(1))
    return ov.Model([patch_tokens], [pixels], "dinov2_vits14")


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


def _attention(tokens: ov.Output, weights: Tensors, key: str, n_tokens: int) -> ov.Output:
    qkv = op.reshape(_linear(tokens, weights, key + "qkv"), _shape(0, n_tokens, 3, HEADS, DIM // HEADS), True)
    qkv = op.transpose(qkv, _shape(2, 0, 3, 1, 4))
    query, keys, values = (op.gather(qkv, _scalar(part), _scalar(0)) for part in range(3))
    heads = op.transpose(op.scaled_dot_product_attention(query, keys, values), _shape(0, 2, 1, 3))
    return _linear(op.reshape(heads, _shape(0, n_tokens, DIM), True), weights, key + "proj")


def _layer_norm(tokens: ov.Output, weights: Tensors, key: str) -> ov.Output:
    normed = op.mvn(tokens, _shape(-1), True, LAYER_NORM_EPS, "inside_sqrt")
    return op.add(op.multiply(normed, _constant(weights[key + ".weight"])), _constant(weights[key + ".bias"]))


def _linear(tokens: ov.Output, weights: Tensors, key: str) -> ov.Output:
    product = op.matmul(tokens, _constant(weights[key + ".weight"]), False, True)
    return op.add(product, _constant(weights[key + ".bias"]))


def _constant(values: npt.NDArray[np.float32]) -> ov.Output:
    return op.constant(np.ascontiguousarray(values))


def _shape(*sizes: int) -> ov.Output:
    return op.constant(np.array(sizes, dtype=np.int64))


def _scalar(value: int) -> ov.Output:
    return op.constant(np.int64(value))
