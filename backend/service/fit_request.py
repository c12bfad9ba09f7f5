"""What a fit is asked for, checked before any image costs time, and the model that it appends to."""

from collections.abc import Sequence

from backend.bank.building import Base
from backend.common.errors import Conflict, InvalidRequest
from backend.common.profiles import DetailName, ProfileName
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.service.inspection import InspectionService
from backend.utils import NamedImage


def check_request(
    service: InspectionService,
    key: RoiKey,
    images: Sequence[NamedImage],
    mm_per_px: float,
    *,
    keep_all: bool,
    append: bool,
) -> None:
    """Refuse at once what would be refused after a long fit.

    Raises:
        InvalidRequest, Conflict, StorageError: see `fit`.
    """
    if not images:
        raise InvalidRequest("no images: send at least one good image in the file field 'images'")
    service.recipes.check(key.recipe_id, mm_per_px)
    service.store.check_savable(key)
    if append and keep_all:
        raise InvalidRequest(
            "memory_fit and append cannot be combined: the existing model decides which embeddings are kept"
        )


def chosen_for(
    service: InspectionService, key: RoiKey, profile: ProfileName | None, detail: DetailName | None, *, append: bool
) -> tuple[ProfileName, DetailName]:
    """The profile and the detail that a fit is to have: what it names, else the configured ones.

    Raises:
        InvalidRequest: it is to append to a model that has others.
        MemoryNotFound, IncompatibleMemory, Conflict: see `base_of`.
    """
    if not append:
        return profile or service.settings.profile, detail or service.settings.detail
    before, _ = base_of(service, key)
    if profile not in (None, before.profile):
        raise InvalidRequest(f"append keeps the profile of the model, {before.profile}: leave profile out, or fit anew")
    if detail not in (None, "auto", before.detail):
        raise InvalidRequest(f"append keeps the detail of the model, {before.detail}: leave detail out, or fit anew")
    return before.profile, before.detail


def base_of(service: InspectionService, key: RoiKey) -> tuple[FittedRoi, Base]:
    """The ROI's own model, as the base of a fit that appends to it.

    Raises:
        MemoryNotFound, IncompatibleMemory: as `InspectionService.fitted`.
        Conflict: it is of the default recipe, or see `Base.of`.
    """
    fitted = service.fitted(key, with_calibration=False)
    pictures = service.store.thumbnails(fitted)
    miniatures = service.store.miniatures(fitted)
    base = Base.of(fitted.memory, fitted.metadata, str(fitted.key), pictures, miniatures, service.settings.blur_sigma)
    if fitted.key.owner != key.owner:
        raise Conflict(f"{key} has no memory bank of its own to append to and uses that of {fitted.key}: fit first")
    return fitted, base
