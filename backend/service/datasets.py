"""The use cases over stored images: fit, calibrate and infer a ROI from its data set. No HTTP."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from backend.common.error_text import MOST_NAMES
from backend.common.errors import (
    Conflict,
    ErrorCode,
    InvalidImage,
    InvalidRequest,
    InvalidShape,
    ScaleLocked,
    StorageError,
    TooLarge,
)
from backend.common.profiles import DetailName, ProfileName
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress, annotate
from backend.disk.datasets import Label, Sample
from backend.disk.fitted import FittedRoi
from backend.disk.progress import Run
from backend.disk.recipes import same_scale
from backend.disk.sample_facts import shape_text
from backend.roi_mask import Shape, build_mask, parse_shape, requested_shape
from backend.service.calibration_options import CalibrationOptions
from backend.service.doubts import joined
from backend.service.fit import fit
from backend.service.image_calibration import ImageCalibration, ImageScores
from backend.service.inspection import InspectionService
from backend.service.judge import judge
from backend.service.pictures import Wanted
from backend.service.region_scores import FitRegions
from backend.service.results import FitResult, InferResult
from backend.service.scoring import Scoring
from backend.service.stored_scores import Scored, StoredScorer
from backend.utils import MAX_MM_PER_PX, MIN_MM_PER_PX, NamedImage, check_image

# In the temporary file of one reply. The image that goes beyond it has its overlay, those after it have none.
_MOST_OVERLAY_BYTES = 256 << 20
_NO_ROOM = "overlay is left out, because the overlays before it take 256 MiB; send this image to /infer for its overlay"

log: Any = structlog.get_logger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Judged(Generic[Result]):
    """A stored image and its result.

    Attributes:
        sample: the image.
        mm_per_px: millimetres per pixel of the judgement; None if unknown.
        result: None when it failed.
        error: why it failed.
        code: error code for programs.
    """

    sample: Sample
    mm_per_px: float | None
    result: Result | None = None
    error: str | None = None
    code: ErrorCode | None = None


@dataclass(frozen=True)
class DatasetCalibration(ImageCalibration):
    """A calibration from stored images.

    Attributes:
        fitted: the model of the calibration.
        failed: images that could not be scored; the calibration is based on the others.
    """

    fitted: FittedRoi
    failed: list[Judged[Scored]]


def about_metas(images: Sequence[NamedImage], metas: Sequence[dict[str, Any]]) -> str | None:
    """Remarks about the masks in the metadata of stored images, each with the first image that it concerns.

    Args:
        images, metas: as for `store_images`.
    """
    doubts: dict[str, str] = {}
    for image, meta in zip(images, metas, strict=False):
        try:
            _, doubt = requested_shape(shape_text(meta))
        except InvalidRequest as exc:
            doubt = f"{exc}: the image is stored, but cannot be scored within this mask"
        if doubt is not None:
            doubts.setdefault(doubt, image.name)
    return joined(f"{name}: {doubt}" for doubt, name in islice(doubts.items(), MOST_NAMES))


def fit_stored(
    service: InspectionService,
    key: RoiKey,
    *,
    mm_per_px: float,
    keep_all: bool,
    append: bool = False,
    group_copies: bool = False,
    thumbnails: bool = False,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
    profile: ProfileName | None = None,
    detail: DetailName | None = None,
    smallest_defect_mm: float | None = None,
) -> FitResult:
    """Learn what OK looks like from the stored OK images, read one by one.

    Args:
        service: who fits.
        key: the ROI.
        mm_per_px, keep_all, append, group_copies, thumbnails, on_progress, checkpoint, profile, detail,
            smallest_defect_mm: as for `fit`.

    Raises:
        InvalidRequest: fewer of them than ``MIN_OK_SAMPLES``.
        BackendError: as `fit`.
    """
    samples = service.datasets.samples(key, "ok")
    needed = service.settings.min_ok_samples
    if len(samples) < needed:
        raise InvalidRequest(
            f"{len(samples)} OK images are stored for {key}, but a fit needs {needed} (MIN_OK_SAMPLES): upload more"
        )
    images = [_named(sample) for sample in samples]
    shapes = _usable_shapes(service, samples)
    return fit(
        service,
        key,
        images,
        mm_per_px=mm_per_px,
        keep_all=keep_all,
        append=append,
        group_copies=group_copies,
        shapes=shapes,
        with_scores=shapes is not None,
        thumbnails=thumbnails,
        source="dataset",
        on_progress=on_progress,
        checkpoint=checkpoint,
        profile=profile,
        detail=detail,
        smallest_defect_mm=smallest_defect_mm,
    )


def calibrate_stored(
    service: InspectionService,
    key: RoiKey,
    options: CalibrationOptions,
    *,
    default_mm_per_px: float | None,
    require_ng: bool,
) -> DatasetCalibration:
    """Score the stored images and choose the ROI's threshold from them; see `ImageScores`.

    Args:
        service: who scores them.
        key: the ROI.
        options: the options; a choice of the percentile needs NG images.
        default_mm_per_px: for images without a scale, if the recipe is not locked.
        require_ng: refuse without NG images.

    Raises:
        InvalidRequest: a percentile is given, but should also be chosen; no OK image, or no required NG image, is
            stored or could be scored.
        Conflict: the ROI was fitted anew meanwhile; nothing was calibrated.
        RunCancelled: somebody cancelled it; nothing was calibrated. The finished scores are kept.
        BackendError: as `infer` and `calibrate`.
    """
    fitted = service.fitted(key)
    samples = _samples_to_calibrate(service, key, options, require_ng=require_ng)
    percentiles = options.percentiles(fitted.profile, service.settings.score_percentile, fitted.detail)
    regions = FitRegions.of(service, fitted, options, mm_per_px=1.0)  # images have scales of their own
    scores = ImageScores(fitted, service.settings.blur_sigma, percentiles, service.store.miniatures(fitted), regions)
    scorer = StoredScorer.of(service, key, fitted, scores, percentiles)
    doubts: list[str] = []
    scales: list[float] = []
    failed: list[Judged[Scored]] = []
    counted: dict[tuple[Label, str], Scored] = {}

    def keep(judged: Judged[Scored]) -> None:
        if judged.result is not None and judged.result.warning is not None:
            doubts.append(f"{judged.sample.title}: {judged.result.warning}")
        if judged.result is None or judged.mm_per_px is None:
            failed.append(judged)
            return
        if judged.result.left_out is not None:
            scores.sample.leave_out(judged.sample.label, judged.result.left_out)
            return
        image = (judged.sample.label, judged.result.identity)
        if image not in scores:
            counted[judged.sample.label, judged.sample.title] = judged.result
            scales.append(judged.mm_per_px)
        scores.add(*image, judged.sample.name, judged.result.scores)

    came_as = {(sample.label, sample.name): sample.uploaded_as for sample in samples}
    with _judging(service, key, "calibrate_dataset", len(samples)) as run:
        _judge_all(service, key, run, samples, default_mm_per_px, scorer.score, keep)
        if not scores.count("ok") or ((require_ng or options.choose) and not scores.count("ng")):
            why = failed[0].error if failed else scores.sample.about()
            raise InvalidRequest(f"too few images could be scored, so nothing was calibrated: {why}")
        scorer.keep_near_copies(counted)
        run.conclude()
        done = scores.calibrate(service, key, scales[0], options, came_as)
    more = f" (and {len(doubts) - 1} more like it)" if len(doubts) > 1 else ""
    done = replace(
        done,
        warning=joined([done.warning, doubts[0] + more if doubts else None]),
        unusual=[replace(image, uploaded_as=came_as["ok", image.filename]) for image in done.unusual],
        lowered_by=[replace(image, uploaded_as=came_as["ng", image.filename]) for image in done.lowered_by],
        pixel_unusual=[replace(image, uploaded_as=came_as["ok", image.filename]) for image in done.pixel_unusual],
    )
    return DatasetCalibration(**vars(done), fitted=fitted, failed=failed)


def _samples_to_calibrate(
    service: InspectionService, key: RoiKey, options: CalibrationOptions, *, require_ng: bool
) -> list[Sample]:
    ok, ng = service.datasets.samples(key, "ok"), service.datasets.samples(key, "ng")
    if not ok:
        raise InvalidRequest(f"no OK images are stored for {key}: upload some")
    if options.choose and options.score_percentile is not None:
        raise InvalidRequest("score_percentile and choose_percentile cannot be combined: send one of them")
    if options.choose and not ng:
        raise InvalidRequest(f"choose_percentile needs NG images, but none are stored for {key}: upload some first")
    if require_ng and not ng:
        raise InvalidRequest(f"no NG images are stored for {key}: upload some, or set require_ng to false")
    options.check({sample.name for sample in ok}, len(ng))
    return [*ok, *ng]


def infer_stored(
    service: InspectionService,
    key: RoiKey,
    labels: Sequence[Label],
    *,
    default_mm_per_px: float | None,
    wanted: Wanted,
    on_judged: Callable[[Judged[InferResult]], None],
    with_why: bool = False,
) -> FittedRoi:
    """Judge the stored images, each as `infer` would.

    Args:
        service: who judges them.
        key: the ROI.
        labels: classes of images, in the order of the result.
        default_mm_per_px: as for `calibrate_stored`.
        wanted: pictures of each; overlays until they take 256 MiB together.
        on_judged: called with each image as soon as it is judged; results are not kept, because runs are long.
        with_why: see `Scoring`.

    Returns:
        The model that all images were compared with.

    Raises:
        RunCancelled: somebody cancelled it.
        BackendError: as `infer`, except for errors of a single image.
    """
    fitted = service.fitted(key)
    samples = [sample for label in labels for sample in service.datasets.samples(key, label)]

    room = _MOST_OVERLAY_BYTES

    def judge_sample(image: NamedImage, mm_per_px: float, shape: Shape | None) -> InferResult:
        nonlocal room
        has_room = room > 0
        pictures = wanted if has_room else replace(wanted, overlay=False)
        scoring = Scoring(mm_per_px, shape, with_why=with_why)
        result = judge(service, fitted, image, scoring, wanted=pictures)
        room -= len(result.overlay_png_base64 or "")
        return result if pictures == wanted else replace(result, warning=joined([result.warning, _NO_ROOM]))

    with _judging(service, key, "infer_dataset", len(samples)) as run:
        _judge_all(service, key, run, samples, default_mm_per_px, judge_sample, on_judged)
    return fitted


@contextlib.contextmanager
def _judging(service: InspectionService, key: RoiKey, kind: str, n_images: int) -> Iterator[Run]:
    """A run that takes the place of one inference."""
    with service.inference_slot(), service.runs.run(kind, key, n_images) as run:
        yield run


def _judge_all(
    service: InspectionService,
    key: RoiKey,
    run: Run,
    samples: Sequence[Sample],
    default_mm_per_px: float | None,
    judge: Callable[[NamedImage, float, Shape | None], Result],
    on_judged: Callable[[Judged[Result]], None],
) -> None:
    """Judge all samples in order; an error of one sample is stored with it."""
    locked = service.recipes.mm_per_px(key.recipe_id)
    for number, sample in enumerate(samples, start=1):
        mm_per_px = None
        try:
            metadata = sample.metadata()
            mm_per_px = scale_of(metadata) or locked or default_mm_per_px
            if mm_per_px is None:
                raise InvalidRequest(f"{sample.title}: no mm_per_px is known; send default_mm_per_px")
            if locked is not None and not same_scale(locked, mm_per_px):
                raise ScaleLocked(f"{sample.title}: mm_per_px is {mm_per_px:g}, but the recipe is locked to {locked:g}")
            result = judge(_named(sample), mm_per_px, shape_of(metadata))
            judged = Judged(sample, mm_per_px, result)
        except (InvalidImage, TooLarge, InvalidRequest, Conflict, StorageError) as exc:
            run.n_errors += 1
            judged = Judged(sample, mm_per_px, error=str(exc), code=exc.code)
        on_judged(judged)
        run.report("score", number, len(samples))
    annotate(n_images=len(samples), n_errors=run.n_errors)


def _named(sample: Sample) -> NamedImage:
    return NamedImage(sample.name, sample.read, sample.uploaded_as)


def scale_of(metadata: dict[str, Any]) -> float | None:
    """Millimetres per pixel in the metadata of an image, if known; some clients write 0 for an unknown scale.

    Raises:
        InvalidRequest: this is not a scale.
    """
    value = metadata.get("mm_per_px")
    if value is None or value == 0:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not MIN_MM_PER_PX <= value <= MAX_MM_PER_PX:
        raise InvalidRequest(f"mm_per_px of an image must be a number from {MIN_MM_PER_PX:g} to {MAX_MM_PER_PX:g}")
    return float(value)


def _usable_shapes(service: InspectionService, samples: Sequence[Sample]) -> list[Shape | None] | None:
    """The masks of images; None and a warning if one of them cannot be used, because a fit does not need them."""
    shapes = []
    for sample in samples:
        try:
            shape = shape_of(sample.metadata())
            width, height = check_image(sample.read(), sample.title, service.limits)
            build_mask(shape, (height, width))
        except (InvalidShape, StorageError) as exc:
            log.warning("fit.images_not_scored", image=sample.name, reason=str(exc))
            return None
        shapes.append(shape)
    return shapes


def shape_of(metadata: dict[str, Any]) -> Shape | None:
    """The mask in the metadata of an image.

    Raises:
        InvalidShape: this is not a mask.
    """
    return parse_shape(shape_text(metadata))
