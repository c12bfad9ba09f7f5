"""The one interface between the extractor and whatever runs the network."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from backend.common.errors import ConfigError


class Runtime(Protocol):
    """A frozen ViT at a fixed input size."""

    @property
    def name(self) -> str:
        """``"openvino"`` or ``"torch"``."""
        ...

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        ...

    @property
    def precision(self) -> str:
        """What the network computes in: ``"float32"``, ``"bfloat16"`` or ``"float16"``."""
        ...

    @property
    def block(self) -> int | None:
        """The block, from 1, after which the network ends; None is its last."""
        ...

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patch tokens the network returns, (rows, columns)."""
        ...

    @property
    def dim(self) -> int:
        """Length of one patch token."""
        ...

    @property
    def batch(self) -> int:
        """Images per forward pass where many wait, as in a fit."""
        ...

    def forward(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Run the network; one call at a time.

        Args:
            pixels: float32 [B, 3, S, S], RGB, normalised with ImageNet mean and standard deviation.

        Returns:
            float32 [B, rows * columns, dim]: the patch tokens after `block` and the final norm, row by row,
            prefix tokens dropped, not L2-normalised.
        """
        ...


def earlier_block(block: int | None, n_blocks: int) -> int | None:
    """The same block, or None where it is the last of `n_blocks`: one network, one identity.

    Raises:
        ConfigError: there is no such block.
    """
    if block is not None and not 1 <= block <= n_blocks:
        raise ConfigError(f"BLOCK={block}: the network has blocks 1 to {n_blocks}")
    return None if block == n_blocks else block
