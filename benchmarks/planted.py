"""Small defects on images of good parts: a spot, a scratch or a displaced patch of 8 to 24 pixels."""

import cv2
import numpy as np
import numpy.typing as npt

Bgr = npt.NDArray[np.uint8]
_LEAST_SIZE, _MOST_SIZE = 8, 24
# Where an image is darker or brighter it shows no part, but what lies behind it.
_DARK, _BRIGHT = 20, 240


def planted(image: Bgr, seed: int) -> Bgr:
    """The image with one small defect; the same seed gives the same.

    Args:
        image: uint8 [H, W, 3], BGR, 64 pixels or more in both directions.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    size = int(rng.integers(_LEAST_SIZE, _MOST_SIZE + 1))
    x, y, level = _place(image, size, rng)
    kind = ("spot", "spot", "scratch", "patch")[rng.integers(4)]
    mask = np.zeros(image.shape[:2], np.float32)
    angle = float(rng.uniform(0, 180))
    if kind == "scratch":
        dx, dy = np.cos(np.radians(angle)) * size / 2, np.sin(np.radians(angle)) * size / 2
        cv2.line(mask, (round(x - dx), round(y - dy)), (round(x + dx), round(y + dy)), 1.0, 2, cv2.LINE_AA)
    else:
        axes = (max(2, size // 2), max(2, round(size * rng.uniform(0.3, 0.5))))
        cv2.ellipse(mask, (x, y), axes, angle, 0, 360, 1.0, -1, cv2.LINE_AA)
    soft = np.asarray(cv2.GaussianBlur(mask, (0, 0), 0.8))[..., None]
    defective = image.astype(np.float32)
    if kind == "patch":
        other_x, other_y, _ = _place(image, size, rng)
        moved = np.roll(defective, (y - other_y, x - other_x), (0, 1))
        defective = defective * (1 - soft) + moved * soft + soft * np.float32(rng.uniform(15, 30))
    else:
        contrast = rng.uniform(25, 60) * (1 if level < (_DARK + _BRIGHT) / 2 else -1)
        defective += soft * np.float32(contrast)
    return np.asarray(np.clip(np.rint(defective), 0, 255), np.uint8)


def _place(image: Bgr, size: int, rng: np.random.Generator) -> tuple[int, int, float]:
    """A place on the part, (x, y), and how bright it is there."""
    height, width = image.shape[:2]
    for _ in range(100):
        x, y = int(rng.integers(size, width - size)), int(rng.integers(size, height - size))
        window = image[y - size // 2 : y + size // 2 + 1, x - size // 2 : x + size // 2 + 1]
        level = float(window.mean())
        if _DARK < level < _BRIGHT:
            break
    return x, y, level
