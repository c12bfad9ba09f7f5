"""The interfaces of the stores of models, images and statistics, and their implementation in a folder.

``as X`` in a docstring names the class for a folder, whose method of the same name documents results and errors.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from backend.block_memory import Memory
from backend.calib import Calibration
from backend.common.config import Settings
from backend.common.errors import ConfigError
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress
from backend.disk.calibration_inputs import CalibrationInputs
from backend.disk.datasets import DatasetStore, Label, NewSample, Sample
from backend.disk.drift_files import DriftChange, DriftFiles
from backend.disk.duplicates import Compared, HashPixels, Stored
from backend.disk.fitted import CalibrationState, FittedRoi, JudgedBy
from backend.disk.gui_layouts import GuiLayoutStore
from backend.disk.image_arrays import HonestMaps, Miniatures
from backend.disk.judgements import JudgementFiles, JudgementQuery, KeptJudgement, NewJudgement
from backend.disk.known_rois import KnownRois, known_rois
from backend.disk.memory_cache import FileIdentity
from backend.disk.model_headers import FoundHeader, ModelHeaders
from backend.disk.progress import Run, RunBoard
from backend.disk.recipes import RecipeStore
from backend.disk.versions import Version
from backend.scores.drift_statistics import RoiDrift
from backend.storage import ModelStore


class Models(Protocol):
    """Models and their calibrations and versions, as `ModelStore`."""

    def memory_id(self, key: RoiKey) -> str | None: ...

    def load(self, key: RoiKey, *, with_calibration: bool = True) -> FittedRoi | None: ...

    def judged_by(self, key: RoiKey) -> JudgedBy | None: ...

    def check_savable(self, key: RoiKey) -> None: ...

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
    ) -> str: ...

    def file_identity(self, key: RoiKey) -> FileIdentity | None: ...

    def thumbnails(self, fitted: FittedRoi) -> list[bytes]: ...

    def miniatures(self, fitted: FittedRoi) -> Miniatures: ...

    def honest_maps(self, fitted: FittedRoi) -> HonestMaps: ...

    def save_calibration(
        self,
        key: RoiKey,
        calibration: Calibration,
        inputs: CalibrationInputs | None = None,
        *,
        instead_of: FittedRoi | None = None,
    ) -> None: ...

    def calibration_inputs(self, fitted: FittedRoi) -> CalibrationInputs | None: ...

    def versions(self, key: RoiKey) -> list[tuple[Version, Calibration | None]]: ...

    def roll_back(
        self, key: RoiKey, version: int | None = None, *, accept: Callable[[Version, FittedRoi], None] | None = None
    ) -> tuple[Version, FittedRoi]: ...

    def count_stale(self) -> int: ...

    def stale_in_recipes(self, key: RoiKey) -> list[RoiKey]: ...

    def count_fitted(self) -> int: ...


class Headers(Protocol):
    """Models without their embeddings, as `ModelHeaders`."""

    def find(self, key: RoiKey) -> FoundHeader | None: ...

    def judged_by(self, key: RoiKey, found: FoundHeader) -> tuple[JudgedBy, CalibrationState] | None: ...


class Recipes(Protocol):
    """Settings of recipes, as `RecipeStore`."""

    def mm_per_px(self, recipe_id: str | None) -> float | None: ...

    def check(self, recipe_id: str | None, mm_per_px: float) -> None: ...

    def locking_scale(
        self, recipe_id: str | None, mm_per_px: float | None, stored: Callable[[], object] = ...
    ) -> contextlib.AbstractContextManager[None]: ...


class Datasets(Protocol):
    """Stored images, as `DatasetStore`."""

    def add_compared(
        self,
        key: RoiKey,
        label: Label,
        samples: Sequence[NewSample],
        compared: Compared | None,
        *,
        skip_duplicates: bool,
    ) -> list[Stored]: ...

    def compare(
        self, key: RoiKey, label: Label, wanted: Collection[str], hash_pixels: HashPixels, until: float
    ) -> Compared: ...

    def names(self, key: RoiKey, label: Label) -> dict[str, bool]: ...

    def uploaded_as(self, key: RoiKey, label: Label, names: Iterable[str]) -> dict[str, str]: ...

    def samples(self, key: RoiKey, label: Label) -> list[Sample]: ...

    def stored(self, key: RoiKey, label: Label, name: str) -> Sample | None: ...

    def find(self, key: RoiKey, label: Label, filename: str) -> Sample: ...

    def remove(self, sample: Sample) -> None: ...

    def move(self, sample: Sample, to: Label) -> Sample: ...

    def clear(self, key: RoiKey, label: Label) -> int: ...

    def folder(self, key: RoiKey) -> Path: ...


class Layouts(Protocol):
    """Layouts of recipes, as `GuiLayoutStore`."""

    def read(self, recipe_id: str) -> bytes: ...

    def write(self, recipe_id: str, content: bytes, accept: Callable[[str | None], None]) -> str: ...

    def pictures(self, recipe_id: str) -> dict[str, int]: ...

    def read_picture(self, recipe_id: str, name: str) -> bytes: ...

    def write_picture(self, recipe_id: str, name: str, content: bytes) -> None: ...

    def delete_picture(self, recipe_id: str, name: str) -> None: ...


class Runs(Protocol):
    """Long work and its progress, as `RunBoard`."""

    def run(
        self, kind: str, key: RoiKey, n_images: int, on_progress: OnProgress | None = None
    ) -> contextlib.AbstractContextManager[Run]: ...

    def cancel(self, run_id: str) -> dict[str, Any]: ...

    def running(self) -> list[dict[str, Any]]: ...


class DriftStatistics(Protocol):
    """The statistics of production, as `DriftFiles`."""

    def path(self, key: RoiKey) -> Path: ...

    def paths(self) -> Iterator[Path]: ...

    def read(self, path: Path) -> RoiDrift | None: ...

    def update(self, path: Path, change: DriftChange, *, is_patient: bool = True, is_durable: bool = True) -> None: ...

    def forget(self, path: Path, change: DriftChange) -> None: ...

    def prune(self) -> None: ...


class Judgements(Protocol):
    """Stored judgements, as `JudgementFiles`."""

    def has(self, key: RoiKey) -> bool: ...

    def add(self, key: RoiKey, judgements: Sequence[NewJudgement], most: int) -> None: ...

    def list(self, key: RoiKey, wanted: JudgementQuery) -> "list[KeptJudgement]": ...

    def thumbnail(self, key: RoiKey, number: int) -> bytes | None: ...


class Contact(Protocol):
    """Whether an object store answers, as `Bucket`."""

    @property
    def silent_s(self) -> float | None: ...


@dataclass(frozen=True)
class Stores:
    """All stores of the use cases.

    Attributes:
        known_rois: lists the ROIs with stored files, see `known_rois`.
        contact: with the object store; None if everything is in a folder.
    """

    models: Models
    headers: Headers
    recipes: Recipes
    datasets: Datasets
    layouts: Layouts
    runs: Runs
    drift: DriftStatistics
    judgements: Judgements
    known_rois: Callable[[], KnownRois]
    contact: Contact | None = None


def open_stores(settings: Settings) -> Stores:
    """The stores of the settings.

    Raises:
        ConfigError: ``MODELS_URL`` cannot be used, or the client of object stores is not installed.
        StoreUnavailable: the object store does not answer, or refuses.
    """
    if settings.models_url is None:
        return folder_stores(settings)
    try:
        # Here alone: who keeps models in a folder neither installs it nor waits for it.
        from backend.object_store.opening import open_object_stores
    except ModuleNotFoundError as exc:
        if exc.name != "obstore":
            raise
        raise ConfigError(
            "MODELS_URL needs the client of object stores: pip install -r requirements/cluster.txt"
        ) from exc
    found = open_object_stores(settings)
    return Stores(
        found.models,
        found.headers,
        found.recipes,
        found.datasets,
        found.layouts,
        found.runs,
        found.drift,
        found.judgements,
        found.catalog.known_rois,
        found.bucket,
    )


def folder_stores(settings: Settings, models: Models | None = None) -> Stores:
    """The stores in ``MODELS_DIR``.

    Args:
        settings: the configuration.
        models: the models, if they are stored elsewhere; None: they are also in the folder.
    """
    root = settings.models_dir
    return Stores(
        models or ModelStore(root, settings.keep_versions, settings.blur_sigma),
        ModelHeaders(root, settings.blur_sigma),
        RecipeStore(root),
        DatasetStore(root),
        GuiLayoutStore(root),
        RunBoard(root),
        DriftFiles(root),
        JudgementFiles(root),
        partial(known_rois, root),
    )
