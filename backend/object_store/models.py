"""Models in an object store: read from the local copy after a look, changed as in a models folder, then swapped."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from backend.block_memory import Memory
from backend.calib import Calibration
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey, roles
from backend.disk.calibration_inputs import CalibrationInputs
from backend.disk.candidates import candidates
from backend.disk.fitted import CalibrationState, FittedRoi, JudgedBy
from backend.disk.image_arrays import HonestMaps, Miniatures
from backend.disk.layout import CALIBRATION_FILE, MEMORY_FILE, ModelFiles
from backend.disk.memory_cache import FileIdentity
from backend.disk.model_headers import FoundHeader, ModelHeaders
from backend.disk.rollback import NEXT_CALIBRATION_FILE
from backend.disk.versions import Version
from backend.object_store.catalog import Catalog
from backend.object_store.lost import is_of_a_version
from backend.object_store.mirror import Mirror, Wanted, everything
from backend.object_store.units import Unit, model_unit
from backend.storage import ModelStore

_MOST_KNOWN = 10_000
_SERVED = tuple(f"/{name}" for name in (MEMORY_FILE, CALIBRATION_FILE, NEXT_CALIBRATION_FILE))

_Result = TypeVar("_Result")


def is_bank(path: str) -> bool:
    """Whether it is the memory bank of a ROI."""
    return path.endswith(f"/{MEMORY_FILE}") and not is_of_a_version(path)


def is_served(path: str) -> bool:
    """Whether a file of a model is needed for judgements: not earlier versions, and not the scores of calibrations."""
    return not is_of_a_version(path) and path.endswith(_SERVED)


class ServedModels:
    """Makes sure that the local copy has the model of a ROI.

    Args:
        mirror: the units.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._needed: dict[RoiKey, int] = {}

    def look(self, key: RoiKey, wanted: Wanted = is_served, *, allow_lost: bool = False) -> None:
        """Look at the ROI's own unit, and then at those of other recipes and roles until there is a model.

        Args:
            key: the ROI.
            wanted, allow_lost: as for `Mirror.look`.

        Raises:
            InvalidRequest: see `folder_name`.
            StoreUnavailable, StorageError: see `Mirror.look`.
        """
        units = units_of(key)
        # Those that were needed the last time at once: they do not wait for one another.
        first = min(self._needed.get(key, 1), len(units))
        self._mirror.look_at_all(units[:first], wanted, allow_lost=allow_lost)
        while (found := self._served_by(key, units[:first])) is None and first < len(units):
            self._mirror.look(units[first], wanted, allow_lost=allow_lost)
            first += 1
        if len(self._needed) >= _MOST_KNOWN:
            self._needed.clear()
        self._needed[key] = len(units) if found is None else units.index(found) + 1

    def _served_by(self, key: RoiKey, units: Sequence[Unit]) -> Unit | None:
        """The first of some units that has a model for the ROI."""
        with self._mirror.reading():
            for files in candidates(self._mirror.root, key, older=False):
                unit = _unit_of(files)
                if unit in units and files.memory.exists():
                    return unit
        return None


