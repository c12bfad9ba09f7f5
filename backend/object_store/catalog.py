"""The contents of a whole store, as a models folder with names, calibrations and settings, but empty memory banks.

So the code that lists and counts the models of a folder also works for a store, without fetching banks. The store is
asked for its manifests at most once in some seconds; changes of this process are visible at once.
"""

import contextlib
import math
import os
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from backend.common.roi_key import RoiKey
from backend.disk.known_rois import KnownRois, known_rois
from backend.disk.layout import CALIBRATION_FILE, DATASETS_FOLDER, RECIPES_FOLDER
from backend.disk.stale import StaleCalibrations
from backend.disk.versions import FOLDER as VERSIONS_FOLDER
from backend.object_store.manifest import Entry, Manifest
from backend.object_store.mirror import Mirror
from backend.object_store.units import MANIFESTS, Kind, Unit, unit_of, unit_of_key
from backend.storage import ModelStore

_FRESH_S = 10.0
_KINDS: tuple[Kind, ...] = ("models", "recipes", "datasets")

log: Any = structlog.get_logger(__name__)


class Catalog:
    """The units of a store. Safe to call from many threads.

    Args:
        mirror: the units.
        folder: its own folder, which it creates.
    """

    def __init__(self, mirror: Mirror, folder: Path) -> None:
        self._mirror = mirror
        self._root = folder
        folder.mkdir()
        self._lock = threading.Lock()
        self._etags: dict[Unit, str | None] = {}
        self._shown: dict[Unit, Manifest] = {}
        self._asked_at: dict[Kind, float] = {}
        self._stale: dict[float | None, StaleCalibrations] = {}
        self._damaged: dict[Unit, str] = {}

    def known_rois(self) -> KnownRois:
        """As `known_rois`, with the current state; its problems name manifests that cannot be read.

        Raises:
            StoreUnavailable: see `Mirror.look`.
        """
        with self._lock:
            self._refresh(0.0)
            known = known_rois(self._root)
            damaged = [self._damaged[unit] for unit in sorted(self._damaged) if unit.kind in _KINDS]
        return replace(known, problems=[*known.problems, *damaged])

    def count_stale(self, blur_sigma: float | None) -> int:
        """As `StaleCalibrations.count`; raises as `known_rois`."""
        with self._lock:
            self._refresh(_FRESH_S)
            return self._stale_of(blur_sigma).count()

    def stale_in_recipes(self, key: RoiKey, blur_sigma: float | None) -> list[RoiKey]:
        """As `StaleCalibrations.in_recipes`; raises as `known_rois`."""
        with self._lock:
            self._refresh(0.0)
            return self._stale_of(blur_sigma).in_recipes(key)

    def count_fitted(self) -> int:
        """As `ModelStore.count_fitted`; raises as `known_rois`."""
        with self._lock:
            self._refresh(_FRESH_S)
            return ModelStore(self._root).count_fitted()

    def look_at_kind(self, kind: Kind) -> set[Unit]:
        """Make sure that the local copy has all units of a kind, as they were some seconds ago.

        Returns:
            The units whose manifests cannot be read.

        Raises:
            StoreUnavailable: as `known_rois`.
        """
        with self._lock:
            self._look_at_changed((kind,), _FRESH_S)
            return set(self._damaged)

    def units(self, kind: Kind) -> list[Unit]:
        """The units of a kind that the store lists now; raises as `known_rois`."""
        units = (unit_of_key(item.key) for item in self._mirror.bucket.list(f"{MANIFESTS}{kind}"))
        found = {unit for unit in units if unit is not None}
        return sorted(found | {manifest.unit for manifest in self._mirror.known() if manifest.unit.kind == kind})

    def _stale_of(self, blur_sigma: float | None) -> StaleCalibrations:
        if blur_sigma not in self._stale:
            self._stale[blur_sigma] = StaleCalibrations(self._root, blur_sigma, self._memory_id_of)
        return self._stale[blur_sigma]

    def _memory_id_of(self, memory: Path) -> str | None:
        path = memory.relative_to(self._root).as_posix()
        unit = unit_of(path)
        entry = self._shown[unit].files.get(path) if unit in self._shown else None
        return entry.memory_id if entry else None

    def _look_at_changed(self, kinds: Sequence[Kind], fresh_s: float) -> None:
        """Read the units of some kinds that have changed since the last listing, if this was long enough ago."""
        began = time.monotonic()
        kinds = [kind for kind in kinds if began - self._asked_at.get(kind, -math.inf) >= fresh_s]
        listed = {
            unit: item.etag
            for kind in kinds
            for item in self._mirror.bucket.list(f"{MANIFESTS}{kind}")
            if (unit := unit_of_key(item.key)) is not None
        }
        if changed := [unit for unit, etag in listed.items() if etag is None or self._etags.get(unit) != etag]:
            # However fresh what is here is: as it was listed, it is not looked at again until it changes.
            damaged = self._mirror.look_over(changed, _is_calibration)
            for unit in changed:
                self._damaged.pop(unit, None)
            for unit, problem in damaged.items():
                log.warning("object_store.not_listed", unit=str(unit), reason=problem)
            self._damaged |= damaged
        self._etags |= listed
        self._asked_at |= dict.fromkeys(kinds, began)

    def _refresh(self, fresh_s: float) -> None:
        self._look_at_changed(_KINDS, fresh_s)
        for manifest in self._mirror.known():
            shown = self._shown.get(manifest.unit)
            if manifest.unit.kind in _KINDS and (shown is None or shown.nonce != manifest.nonce):
                self._show(manifest)

    def _show(self, manifest: Manifest) -> None:
        before = self._shown.get(manifest.unit)
        for path in before.files.keys() - manifest.files.keys() if before else ():
            (self._root / path).unlink(missing_ok=True)
        if manifest.unit.kind == "datasets":
            self._show_dataset(manifest)
        else:
            for path, entry in manifest.files.items():
                if before is None or before.files.get(path) != entry:
                    file = self._root / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(self._content(path, entry))
                    os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))
        self._shown[manifest.unit] = manifest

    def _content(self, path: str, entry: Entry) -> bytes:
        """The bytes of a file; empty if they are not needed here."""
        if entry.text is not None or not _is_calibration(path):
            return (entry.text or "").encode()
        with self._mirror.reading(), contextlib.suppress(FileNotFoundError):  # replaced since, and shown the next time
            return (self._mirror.root / path).read_bytes()
        return b""

    def _show_dataset(self, manifest: Manifest) -> None:
        """Only its folder: the names of the images are in the manifest."""
        recipe, role, roi = manifest.unit.names
        folder = self._root / RECIPES_FOLDER / recipe / DATASETS_FOLDER / role / roi
        if manifest.files:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _is_calibration(path: str) -> bool:
    """Whether it is an applied calibration; with many unusual images, it is too long for the manifest."""
    return path.endswith(f"/{CALIBRATION_FILE}") and f"/{VERSIONS_FOLDER}/" not in path
