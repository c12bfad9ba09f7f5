"""Near copies: the distances between images of different parts, and those between copies and their images.

``python -m benchmarks.copies FOLDER …`` takes folders of images; folders called ``ground_truth`` are left out.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from backend.bank.copies import Look, near_copies, unlikeness
from harness.measuring import print_table

Bgr = npt.NDArray[np.uint8]
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    changes: dict[str, Callable[[Bgr], Bgr]] = {
        "JPEG, quality 80": _jpeg,
        "1 px aslant": lambda image: _shifted(image, 1),
        "2 px aslant": lambda image: _shifted(image, 2),
        "2 levels brighter": lambda image: np.asarray(cv2.add(image, np.full_like(image, 2)), np.uint8),
    }
    rows = [_row(folder, changes) for folder in parser.parse_args().folders]
    header = (
        "data set",
        "images",
        "pairs found",
        "nearest pair not found",
        *(f"{name}: most, found" for name in changes),
    )
    print_table("Near copies: distances, and how many of them are found", header, rows)
    looks = [Look(str(number), _noise(number)) for number in range(1000)]
    start = time.perf_counter()
    list(near_copies(looks))
    print(f"\n1000 images compared in {time.perf_counter() - start:.1f} s")


def _row(folder: Path, changes: dict[str, Callable[[Bgr], Bgr]]) -> tuple[str, ...]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    images = [np.asarray(cv2.imread(str(path)), np.uint8) for path in files if "ground_truth" not in path.parts]
    looks = [Look.of(image) for image in images]
    pairs = list(near_copies(looks))
    distances = _distances(looks)
    for pair in pairs:
        distances[pair] = np.inf
    nearest = distances[np.triu_indices(len(looks), 1)].min()
    cells = []
    for change in changes.values():
        copies = [Look.of(change(image)) for image in images]
        most = np.diagonal(_distances([*looks, *copies]), len(looks)).max()
        found = set(near_copies([*looks, *copies]))
        n_found = sum((number, number + len(looks)) in found for number in range(len(looks)))
        cells.append(f"{most:.4f}, {n_found} of {len(looks)}")
    return (folder.name, str(len(looks)), str(len(pairs)), f"{nearest:.4f}", *cells)


def _distances(looks: Sequence[Look]) -> npt.NDArray[np.float32]:
    """Of each pair the smaller of both distances, float32 [n, n]."""
    found = np.vstack([unlike for _, unlike in unlikeness([look.miniature for look in looks])])
    return np.asarray(np.minimum(found, found.T), np.float32)


def _jpeg(image: Bgr) -> Bgr:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _shifted(image: Bgr, pixels: int) -> Bgr:
    move = np.array([[1, 0, pixels], [0, 1, pixels]], np.float32)
    return np.asarray(cv2.warpAffine(image, move, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _noise(seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)


if __name__ == "__main__":
    main()
