"""Scores of stored images on disk, so that a repeated or abandoned calibration does not start again."""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from backend.common.files import delete, read_small
from backend.roi_mask import Shape

PREFIX = ".scores-"
_MAX_BYTES = 64 << 20  # of 290,000 images with a score each
_NEARLY = "nearly"
_SHA256 = re.compile("[0-9a-f]{64}")

log: Any = structlog.get_logger(__name__)


class ScoreCache:
    """One file of scores, a JSON line each; all processes append to it as scores are made.

    Images are identified by their pixels. Lines record the pixels of a file, so that it does not have to be decoded
    again. Earlier versions identified images by their files: those scores are found by the hash of the file. Other
    lines record of which image of the fit an image is a near copy.

    Args:
        folder: of the data set.
        conditions: everything except image and mask that determines a score, JSON values; scores under other conditions
            are deleted.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
        self._path = folder / f"{PREFIX}{digest[:32]}.jsonl"
        self._scores, self._pixels, self._originals = _read(self._path)
        self._writes = True

    def get(self, sha256: str, shape: Shape | None) -> tuple[float, ...] | None:
        """The stored scores of an image, by the hash of its pixels or its file, and this mask; else None."""
        return self._scores.get(_name(sha256, shape))

    def put(self, pixels_sha256: str, shape: Shape | None, scores: Sequence[float]) -> None:
        """Store the scores of an image; if the disk fails, the run continues without them."""
        name = _name(pixels_sha256, shape)
        self._scores[name] = tuple(scores)
        self._append([name, *scores])

    def pixels_of(self, sha256: str) -> str | None:
        """The hash of the pixels of a file, by the hash of the file; None if it is not stored."""
        return self._pixels.get(sha256)

    def put_pixels(self, sha256: str, pixels_sha256: str) -> None:
        """Store the pixels of a file, as `put` stores scores."""
        self._pixels[sha256] = pixels_sha256
        self._append([sha256, pixels_sha256])

    def original_of(self, pixels_sha256: str) -> str | None:
        """The image of the fit that an image is a near copy of; None if it is not stored."""
        return self._originals.get(pixels_sha256)

    def put_original(self, pixels_sha256: str, original: str) -> None:
        """Store the image of the fit that an image nearly copies, as `put` stores scores; empty if none."""
        self._originals[pixels_sha256] = original
        self._append([pixels_sha256, _NEARLY, original])

    def _append(self, line: list[Any]) -> None:
        if not self._writes:
            return
        try:
            if not self._path.exists():
                for other in self._path.parent.glob(f"{PREFIX}*"):
                    delete(other)
            with self._path.open("ab", buffering=0) as file:
                file.write(f"\n{json.dumps(line)}".encode())  # a torn line ends where the next one begins
        except OSError as exc:
            self._writes = False
            log.warning("scores.not_kept", reason=str(exc.strerror))


def _name(sha256: str, shape: Shape | None) -> str:
    mask = b"" if shape is None else shape.model_dump_json().encode()
    return hashlib.sha256(bytes.fromhex(sha256) + mask).hexdigest()


def _read(path: Path) -> tuple[dict[str, tuple[float, ...]], dict[str, str], dict[str, str]]:
    """The scores by name, the hashes of pixels by those of files, and the originals by the hashes of pixels."""
    try:
        lines = read_small(path, _MAX_BYTES).split(b"\n")
    except OSError:  # there are none yet, or they cannot be read: all are made again
        return {}, {}, {}
    except ValueError as exc:
        log.warning("scores.not_read", reason=str(exc))
        with contextlib.suppress(OSError):  # or it would grow for ever, and never be read again
            delete(path)
        return {}, {}, {}
    scores, pixels, originals = {}, {}, {}
    for line in lines:
        try:
            name, *values = json.loads(line)
        except (ValueError, TypeError, RecursionError):  # empty, or torn by a crash
            continue
        if isinstance(name, str) and values and all(isinstance(v, float) and math.isfinite(v) for v in values):
            scores[name] = tuple(values)
        elif isinstance(name, str) and len(values) == 1 and isinstance(values[0], str) and _SHA256.fullmatch(values[0]):
            pixels[name] = values[0]
        elif isinstance(name, str) and len(values) == 2 and values[0] == _NEARLY and isinstance(values[1], str):
            originals[name] = values[1]
    return scores, pixels, originals
