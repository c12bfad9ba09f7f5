"""The statistics of production in an object store: an object for each ROI, to which all replicas add."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk.drift_files import DriftChange, DriftFiles
from backend.object_store.catalog import Catalog
from backend.object_store.manifest import Manifest
from backend.object_store.mirror import Mirror, Overtaken
from backend.object_store.units import Unit, unit_of
from backend.object_store.uploading import Edit
from backend.scores.drift_statistics import RoiDrift


class ObjectDriftFiles:
    """Statistics of ROIs; arguments, results and errors as for `DriftFiles`, and `StoreUnavailable`.

    Args:
        mirror: the units.
        catalog: lists them.
    """

    def __init__(self, mirror: Mirror, catalog: Catalog) -> None:
        self._mirror = mirror
        self._catalog = catalog
        self._local = DriftFiles(mirror.root)

    def path(self, key: RoiKey) -> Path:
        """As `DriftFiles.path`, in the local copy."""
        return self._local.path(key)

    def paths(self) -> Iterator[Path]:
        """As `DriftFiles.paths`, some seconds old for counts of other replicas; without damaged manifests."""
        damaged = self._catalog.look_at_kind("drift")
        return (path for path in self._local.paths() if self._unit(path) not in damaged)

    def read(self, path: Path) -> RoiDrift | None:
        """As `DriftFiles.read`, after a look at the store."""
        self._mirror.look(self._unit(path))
        with self._mirror.reading():
            return self._local.read(path)

    def update(self, path: Path, change: DriftChange, *, is_patient: bool = True, is_durable: bool = True) -> None:
        """As `DriftFiles.update`; `change` is called again if another replica was faster."""
        name = path.relative_to(self._mirror.root).as_posix()

        def changed(_: Manifest) -> dict[str, Edit]:
            new = change(self._local.read(path))
            if new == "keep":
                return {}
            return {name: None if new is None else new.model_dump_json(exclude_none=True).encode()}

        try:
            self._mirror.edit(self._unit(path), changed)
        except Overtaken as exc:  # what waits to be counted waits on
            raise StorageError(str(exc)) from exc

    def forget(self, path: Path, change: DriftChange) -> None:
        """As `DriftFiles.forget`."""
        with contextlib.suppress(StorageError):
            self.update(path, change)

    def prune(self) -> None:
        """Nothing to do: a store has room for all ROIs."""

    def _unit(self, path: Path) -> Unit:
        unit = unit_of(path.relative_to(self._mirror.root).as_posix())
        assert unit is not None, "the path is one that `path` gave"
        return unit
