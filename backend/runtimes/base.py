"""The one interface between the extractor and whatever runs the network."""

from typing import Protocol

import numpy as np
import numpy.typing as npt


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
            float32 [B, rows * columns, dim]: the last block's patch tokens after the final norm, row by row,
            prefix tokens dropped, not L2-normalised.
        """
        ...
