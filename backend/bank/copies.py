"""What is remembered of the pixels of an image while a fit runs: what tells it apart from others."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from backend.utils import pixels_sha256


class Look(NamedTuple):
    """What is remembered of the pixels of an image while a fit runs.

    Attributes:
        pixels_sha256: identity; see `utils.pixels_sha256`.
    """

    pixels_sha256: str

    @classmethod
    def of(cls, image: npt.NDArray[np.uint8]) -> "Look":
        """The look of an image.

        Args:
            image: uint8 [H, W, 3], BGR.
        """
        return cls(pixels_sha256(image))
