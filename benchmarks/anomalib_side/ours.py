"""Our side: the service in process, and both ways to select a coreset."""

from pathlib import Path
from typing import Any

import numpy as np

from backend.common.config import load_settings
from backend.common.roi_key import RoiKey
from backend.common.telemetry import RequestRecord, recording
from backend.patchcore import k_center_greedy
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from benchmarks.anomalib_side.worker import serve
from benchmarks.coreset import plain_loop

_KEY = RoiKey("Benchmark", "Part")


class Ours:
    """The orders."""

    def open(self, models_dir: str) -> dict[str, Any]:
        """Load the network."""
        self._service = InspectionService.open(load_settings(models_dir=models_dir))
        return {"name": f"ours, {self._service.features.runtime.name} {self._service.features.runtime.precision}"}

    def fit(self, images: list[str], keep_all: bool) -> dict[str, Any]:
        """Build and store the memory bank of image files."""
        named = [NamedImage(Path(image).name, Path(image).read_bytes) for image in images]
        record = RequestRecord("fit")
        with recording(record):
            result = fit(self._service, _KEY, named, mm_per_px=0.5, keep_all=keep_all)
        return {"bank": result.coreset_size, "coreset_s": record.timings_ms["coreset"] / 1000}

    def infer(self, image: str) -> dict[str, Any]:
        """Score one image file, heatmap included."""
        path = Path(image)
        result = infer(self._service, _KEY, NamedImage(path.name, path.read_bytes), Scoring(0.5))
        return {"score": result.inference.score}

    def load(self, embeddings: str) -> None:
        """Read float32 [N, D], L2-normalised."""
        self._embeddings = np.load(embeddings)

    def rounds(self, n_select: int) -> dict[str, Any]:
        """The service's selection."""
        return {"picks": k_center_greedy(self._embeddings, n_select).tolist()}

    def loop(self, n_select: int) -> dict[str, Any]:
        """One pick at a time."""
        return {"picks": plain_loop(self._embeddings, n_select).tolist()}


if __name__ == "__main__":
    serve(Ours())
