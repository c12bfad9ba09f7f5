"""Models that differ in the score of one image, so that a reply or a file shows its model."""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness.forms import Form
from harness.images import png, solar_cells
from harness.server import serving

MM_PER_PX = "0.52"
# Fits and inferences in milliseconds; memory banks of 70 to 200 kB.
SMALL_NETWORK: dict[str, Any] = {"INPUT_SIZE": "56", "LOG_LEVEL": "warning"}
_FEWEST_IMAGES = 3
_SAME_SCORE = 1e-5
_OTHER_SCORE = 1e-3


@dataclass(frozen=True)
class Version:
    """What a fit of certain images makes of a ROI.

    Attributes:
        name: of the version.
        images: PNG files; no two versions have as many.
        memory_id: of its memory bank.
        embeddings_sha256: of the array on disk.
        score: of the probe image.
    """

    name: str
    images: tuple[bytes, ...]
    memory_id: str
    embeddings_sha256: str
    score: float

    def fit_form(self, **ids: str) -> Form:
        """The request that fits it."""
        return Form.of("images", self.images, memory_fit="true", mm_per_px=MM_PER_PX, **ids)


@dataclass(frozen=True)
class Versions:
    """Versions whose scores of `probe` differ."""

    every: tuple[Version, ...]
    probe: bytes

    def of_score(self, score: float) -> Version | None:
        """The version that gives the probe this score."""
        return next((version for version in self.every if abs(version.score - score) < _SAME_SCORE), None)

    def of_memory(self, path: Path) -> Version | None:
        """The version that a ``memory.npz`` is, in its embeddings and its metadata alike.

        Raises:
            Exception: whatever numpy, zipfile and json raise of a damaged file.
        """
        embeddings, metadata = read_memory(path)
        digest = _sha256(embeddings)
        for version in self.every:
            if (version.embeddings_sha256, version.memory_id) == (digest, metadata["memory_id"]):
                return version if metadata["n_images"] == len(version.images) else None
        return None

    def of_id(self, memory_id: str | None) -> Version | None:
        """The version whose memory bank has this identity."""
        return next((version for version in self.every if version.memory_id == memory_id), None)


def read_memory(path: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """The embeddings of a ``memory.npz``, float32 [M, D], and its metadata."""
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["emb"], json.loads(str(arrays["metadata"]))


@cache
def known_versions(count: int) -> Versions:
    """Fit `count` versions once, each as a ROI of its own, and remember what it is.

    Raises:
        RuntimeError: two of them give the probe the same score.
    """
    sizes = range(_FEWEST_IMAGES, _FEWEST_IMAGES + count)
    *cells, probe = (png(cell) for cell in solar_cells(sum(sizes) + 1))
    remaining = iter(cells)
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder,
        serving(MODELS_DIR=folder, **SMALL_NETWORK) as server,
        server.client() as client,
    ):
        for number, size in enumerate(sizes):
            ids = {"role_id": "Version", "roi_id": f"{number}"}
            images = tuple(next(remaining) for _ in range(size))
            new = Version(chr(ord("A") + number), images, "", "", 0.0)
            new.fit_form(**ids).post(client, "/fit_ok").raise_for_status()
            embeddings, metadata = read_memory(Path(folder) / "Version" / f"{number}" / "memory.npz")
            reply = Form.of("image", [probe], mm_per_px=MM_PER_PX, **ids).post(client, "/infer").raise_for_status()
            score = float(reply.json()["score"])
            found.append(Version(new.name, images, metadata["memory_id"], _sha256(embeddings), score))
    _check_apart([version.score for version in found])
    return Versions(tuple(found), probe)


def _check_apart(scores: Sequence[float]) -> None:
    ordered = sorted(scores)
    if any(high - low < _OTHER_SCORE for low, high in itertools.pairwise(ordered)):
        raise RuntimeError(f"versions cannot be told apart by their scores: {ordered}")


def _sha256(embeddings: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(embeddings).data).hexdigest()
