"""Many stored images of a ROI on disk, as after uploads and a calibration of all of them."""

import json
import struct
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from backend.disk.score_cache import ScoreCache

_SIDE = 96
_VARIETY = 50


def pictures() -> list[bytes]:
    """Small textured crops, each another one, as JPEGs."""
    rng = np.random.default_rng(5)
    coarse = rng.integers(60, 200, (_VARIETY, 6, 6, 3), np.uint8)
    images = [cv2.resize(one, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in images]


def crowd(models: Path, roi: Mapping[str, str], n_ok: int, n_ng: int) -> dict[str, float]:
    """Store images beside those of a ROI; each has a score, as after a calibration.

    Args:
        models: a models folder.
        roi: the ids of a ROI that is calibrated on stored images.
        n_ok, n_ng: how many of each class are stored.

    Returns:
        The scores by the images' names as they were uploaded.
    """
    folder = models / "@recipes" / roi["recipe_id"] / "datasets" / roi["role_id"] / roi["roi_id"]
    (scores_file,) = folder.glob(".scores-*")
    kinds, scores = pictures(), np.random.default_rng(6)
    found: dict[str, float] = {}
    with TemporaryDirectory() as apart:
        known = ScoreCache(Path(apart), {})
        for label, n, low, high in (("ok", n_ok, 0.2, 0.5), ("ng", n_ng, 0.45, 1.2)):
            for number, name in enumerate(_names(label, n)):
                # Behind the end of a JPEG nobody reads, so each file is another one.
                content = kinds[number % len(kinds)] + label.encode() + struct.pack("<I", number)
                pixels, uploaded_as = sha256(content).hexdigest(), f"{label}-{number:05}.jpg"
                metadata = {**roi, "label": label, "filename": uploaded_as, "mm_per_px": 1, "pixels_sha256": pixels}
                (folder / label / name).write_bytes(content)
                (folder / label / f"{name}.json").write_text(json.dumps(metadata), encoding="utf-8")
                found[uploaded_as] = round(scores.uniform(low, high), 6)
                known.put(pixels, None, [found[uploaded_as]])
        (written,) = Path(apart).glob(".scores-*")
        with scores_file.open("ab") as file:
            file.write(written.read_bytes())
    return found


def _names(label: str, n: int) -> Iterator[str]:
    """Names as the service gives them: no two are the same, whatever the class."""
    day = {"ok": "20260101", "ng": "20260102"}[label]
    return (f"{day}-{number // 10_000:06}-{number % 10_000:06}-{number:08x}.jpg" for number in range(n))
