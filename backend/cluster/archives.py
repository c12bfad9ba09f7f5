"""Judging an archive of images with the workers of a cluster: each worker writes complete parts of the results."""

import base64
import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend.cluster.parts import ArchiveRun, as_parquet
from backend.cluster.places import Place, image_names, open_place, read_image
from backend.cluster.workers import Workers, worker_settings
from backend.common.errors import IncompatibleMemory, InvalidImage, InvalidRequest, InvalidShape, TooLarge
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.pictures import CONTRACT_PICTURES, NO_PICTURES
from backend.service.scoring import Scoring
from backend.utils import NamedImage


class Counts(NamedTuple):
    """Number of images that were judged OK, judged NG, not judged because there is no calibration, and failed."""

    ok: int = 0
    ng: int = 0
    unjudged: int = 0
    failed: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum of these and other counts, field by field."""
        return Counts(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True)
class Task:
    """The common input of all workers of a run.

    Attributes:
        settings: as `settings_to_send` returns them.
        key: the ROI.
        scoring: how images are scored.
        out: folder or URL of the results.
        run: the images, their parts and the conditions.
    """

    settings: Mapping[str, Any]
    key: RoiKey
    scoring: Scoring
    out: str
    run: ArchiveRun


def conditions_of(service: InspectionService, key: RoiKey, scoring: Scoring) -> dict[str, Any]:
    """All that the rows of a run depend on, apart from the images, as JSON values by name.

    Raises:
        MemoryNotFound, IncompatibleMemory, StorageError: see `InspectionService.fitted`.
    """
    return _conditions(service, key, scoring, service.fitted(key))


def _conditions(service: InspectionService, key: RoiKey, scoring: Scoring, fitted: FittedRoi) -> dict[str, Any]:
    calibration, settings = fitted.calibration, service.settings
    return {
        "role_id": key.role_id,
        "roi_id": key.roi_id,
        "recipe_id": key.recipe_id,
        "memory_id": fitted.memory_id,
        "calibration": fitted.calibration_state,
        "threshold": calibration.threshold if calibration else None,
        "decide_by": calibration.decide_by if calibration else None,
        "pixel_threshold": calibration.pixel_threshold if calibration else None,
        "score_percentile": calibration.score_percentile if calibration else None,
        "area_mm2_thr": calibration.area_mm2_thr if calibration else None,
        "of_settings": [settings.score_percentile, settings.area_mm2_thr, settings.blur_sigma],
        "mm_per_px": scoring.mm_per_px,
        "shape": scoring.shape.model_dump() if scoring.shape else None,
    }


class Scorer:
    """A worker, which judges the images of parts and writes the parts.

    Args:
        task: the input of the run.
    """

    def __init__(self, task: Task) -> None:
        settings = worker_settings(task.settings)
        self._task = task
        self._service = InspectionService.open(settings)
        self._max_bytes = int(settings.max_file_mb * 2**20)
        self._source = open_place(task.run.source, insecure=settings.models_url_insecure)
        self._out = open_place(task.out, insecure=settings.models_url_insecure)
        self._wanted = CONTRACT_PICTURES if task.run.with_heatmaps else NO_PICTURES

    def score(self, part: int, names: Sequence[str]) -> Counts:
        """Judge the images of a part, and write the part.

        Args:
            part: number of the part, from 0.
            names: of its images, in order.

        Raises:
            IncompatibleMemory: the ROI was fitted or calibrated anew since the run began.
            BackendError: as `infer`, if the error is not about one image.
        """
        rows = [self._row(name) for name in names]
        self._out.write(self._task.run.part_names[part], as_parquet(rows, self._task.run.with_heatmaps))
        counts = Counts()
        for row in rows:
            failed, decision = row["error"] is not None, row.get("decision")
            is_what = (decision == "ok", decision == "ng", not failed and decision is None, failed)
            counts = counts.plus(Counts(*map(int, is_what)))
        return counts

    def process_id(self) -> int:
        """The process id of the worker."""
        return os.getpid()

    def _row(self, name: str) -> dict[str, Any]:
        start = time.perf_counter()
        row: dict[str, Any] = {"path": _shown(name), "error": None}
        try:
            content = read_image(self._source, name, self._max_bytes)
            row["sha256"] = hashlib.sha256(content).hexdigest()
            result = infer(
                self._service,
                self._task.key,
                NamedImage(name, lambda: content),
                self._task.scoring,
                wanted=self._wanted,
            )
        except (InvalidImage, TooLarge, InvalidShape) as exc:
            return {**row, "error": _shown(str(exc)), "ms": _ms_since(start)}
        if _conditions(self._service, self._task.key, self._task.scoring, result.fitted) != self._task.run.conditions:
            raise IncompatibleMemory(
                f"{self._task.key} was fitted or calibrated anew during the run: start a new run with another --out"
            )
        region = ("x", "y", "w", "h", "area_px", "area_mm2")
        return {
            **row,
            "score": result.inference.score,
            "decision": result.decision,
            "threshold": result.calibration.threshold if result.calibration else None,
            "calibration": result.calibration_state,
            "regions": [{name: getattr(found, name) for name in region} for found in result.inference.regions],
            "why": result.why,
            "warning": result.warning,
            "memory_id": result.fitted.memory_id,
            "ms": _ms_since(start),
            **({"heatmap_png": base64.b64decode(result.heatmap_png_base64)} if self._task.run.with_heatmaps else {}),
        }


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)


def _shown(text: str) -> str:
    """The text in valid UTF-8: each byte of a file name that is not UTF-8 becomes an escape sequence."""
    return text.encode(errors="backslashreplace").decode()


def images_of(source: Place, address: str, is_left_out: Callable[[str], bool]) -> list[str]:
    """Names of the images of an archive, sorted. Hidden files, such as ``._1.png`` of macOS, are left out.

    Args:
        source: the archive.
        address: its name, for messages.
        is_left_out: whether a folder of this name is not read.

    Raises:
        InvalidRequest: there are no images.
    """
    names = [name for name in image_names(source.names()) if not any(map(is_left_out, name.split("/")[:-1]))]
    names = [name for name in names if not name.rpartition("/")[2].startswith(".")]
    if not names:
        raise InvalidRequest(f"{address} has no images")
    return names


def judge_archive(
    workers: Workers, run: ArchiveRun, names: Sequence[str], missing: Sequence[int], on_done: Callable[[int], None]
) -> Counts:
    """Let the workers judge and write the missing parts.

    Args:
        workers: actors of `Scorer`.
        run: the images and their parts.
        names: of all images of the run, in order.
        missing: numbers of the missing parts.
        on_done: called after each written part, with the number of its images.

    Returns:
        The counts of the images of these parts.

    Raises:
        BackendError: see `Scorer.score`, or a worker ended again and again.
    """
    counts, waiting = Counts(), deque(missing)

    def next_call(_worker: int) -> tuple[int, Sequence[str]] | None:
        if not waiting:
            return None
        part = waiting.popleft()
        return part, run.images_of(part, names)

    for part, done in workers.each("score", next_call):
        counts = counts.plus(done)
        on_done(len(run.images_of(part, names)))
    return counts
