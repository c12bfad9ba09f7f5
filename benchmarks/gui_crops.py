"""Whether the crops of the console for models of the existing GUI equal those of OpenCV: counts different pixels.

The GUI has OpenCV 4.11, this service a later one. To compare with it:

    pip install --no-deps --target FOLDER opencv-python-headless==4.11.0.86
    PYTHONPATH=FOLDER python -m benchmarks.gui_crops
"""

import cv2
import numpy as np

from backend.commands.watch.crop import Pixels as Image
from backend.commands.watch.gui_crop import Matrix, warp_affine
from harness.images import solar_cells
from harness.measuring import print_table

_TURNS = 300


def _of_opencv(image: Image, matrix: Matrix) -> Image:
    size = (image.shape[1], image.shape[0])
    return np.asarray(
        cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
    )


def main() -> None:
    """Turn pictures by many angles about many centres, and count."""
    rng = np.random.default_rng(0)
    pictures = [cv2.resize(cell, (640 - 7 * number, 480)) for number, cell in enumerate(solar_cells(4))]
    differing = compared = most = 0
    for turn in range(_TURNS):
        picture = np.asarray(pictures[turn % len(pictures)], np.uint8)
        digits = turn % 5
        angle = round(float(rng.uniform(-360, 360)), digits) if turn % 3 else 15.0 * (turn % 24)
        centre = tuple(round(float(rng.uniform(0, side)), digits) for side in picture.shape[1::-1])
        matrix = np.asarray(cv2.getRotationMatrix2D(centre, angle, 1.0), np.float64)
        apart = np.abs(warp_affine(picture, matrix).astype(int) - _of_opencv(picture, matrix)).max(-1)
        differing, compared, most = (
            differing + int((apart > 0).sum()),
            compared + apart.size,
            max(most, int(apart.max())),
        )
    print_table(
        f"{_TURNS} turned pictures beside warpAffine of OpenCV {cv2.__version__}",
        ("pixels", "differ", "by at most"),
        [(f"{compared:,}", f"{differing:,}", most)],
    )


if __name__ == "__main__":
    main()
