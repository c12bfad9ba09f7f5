"""What is stored for every ROI, for lists of all ROIs: from names, headers and small files, without banks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeVar

from backend.common.config import DEFAULT_MODEL
from backend.common.errors import BackendError, ErrorCode
from backend.common.profiles import CONTRACT, RECOMMENDED_BLOCKS, ProfileName, profile_of
from backend.common.roi_key import RoiKey
from backend.disk.datasets import LABELS, Label
from backend.disk.fitted import CalibrationState
from backend.disk.layout import Layout
from backend.disk.model_headers import FoundHeader
from backend.service.drift import Verdict
from backend.service.inspection import InspectionService, differences_between
from backend.tiles import detail_of

Status = Literal["ok", "not_fitted", "refit_needed", "error"]
_Found = TypeVar("_Found")


@dataclass
class ListedModel:
    """The stored model that a ROI uses.

    Attributes:
        key: the ROI that it is stored under.
        layout: see `FittedRoi`.
        memory_id: identity of its memory bank; None if the file does not state it.
        profile: of the memory bank.
        detail: tiles along each side of the ROI.
        coreset_size: embeddings in it.
        n_images: number of images that it was built from; None if the file does not state it.
    """

    key: RoiKey
    layout: Layout
    memory_id: str | None
    profile: ProfileName
    detail: int
    coreset_size: int
    n_images: int | None


@dataclass
class ListedRoi:
    """What is stored for a ROI; unreadable values are None, and `errors` say why.

    Attributes:
        key: the ROI, with its recipe and model key.
        model: the model that it uses.
        refit_reason: why this model cannot be compared with images now.
        calibration: the state of its calibration; also None if the embeddings would be needed.
        threshold: of the calibration that is applied.
        mm_per_px: scale that the recipe is locked to, else that of the fit, in millimetres per pixel.
        drift: see `DriftStatus`.
        n_images: stored images by class.
        errors: of values that could not be read.
    """

    key: RoiKey
    model: ListedModel | None = None
    refit_reason: str | None = None
    calibration: CalibrationState | None = None
    threshold: float | None = None
    mm_per_px: float | None = None
    drift: Verdict | None = None
    n_images: dict[Label, int] = field(default_factory=dict)
    errors: list[tuple[str, ErrorCode]] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """Its state, in a word."""
        if self.errors:
            return "error"
        if self.model is None:
            return "not_fitted"
        return "ok" if self.refit_reason is None else "refit_needed"

    def read(self, get: Callable[[], _Found]) -> _Found | None:
        """The result of `get`; None if it fails, with an entry in `errors`."""
        try:
            return get()
        except BackendError as exc:
            self.errors.append((str(exc), exc.code))
            return None


@dataclass(frozen=True)
class RoiList:
    """Some of the ROIs, and totals.

    Attributes:
        rois: in order.
        n_total: total number, including those that are not among these.
        recipes: all recipes, not only the requested one.
        problems: what could not be listed, in words.
    """

    rois: list[ListedRoi]
    n_total: int
    recipes: list[str]
    problems: list[str]


def list_rois(service: InspectionService, recipe_id: str | None, offset: int, limit: int) -> RoiList:
    """List the ROIs that have a model, a calibration or stored images.

    Args:
        service: has the models folder.
        recipe_id: of the ROIs; None lists those of all recipes.
        offset: number of ROIs to skip.
        limit: maximum number of ROIs.
    """
    known = service.known_rois()
    wanted = [key for key in known.rois if recipe_id in (None, key.recipe)]
    rois = [_describe(service, key) for key in wanted[offset : offset + limit]]
    return RoiList(rois, len(wanted), known.recipes, known.problems)


def _describe(service: InspectionService, stored: RoiKey) -> ListedRoi:
    key = RoiKey(stored.role_id, stored.roi_id, stored.recipe, stored.model)  # as a client names it
    roi = ListedRoi(key)
    for label in LABELS:
        names = roi.read(partial(service.datasets.names, key, label))
        if names is not None:
            roi.n_images[label] = len(names)
    roi.mm_per_px = roi.read(lambda: service.recipes.mm_per_px(key.recipe_id))
    found = roi.read(lambda: service.headers.find(key))
    if found is None:
        roi.calibration = None if roi.errors else "none"
        return roi
    metadata = found.header.metadata
    n_images, scale = metadata.get("n_images"), metadata.get("mm_per_px")
    memory_id = metadata.get("memory_id")
    roi.model = ListedModel(
        found.files.key,
        found.files.layout,
        memory_id if isinstance(memory_id, str) else None,
        profile_of(metadata),
        detail_of(metadata),
        found.header.shape[0],
        n_images if type(n_images) is int else None,
    )
    if roi.mm_per_px is None and isinstance(scale, float | int):
        roi.mm_per_px = float(scale)
    if reasons := _differences(service, found):
        roi.refit_reason = f"refit needed: built by another extractor ({'; '.join(reasons)})"
    _add_calibration(service, roi, found)
    return roi


def _add_calibration(service: InspectionService, roi: ListedRoi, found: FoundHeader) -> None:
    judged = roi.read(lambda: service.headers.judged_by(roi.key, found))
    if judged is None:
        return
    judged_by, roi.calibration = judged
    if judged_by.calibration is not None:
        roi.threshold = judged_by.calibration.threshold
        if judged_by.memory_id:
            roi.drift = service.drift.status(roi.key, judged_by).verdict


def _differences(service: InspectionService, found: FoundHeader) -> list[str]:
    """As `differences_from`, without loading the network of a profile that was not needed yet."""
    header = found.header
    features = service.features.at(detail_of(header.metadata))
    identity = features.identity.as_dict()
    if profile_of(header.metadata) != CONTRACT and service.settings.model_name == DEFAULT_MODEL:
        identity |= {"block": "+".join(map(str, RECOMMENDED_BLOCKS))}
    says_extractor = isinstance(header.metadata.get("extractor"), dict)
    dim = features.dim if says_extractor else header.shape[1]  # of several blocks the file holds them one by one
    return differences_between(identity, (features.dim, features.token_hw), header.metadata, (dim, header.token_hw))
