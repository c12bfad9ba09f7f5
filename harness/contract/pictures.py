"""The images for every checkout: made from fixed numbers, so that no files are needed."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
AnyImage = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

WIDTH, HEIGHT = 150, 120


@cache
def part(number: int) -> Image:
    """A good part: a disc with a hole on a rough plate, uint8 [120, 150, 3], BGR. Each number is another."""
    chance = np.random.default_rng(number)
    rough = cv2.GaussianBlur(chance.normal(95, 40, (HEIGHT, WIDTH, 3)), (0, 0), 1.5)
    image = np.clip(rough, 0, 255).astype(np.uint8)
    centre = (int(chance.integers(70, 80)), int(chance.integers(55, 65)))
    cv2.circle(image, centre, 42, (190, 180, 170), -1, cv2.LINE_AA)
    cv2.circle(image, centre, 14, (60, 50, 40), -1, cv2.LINE_AA)
    return image


@cache
def scratched(number: int) -> Image:
    """A defective part: a good one with a dark scratch."""
    image = part(number).copy()
    start = (20 + 7 * (number % 9), 20)
    cv2.line(image, start, (start[0] + 40, 95), (10, 10, 20), 4, cv2.LINE_AA)
    return image


def encoded(image: AnyImage, suffix: str = ".png") -> bytes:
    """The image as a file of that kind."""
    return cv2.imencode(suffix, image)[1].tobytes()


def crop(number: int, of: Callable[[int], Image] = part) -> bytes:
    """A part as the GUI crops it: PNG in BGRA."""
    return encoded(np.asarray(cv2.cvtColor(of(number), cv2.COLOR_BGR2BGRA), np.uint8))


def crops(*numbers: int, of: Callable[[int], Image] = part) -> list[bytes]:
    """Several crops."""
    return [crop(number, of) for number in numbers]