def units_of(key: RoiKey) -> list[Unit]:
    """The places where the model of a ROI may be, in the order of the search.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    recipes = [key.recipe] if key.recipe == DEFAULT_RECIPE else [key.recipe, DEFAULT_RECIPE]
    keys = [
        RoiKey(role_id, key.roi_id, recipe) for recipe in recipes for role_id in roles(replace(key, recipe_id=recipe))
    ]
    if key.recipe_id is None:
        keys = [key]
    return list(dict.fromkeys(map(model_unit, keys)))


def _unit_of(files: ModelFiles) -> Unit:
    return model_unit(files.key)


class ObjectModelStore:
    """Models in an object store; arguments, results and errors as for `ModelStore`, and `StoreUnavailable`.

    Args:
        mirror: the units.
        catalog: of the whole store.
        keep_versions, blur_sigma: as for `ModelStore`.
    """

    def __init__(self, mirror: Mirror, catalog: Catalog, keep_versions: int, blur_sigma: float | None) -> None:
        self._mirror = mirror
        self._catalog = catalog
        self._local = ModelStore(mirror.root, 0, blur_sigma)
        self._served = ServedModels(mirror)
        self._keep_versions = keep_versions
        self._blur_sigma = blur_sigma

    def memory_id(self, key: RoiKey) -> str | None:
        """As `ModelStore.memory_id`."""
        self._served.look(key, is_bank)
        with self._mirror.reading():
            return self._local.memory_id(key)

    def load(self, key: RoiKey, *, with_calibration: bool = True) -> FittedRoi | None:
        """As `ModelStore.load`."""
        self._served.look(key, is_served if with_calibration else is_bank)
        with self._mirror.reading():
            return self._local.load(key, with_calibration=with_calibration)

    def judged_by(self, key: RoiKey) -> JudgedBy | None:
        """As `ModelStore.judged_by`."""
        self._served.look(key)
        with self._mirror.reading():
            return self._local.judged_by(key)

    def check_savable(self, key: RoiKey) -> None:
        """As `ModelStore.check_savable`; the store must also answer."""
        self._mirror.look(model_unit(key), is_bank, now=True, allow_lost=True)  # a fit is what mends it
        with self._mirror.reading():
            self._local.check_savable(key)

    def save_memory(
        self,
        key: RoiKey,
        memory: Memory,
        metadata: dict[str, Any],
        *,
        thumbnails: Sequence[bytes] = (),
        miniatures: Miniatures | None = None,
        honest_maps: HonestMaps | None = None,
        instead_of: FittedRoi | None = None,
        calibration: Calibration | None = None,
        inputs: CalibrationInputs | None = None,
    ) -> str:
        """As `ModelStore.save_memory`; with its calibration in one swap."""

        def save(models: ModelStore) -> str:
            return models.save_memory(
                key,
                memory,
                metadata,
                thumbnails=thumbnails,
                miniatures=miniatures,
                honest_maps=honest_maps,
                instead_of=instead_of,
                calibration=calibration,
                inputs=inputs,
            )

        return self._changed(key, key, save)

    def file_identity(self, key: RoiKey) -> FileIdentity | None:
        """As `ModelStore.file_identity`, after a look."""
        self._mirror.look(model_unit(key), is_bank, now=True, allow_lost=True)
        return self._local.file_identity(key)

    def thumbnails(self, fitted: FittedRoi) -> list[bytes]:
        """As `ModelStore.thumbnails`."""
        return self._local.thumbnails(fitted)

    def miniatures(self, fitted: FittedRoi) -> Miniatures:
        """As `ModelStore.miniatures`."""
        return self._local.miniatures(fitted)

    def honest_maps(self, fitted: FittedRoi) -> HonestMaps:
        """As `ModelStore.honest_maps`."""
        return self._local.honest_maps(fitted)

    def save_calibration(
        self,
        key: RoiKey,
        calibration: Calibration,
        inputs: CalibrationInputs | None = None,
        *,
        instead_of: FittedRoi | None = None,
    ) -> None:
        """As `ModelStore.save_calibration`."""
        found = self.load(key, with_calibration=False)
        # It belongs to the recipe that was asked for, under the role that the model is stored under.
        stored = replace(key, role_id=found.key.role_id) if found and key.recipe_id is not None else key
        self._changed(
            key,
            stored,
            lambda models: models.save_calibration(key, calibration, inputs, instead_of=instead_of),
        )

    def calibration_inputs(self, fitted: FittedRoi) -> CalibrationInputs | None:
        """As `ModelStore.calibration_inputs`."""
        self._served.look(fitted.calibrated, lambda path: not is_of_a_version(path), allow_lost=True)
        with self._mirror.reading():
            return self._local.calibration_inputs(fitted)

    def versions(self, key: RoiKey) -> list[tuple[Version, Calibration | None]]:
        """As `ModelStore.versions`."""
        self._mirror.look(model_unit(key), everything, allow_lost=True)
        with self._mirror.reading():
            return self._local.versions(key)

    def roll_back(
        self, key: RoiKey, version: int | None = None, *, accept: Callable[[Version, FittedRoi], None] | None = None
    ) -> tuple[Version, FittedRoi]:
        """As `ModelStore.roll_back`."""
        return self._changed(key, key, lambda models: models.roll_back(key, version, accept=accept))

    def count_stale(self) -> int:
        """As `ModelStore.count_stale`."""
        return self._catalog.count_stale(self._blur_sigma)

    def stale_in_recipes(self, key: RoiKey) -> list[RoiKey]:
        """As `ModelStore.stale_in_recipes`."""
        return self._catalog.stale_in_recipes(key, self._blur_sigma)

    def count_fitted(self) -> int:
        """As `ModelStore.count_fitted`."""
        return self._catalog.count_fitted()

    def _changed(self, key: RoiKey, stored: RoiKey, change: Callable[[ModelStore], _Result]) -> _Result:
        """Change the unit of `stored` by a change in a models folder with everything that `key` may use."""
        unit = model_unit(stored)
        also = [other for other in units_of(key) if other != unit]

        def changed(folder: Path) -> _Result:
            return change(ModelStore(folder, self._keep_versions, self._blur_sigma))

        return self._mirror.change(unit, changed, also, is_served)


class ObjectModelHeaders:
    """Headers of models in an object store; as `ModelHeaders`, and `StoreUnavailable`.

    Args:
        mirror: the units.
        blur_sigma: as for `ModelHeaders`.
    """

    def __init__(self, mirror: Mirror, blur_sigma: float) -> None:
        self._mirror = mirror
        self._local = ModelHeaders(mirror.root, blur_sigma)
        self._served = ServedModels(mirror)

    def find(self, key: RoiKey) -> FoundHeader | None:
        """As `ModelHeaders.find`."""
        self._served.look(key)
        with self._mirror.reading():
            return self._local.find(key)

    def judged_by(self, key: RoiKey, found: FoundHeader) -> tuple[JudgedBy, CalibrationState] | None:
        """As `ModelHeaders.judged_by`, for the model that `find` looked at."""
        with self._mirror.reading():
            return self._local.judged_by(key, found)
