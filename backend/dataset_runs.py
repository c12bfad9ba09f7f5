"""The use cases over stored images: fit, calibrate and infer a ROI from its data set. No HTTP."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.calib import Calibration
from backend.datasets import Label, Sample
from backend.errors import Conflict, InvalidImage, InvalidRequest, StorageError, TooLarge
from backend.layout import RoiKey
from backend.roi_mask import Shape, parse_shape
from backend.runs import Progress
from backend.service import FitResult, InferResult, InspectionService
from backend.storage import FittedRoi
from backend.telemetry import annotate
from backend.utils import NamedImage

_SEEN_IN_THE_FIT = (
    "the model was fitted on stored OK images, whose scores are lower than those of fresh parts: check the threshold "
    "on parts that were not in the fit"
)


@dataclass(frozen=True)
class Judged:
    """A stored image and what came of it.

    Attributes:
        sample: the image.
        mm_per_px: millimetres per pixel that it was judged with; None if that is not known.
        result: None when it failed.
        error: why it failed.
    """

    sample: Sample
    mm_per_px: float | None
    result: InferResult | None = None
    error: str | None = None


@dataclass(frozen=True)
class DatasetCalibration:
    """A calibration from stored images.

    Attributes:
        calibration: as it was stored.
        failed: images that could not be scored; it rests on the others.
        warning: what the numbers cannot promise.
    """

    calibration: Calibration
    failed: list[Judged]
    warning: str | None


def fit(
    service: InspectionService,
    key: RoiKey,
    *,
    mm_per_px: float,
    keep_all: bool,
    on_progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> FitResult:
    """Learn what OK looks like from the stored OK images, read one by one.

    Args:
        service: who fits.
        key: the ROI.
        mm_per_px, keep_all, on_progress, checkpoint: as for `InspectionService.fit_ok`.

    Raises:
        InvalidRequest: fewer of them than ``MIN_OK_SAMPLES``.
        BackendError: as `InspectionService.fit_ok`.
    """
    samples = service.datasets.samples(key, "ok")
    needed = service.settings.min_ok_samples
    if len(samples) < needed:
        raise InvalidRequest(
            f"{len(samples)} OK images are stored for {key}, a fit needs {needed} (MIN_OK_SAMPLES): upload more"
        )
    images = [NamedImage(sample.name, sample.read) for sample in samples]
    return service.fit_ok(
        key,
        images,
        mm_per_px=mm_per_px,
        keep_all=keep_all,
        source="dataset",
        on_progress=on_progress,
        checkpoint=checkpoint,
    )


def calibrate(
    service: InspectionService,
    key: RoiKey,
    *,
    default_mm_per_px: float | None,
    score_percentile: float | None,
    area_mm2_thr: float | None,
    require_ng: bool,
) -> DatasetCalibration:
    """Score the stored images and choose the ROI's threshold from them.

    Args:
        service: who scores them.
        key: the ROI.
        default_mm_per_px: for images that do not say, of a recipe that is not locked.
        score_percentile, area_mm2_thr: as for `InspectionService.calibrate_ng`.
        require_ng: refuse without NG images.

    Raises:
        InvalidRequest: no OK image, or no NG image where they are required, is stored or could be scored.
        Conflict: the ROI was fitted anew meanwhile; nothing was calibrated.
        BackendError: as `InspectionService.infer` and `InspectionService.calibrate_ng`.
    """
    fitted = service.fitted(key)
    ok, ng = service.datasets.samples(key, "ok"), service.datasets.samples(key, "ng")
    if not ok:
        raise InvalidRequest(f"no OK images are stored for {key}: upload some")
    if require_ng and not ng:
        raise InvalidRequest(f"no NG images are stored for {key}: upload some, or set require_ng to false")
    percentile = service.settings.score_percentile if score_percentile is None else score_percentile
    scores: dict[Label, list[float]] = {"ok": [], "ng": []}
    scales: list[float] = []
    failed: list[Judged] = []

    def keep_score(judged: Judged) -> None:
        if judged.result is None or judged.mm_per_px is None:
            failed.append(judged)
        else:
            scores[judged.sample.label].append(judged.result.inference.score)
            scales.append(judged.mm_per_px)

    _judge_all(
        _Judging(service, fitted, key, default_mm_per_px, percentile, with_heatmap=False),
        "calibrate_dataset",
        [*ok, *ng],
        keep_score,
    )
    if not scores["ok"] or (require_ng and not scores["ng"]):
        raise InvalidRequest(f"too few images could be scored, so nothing was calibrated: {failed[0].error}")
    if service.store.memory_id(key) != fitted.memory_id:
        raise Conflict(f"{key} was fitted anew while its images were scored; nothing was calibrated: call again")
    calibration = service.calibrate_ng(
        key,
        scores["ok"],
        scores["ng"],
        mm_per_px=scales[0],
        area_mm2_thr=area_mm2_thr,
        score_percentile=percentile,
        memory_id=fitted.memory_id,
    )
    seen = _SEEN_IN_THE_FIT if fitted.metadata.get("source") == "dataset" else None
    warnings = [text for text in (calibration.warning, seen) if text]
    return DatasetCalibration(calibration, failed, "; ".join(warnings) or None)


def infer(
    service: InspectionService,
    key: RoiKey,
    labels: Sequence[Label],
    *,
    default_mm_per_px: float | None,
    with_heatmaps: bool,
    on_judged: Callable[[Judged], None],
) -> FittedRoi:
    """Judge the stored images, each as `InspectionService.infer` would.

    Args:
        service: who judges them.
        key: the ROI.
        labels: classes of images, in the order of the result.
        default_mm_per_px: as for `calibrate`.
        with_heatmaps: encode the heatmaps.
        on_judged: called with each image as soon as it is judged; results are not kept, since runs are long.

    Returns:
        The model that all of them were compared with.

    Raises:
        BackendError: as `InspectionService.infer`, where it is not about one image.
    """
    fitted = service.fitted(key)
    samples = [sample for label in labels for sample in service.datasets.samples(key, label)]
    _judge_all(
        _Judging(service, fitted, key, default_mm_per_px, None, with_heatmap=with_heatmaps),
        "infer_dataset",
        samples,
        on_judged,
    )
    return fitted


def _judge_all(judging: "_Judging", kind: str, samples: Sequence[Sample], on_judged: Callable[[Judged], None]) -> None:
    """Judge all samples, in order, in the place of one inference."""
    service, key = judging.service, judging.key
    locked = service.recipes.mm_per_px(key.recipe_id)
    with service.inference_place(), service.runs.run(kind, key, len(samples)) as run:
        for number, sample in enumerate(samples, start=1):
            judged = judging.judge(sample, locked)
            run.n_errors += judged.result is None
            on_judged(judged)
            run.report("score", number, len(samples))
    annotate(n_images=len(samples), n_errors=run.n_errors)


@dataclass(frozen=True)
class _Judging:
    """How the images of a run are judged."""

    service: InspectionService
    fitted: FittedRoi
    key: RoiKey
    default_mm_per_px: float | None
    score_percentile: float | None
    with_heatmap: bool

    def judge(self, sample: Sample, locked: float | None) -> Judged:
        mm_per_px = None
        try:
            metadata = sample.metadata()
            mm_per_px = scale_of(metadata) or locked or self.default_mm_per_px
            if mm_per_px is None:
                raise InvalidRequest(f"{sample.name}: no mm_per_px is known; send default_mm_per_px")
            result = self.service.judge(
                self.fitted,
                NamedImage(sample.name, sample.read),
                mm_per_px=mm_per_px,
                shape=_shape(metadata),
                score_percentile=self.score_percentile,
                with_heatmap=self.with_heatmap,
            )
        except (InvalidImage, TooLarge, InvalidRequest, StorageError) as exc:
            return Judged(sample, mm_per_px, error=str(exc))
        return Judged(sample, mm_per_px, result)


def scale_of(metadata: dict[str, Any]) -> float | None:
    """Millimetres per pixel in the metadata of an image, if it is known; a client that does not know writes 0."""
    value = metadata.get("mm_per_px")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= sys.float_info.max else None


def _shape(metadata: dict[str, Any]) -> Shape | None:
    """The mask that an image was uploaded with: JSON in a text, or as it is."""
    shape = metadata.get("shape_json")
    return parse_shape(shape if shape is None or isinstance(shape, str) else json.dumps(shape))
