"""Real images for servers under load: solar cells, and PNG files of them."""

from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def solar_cells(count: int) -> list[Image]:
    """The first `count` images of the package ``elpv-dataset`` (CC BY-NC-SA 4.0), uint8 [300, 300, 3], BGR."""
    folder = Path(elpv_dataset.__file__).parent / "data" / "images"
    images = [cv2.imread(str(path)) for path in sorted(folder.glob("*.png"))[:count]]
    return [np.asarray(image, np.uint8) for image in images if image is not None]


def png(image: Image) -> bytes:
    """The image as a PNG file."""
    return cv2.imencode(".png", image)[1].tobytes()


def cell_png(width: int, height: int) -> bytes:
    """A solar cell stretched to a ROI of that size, as a PNG file of three channels."""
    return png(np.asarray(cv2.resize(solar_cells(1)[0], (width, height), interpolation=cv2.INTER_CUBIC), np.uint8))
