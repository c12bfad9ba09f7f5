"""timm on torch: the reference implementation, the CUDA path, and the way to any other ``MODEL_NAME``."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from backend.common.errors import ConfigError
from backend.network.runtimes.base import blocks_name, earlier_block


def _declare_missing_torchvision_operators() -> "torch.library.Library | None":
    # timm imports torchvision, and torchvision's CUDA build does not import beside a CPU build of torch: its library
    # does not load, so the operators it registers shapes for are missing ("operator torchvision::nms does not exist").
    # Nothing here calls them; declaring their schemas is enough. Ordinary installations load the library and stay as
    # they are.
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        for library_path in Path(spec.origin).parent.glob("_C*"):
            torch.ops.load_library(str(library_path))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


_declared = _declare_missing_torchvision_operators()  # lives as long as its operators

import timm  # noqa: E402  (after the operators it needs)

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchRuntime:
    """A timm ViT in eval mode, without gradients (see `Runtime`).

    Args:
        model_name: timm name, such as ``vit_small_patch14_dinov2.lvd142m``.
        weights: safetensors file with timm's names for it.
        input_size: side of the input in pixels, a multiple of the model's patch size.
        device: ``"cpu"`` or ``"cuda"``.
        precision: ``"float32"``, or ``"bfloat16"`` or ``"float16"`` for the operations that torch's autocast lowers to
            it.
        threads: how many threads a forward pass on the CPU uses; 0 leaves it to torch.
        block: after which the network ends, from 1; None is the last.
        blocks: several blocks instead of one, from 1, rising: a token has those of all, side by side.

    Raises:
        ConfigError: timm does not know the model, it is not a ViT, `input_size` does not fit its patches, or it has no
            such block.
    """

    name = "torch"

    def __init__(
        self,
        model_name: str,
        weights: Path,
        input_size: int,
        device: str,
        precision: str = "float32",
        threads: int = 0,
        block: int | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.device = device
        self.precision = precision
        self.batch = 16 if device == "cuda" else 1
        if threads:
            torch.set_num_threads(threads)
        try:
            # `pretrained` with a file of our own is timm's way to load weights with the position grid resampled.
            model = timm.create_model(
                model_name,
                pretrained=True,
                pretrained_cfg_overlay={"file": str(weights)},
                num_classes=0,
                img_size=input_size,
            )
        except (RuntimeError, TypeError, AssertionError) as exc:
            raise ConfigError(f"MODEL_NAME={model_name!r} cannot be built at INPUT_SIZE={input_size}: {exc}") from exc
        patches: Any = getattr(model, "patch_embed", None)
        grid = getattr(patches, "grid_size", None)
        if grid is None:
            raise ConfigError(f"MODEL_NAME={model_name!r} is not a vision transformer with a patch grid")
        if any(input_size % side for side in patches.patch_size):
            raise ConfigError(
                f"INPUT_SIZE={input_size} is not a multiple of the patch size of MODEL_NAME={model_name!r}"
            )
        self._blocks = tuple(blocks) if blocks else ()
        self.block: int | str | None
        if self._blocks:
            self.block = blocks_name(self._blocks)
        else:
            self.block = None if block is None else _end_after(model, block)
        self.grid_hw = (int(grid[0]), int(grid[1]))
        of_one: int = model.num_features  # type: ignore[assignment]  # a buffer, for nn.Module
        self.dim = of_one * max(1, len(self._blocks))
        # float32 means float32: by default cuDNN rounds the inputs of convolutions to TF32's 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
        self._model: Any = model.eval().requires_grad_(False).to(device)

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """See `Runtime.forward`."""
        lowered = self.precision != "float32"
        with torch.inference_mode(), torch.autocast(self.device, _TYPES[self.precision], enabled=lowered):
            images = torch.from_numpy(pixels).to(self.device)
            if self._blocks:
                # Patch tokens only, after the final norm: [B, rows * columns, D] of each block.
                of_blocks = self._model.forward_intermediates(
                    images,
                    indices=[block - 1 for block in self._blocks],
                    norm=True,
                    output_fmt="NLC",
                    intermediates_only=True,
                )
                return np.concatenate([tokens.float().cpu().numpy() for tokens in of_blocks], axis=-1)
            output = self._model.forward_features(images)
            tokens = select_patch_tokens(output, self.grid_hw)
            return np.ascontiguousarray(tokens.float().cpu().numpy())


def _end_after(model: Any, block: int) -> int | None:
    """Leave out the blocks after this one, but keep the final norm: see `earlier_block`."""
    if not all(hasattr(model, name) for name in ("blocks", "prune_intermediate_layers")):
        raise ConfigError(f"BLOCK={block}: timm cannot select a block of this MODEL_NAME")
    earlier = earlier_block(block, len(model.blocks))
    if earlier is not None:
        model.prune_intermediate_layers([earlier - 1], prune_norm=False, prune_head=False)
    return earlier


def select_patch_tokens(output: Any, grid_hw: tuple[int, int]) -> torch.Tensor:
    """Find the patch tokens in the output of ``forward_features``.

    Args:
        output: a tensor [B, prefix + rows * columns, D], or a dict that holds one (``x_norm_patchtokens`` as in
            Meta's code, else the first tensor of three dimensions).
        grid_hw: the patch grid, (rows, columns).

    Returns:
        [B, rows * columns, D]: the prefix tokens (class token, registers) come first and are dropped.

    Raises:
        ConfigError: there are fewer tokens than patches, or no token tensor at all.
    """
    if isinstance(output, Mapping):
        named = output.get("x_norm_patchtokens")
        output = named if named is not None else next((v for v in output.values() if getattr(v, "ndim", 0) == 3), None)
    n_patches = grid_hw[0] * grid_hw[1]
    if output is None or output.ndim != 3 or output.shape[1] < n_patches:
        raise ConfigError(f"MODEL_NAME does not return {n_patches} patch tokens from forward_features")
    tokens: torch.Tensor = output[:, output.shape[1] - n_patches :]
    return tokens
