"""Models on disk: ``memory.npz``, ``index.faiss`` and ``calib.json`` in a folder that `layout` names.

A fit replaces ``memory.npz`` in one rename, so a reader or a crash sees the old model or the new one. Everything
else is checked against it: the index is rebuilt where it is missing, stale or damaged, and a calibration names the
memory bank its scores came from. What a model was before its last changes is kept, see `versions`. Layouts of older
backends are read and never written. What is in a file, `memory_file` and `calibration_file` know.
"""

import contextlib
import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple
from weakref import WeakValueDictionary

import structlog

from backend.calib import Calibration
from backend.common.config import KEEP_VERSIONS
from backend.common.errors import (
    Conflict,
    DamagedCalibration,
    DamagedMemory,
    IncompatibleMemory,
    InvalidRequest,
    StorageError,
    VersionNotFound,
)
from backend.common.files import make_folder, sync_folder, write_atomic
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey
from backend.disk import versions
from backend.disk.calibration_file import calibration_bytes, read_calibration
from backend.disk.candidates import places
from backend.disk.layout import (
    CALIBRATION_FILE,
    HISTORY_FOLDER,
    INDEX_FILE,
    MEMORY_FILE,
    Layout,
    Place,
    calibrations,
    calibrations_in_recipes,
    current_place,
    key_of,
)
from backend.disk.locking import writing
from backend.disk.memory_file import (
    StoredMemory,
    memory_bytes,
    memory_id,
    read_memory,
    read_thumbnails,
    summarise,
    written_memory_id,
)
from backend.disk.name_clashes import check_names
from backend.disk.rollback import finish_put_back, put_back, read_next_calibration
from backend.disk.versions import Change, Record, Version
from backend.patchcore import FaissIndex, PatchCoreMemory
from backend.utils import utc_now

_CACHE_BYTES = 512 << 20
_CURRENT_MEMORIES = ("*/*/memory.npz", "@recipes/*/models/*/*/*/memory.npz")

log: Any = structlog.get_logger(__name__)

CalibrationState = Literal["none", "applied", "stale"]
FileIdentity = tuple[int, int, int]


@dataclass(frozen=True)
class FittedRoi:
    """A model as it was found on disk.

    Attributes:
        memory: the memory bank.
        memory_id: hash of its embeddings.
        metadata: what the fit recorded about it; empty in files of other backends.
        key: the ROI that it is stored under: the default recipe's, where the recipe has none.
        layout: ``"current"``, or the older layout it was found in: ``"L0"`` … ``"L4"``.
        calibration: the calibration made for this memory bank, if there is one.
        calibration_state: ``"stale"`` when there is only one made for another memory bank, or of other scores.
        calibrated: the ROI whose calibration that is; `key` where none is applied.
    """

    memory: PatchCoreMemory
    memory_id: str
    metadata: dict[str, Any]
    key: RoiKey
    layout: Layout
    calibration: Calibration | None
    calibration_state: CalibrationState
    calibrated: RoiKey


class JudgedBy(NamedTuple):
    """`memory_id`, `calibration` and `calibrated` of a `FittedRoi`."""

    memory_id: str
    calibration: Calibration | None
    calibrated: RoiKey


class ModelStore:
    """Reads and writes the models below one folder. Several processes may share it.

    Args:
        root: the models folder; created at the first write.
        keep_versions: how many versions are kept of each model; 0 keeps none.
        blur_sigma: Gaussian σ of the maps that images are scored by; a calibration of other scores is not applied.
            None applies any.
    """

    def __init__(self, root: Path, keep_versions: int = KEEP_VERSIONS, blur_sigma: float | None = None) -> None:
        self._root = root
        self._keep_versions = keep_versions
        self._blur_sigma = blur_sigma
        self._cache: OrderedDict[Path, tuple[FileIdentity, StoredMemory]] = OrderedDict()
        self._cache_lock = Lock()
        self._readers: WeakValueDictionary[Path, Lock] = WeakValueDictionary()
        self._memory_ids: dict[Path, tuple[FileIdentity, str | None]] = {}

    def memory_id(self, key: RoiKey) -> str | None:
        """Identity of the ROI's memory bank, whatever its calibration; None if the ROI was never fitted.

        Raises:
            InvalidRequest, IncompatibleMemory, StorageError: as `load`.
        """
        found = self._find(key)
        return found[1].memory_id if found else None

    def load(self, key: RoiKey, *, with_calibration: bool = True) -> FittedRoi | None:
        """Read the model of a ROI; unchanged files come from memory.

        Args:
            key: the ROI.
            with_calibration: False leaves the calibration alone, for who is about to replace it.

        Returns:
            None if the ROI was never fitted.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            IncompatibleMemory: the embeddings are not L2-normalised, or another ROI's.
            StorageError: files are damaged or cannot be read.
        """
        while (found := self._find(key)) is not None:
            place, loaded = found
            calibration, state, calibrated = (
                self._calibration_for(key, place, loaded.memory_id) if with_calibration else (None, "none", place.key)
            )
            # Between the two reads another model and its calibration may have come: then this was never what there is.
            # Only a calibration that goes before all others tells that it was so when it was read.
            own = calibrated_as(key, place.key).owner
            is_first = state == "applied" and place.layout == "current" and calibrated == own
            if is_first or not with_calibration or self._is_found(key, place, loaded.memory_id):
                ids = place.key, place.layout
                return FittedRoi(loaded.memory, loaded.memory_id, loaded.metadata, *ids, calibration, state, calibrated)
        return None

    def judged_by(self, key: RoiKey) -> JudgedBy | None:
        """What the images of a ROI are judged by, as `load` finds it, but without the embeddings that it does not need.

        Returns:
            None if the ROI was never fitted.

        Raises:
            InvalidRequest, IncompatibleMemory, StorageError: as `load`.
        """
        for place in places(self._root, key):
            if place.layout != "current":
                break
            memory = summarise(place.memory)
            if memory is not None and memory.owner in (None, place.key):
                memory_id = memory.facts["memory_id"]
                calibration, _, calibrated = self._calibration_for(key, place, memory_id)
                return JudgedBy(memory_id, calibration, calibrated)
            if place.memory.exists():
                break
        fitted = self.load(key)
        return JudgedBy(fitted.memory_id, fitted.calibration, fitted.calibrated) if fitted else None

    def check_savable(self, key: RoiKey) -> None:
        """Refuse at once what `save_memory` would refuse after a long fit.

        Raises:
            InvalidRequest: the ids are too long for a file name, or the file system takes them for another ROI's.
        """
        place = current_place(self._root, key)
        check_names(self._root, place.memory.parent)
        try:
            stored = self._read_memory(place.memory)
        except (StorageError, IncompatibleMemory):  # a fit is what mends it
            return
        owner = stored.owner if stored else None
        if owner is not None and owner != key.owner and str(owner).casefold() == str(key.owner).casefold():
            raise InvalidRequest(
                f"{key} differs from the stored {owner} in upper and lower case only, and the file system of "
                "MODELS_DIR does not tell them apart: use other ids"
            )

    def save_memory(
        self,
        key: RoiKey,
        memory: PatchCoreMemory,
        metadata: dict[str, Any],
        *,
        thumbnails: Sequence[bytes] = (),
        instead_of: FittedRoi | None = None,
    ) -> str:
        """Replace the memory bank of a ROI, and keep the model before. Nothing changes unless all could be written.

        Args:
            key: the ROI.
            memory: its new memory bank.
            metadata: what decides whether an image may be compared with it, and what it was built from; JSON values.
            thumbnails: small encoded pictures of the images it was built from, in order; empty where there is none.
            instead_of: the model that the new one was made from; None replaces any.

        Returns:
            Identity of the memory bank.

        Raises:
            InvalidRequest: as `check_savable`.
            Conflict: the ROI has another model than `instead_of` by now; nothing was written.
            StorageError: the folder cannot be written.
        """
        place = current_place(self._root, key)
        ids = {name: value for name, value in asdict(place.key).items() if value is not None}
        identity = memory_id(memory)
        content = memory_bytes(memory, {**ids, **metadata, "memory_id": identity}, thumbnails)
        index = place.memory.with_name(INDEX_FILE)
        with self._replacing(place, "fit" if instead_of is None else "append"):
            if instead_of is not None:
                found = self._find(key, repair=False)
                # One that was appended to may have the same bank, and know of more images.
                if found is None or (found[1].memory_id, found[1].metadata) != (
                    instead_of.memory_id,
                    instead_of.metadata,
                ):
                    raise Conflict(f"{key} was fitted anew meanwhile; nothing was stored: append again")
            if isinstance(memory.index, FaissIndex):
                try:
                    write_atomic({index: memory.index.serialized(), place.memory: content})
                except OSError:
                    self._forget(place.memory)  # so that the next load compares the index with the memory
                    raise
            else:
                index.unlink(missing_ok=True)
                write_atomic({place.memory: content})
            _set_aside_if_damaged(place.calibration)
        return identity

    def written(self, key: RoiKey) -> FileIdentity | None:
        """Another value for each file that the ROI's own memory bank is written to; None where there is none.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            OSError: it cannot be told.
        """
        try:
            return _identity(current_place(self._root, key).memory.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def thumbnails(self, fitted: FittedRoi) -> list[bytes]:
        """Small encoded pictures of the images that a model was built from, in order; see `save_memory`.

        Returns:
            Nothing where none were kept, or the model was replaced since.

        Raises:
            StorageError: the file is damaged or cannot be read.
        """
        if fitted.layout != "current":
            return []
        return read_thumbnails(current_place(self._root, fitted.key).memory, fitted.memory_id)

    def save_calibration(self, key: RoiKey, calibration: Calibration) -> None:
        """Replace the calibration of a ROI, and keep the model with the one before.

        What was found in the default recipe for another one keeps its own.

        Raises:
            InvalidRequest: as `check_savable`.
            IncompatibleMemory: as `load`.
            Conflict: the ROI has another memory bank than the scores of the calibration came from; nothing was written.
            StorageError: the folder cannot be written.
        """
        found = self._find(key)
        place = current_place(self._root, calibrated_as(key, found[0].key) if found else key)
        content = calibration_bytes(calibration)
        with self._replacing(place, "calibrate"):
            # Asked again under the lock: an older calibration must not replace that of a newer fit.
            found = self._find(key, repair=False)
            if (found[1].memory_id if found else None) != calibration.memory_id:
                raise Conflict(
                    f"{key} was fitted anew since it was scored; nothing was stored: score and calibrate again"
                )
            write_atomic({place.calibration: content})

    def versions(self, key: RoiKey) -> list[tuple[Version, Calibration | None]]:
        """What the ROI's own model was before its last changes, each with its calibration; the newest first.

        Raises:
            InvalidRequest: as `check_savable`.
        """
        place, found = current_place(self._root, key), []
        check_names(self._root, place.memory.parent)
        for version in self._replaced(place):
            calibration = None
            with contextlib.suppress(StorageError):  # a damaged one, which rolling back to it will say
                calibration = read_calibration(version.folder / CALIBRATION_FILE)
            found.append((version, calibration))
        return found

    def roll_back(
        self, key: RoiKey, version: int | None = None, *, accept: Callable[[Version, FittedRoi], None] | None = None
    ) -> tuple[Version, FittedRoi]:
        """Put back what the ROI's own model was before a change, with the calibration that it had, or with none.

        That is a change too: the model that is replaced is kept as the newest version. It takes hardly any room on the
        disk, and a death at any instant leaves the one model or the other, each as it was served.

        Args:
            key: the ROI.
            version: its number; None is the newest that is not damaged. The version stays until the next change, so
                that a call can be repeated.
            accept: called with what will be served before anything changes; may raise.

        Returns:
            The version, and what is served now.

        Raises:
            InvalidRequest: as `check_savable`.
            VersionNotFound: there is no such version.
            Conflict: the ROI has no model of its own, and is served another's.
            IncompatibleMemory: the version is another ROI's, or its embeddings are not L2-normalised.
            StorageError: the version is damaged, or the folder cannot be written; parts are judged as before.
        """
        place = current_place(self._root, key)
        check_names(self._root, place.memory.parent)
        chosen = self._choose(key, place, version)  # before a folder is made for it
        candidates = [chosen, *(self._replaced(place)[1:] if version is None else [])]
        # Read before anything changes: a change leaves this one and the last few, whatever becomes of it.
        number = self._first_readable(place, candidates).number
        with self._replacing(place, "rollback", spare=number):
            chosen = self._choose(key, place, number)
            fitted = self._read_version(chosen, place.key)
            if accept is not None:
                accept(chosen, fitted)
            before = written_memory_id(place.memory)
            try:
                put_back(place, chosen, with_calibration=fitted.calibration_state != "none")
            finally:
                self._forget(place.memory)  # so that the next load compares the index with the memory
            identity = _identity(place.memory.stat())
            log.info(
                "model.rolled_back",
                **{name: value for name, value in asdict(place.key).items() if value is not None},
                version=chosen.number,
                kept_at_utc=chosen.record.kept_at_utc,
                memory_id=fitted.memory_id,
                memory_id_before=before,
                threshold=fitted.calibration.threshold if fitted.calibration else None,
            )
        self._repair_index(place.memory, identity, fitted.memory)
        return chosen, fitted

    def _first_readable(self, place: Place, candidates: Sequence[Version]) -> Version:
        damaged = []
        for version in candidates:
            try:
                self._read_version(version, place.key)
            except DamagedMemory as exc:
                damaged.append(exc)
                log.warning("version.not_read", version=version.number, reason=str(exc))
            else:
                return version
        raise damaged[0]

    def _choose(self, key: RoiKey, place: Place, number: int | None) -> Version:
        replaced = self._replaced(place)
        for version in replaced:
            if number in (None, version.number):
                return version
        if replaced:
            numbers = ", ".join(str(version.number) for version in reversed(replaced))
            raise VersionNotFound(f"{key} has no version {number}; there are {numbers}")
        with contextlib.suppress(StorageError, IncompatibleMemory):  # its own, which a fit mends
            found = self._find(key)
            if found is not None and found[0].memory != place.memory:
                raise Conflict(
                    f"{key} has no model of its own to roll back: it is served that of {found[0].key}, layout "
                    f"{found[0].layout}; ask for that one's versions by its own ids"
                )
        raise VersionNotFound(f"no earlier model of {key} is kept: it was not changed since, or KEEP_VERSIONS is 0")

    def _replaced(self, place: Place) -> list[Version]:
        """The kept versions, but one that is still served: kept for a change that has not come, or never will."""
        try:
            kept = versions.kept(place.memory.parent)
        except OSError as exc:
            raise StorageError(f"the kept versions cannot be read ({exc.strerror}); check the models folder") from exc
        with contextlib.suppress(OSError):  # files are replaced meanwhile: then it has come
            if kept and kept[0].holds(_served(place)[1]):
                return kept[1:]
        return kept

    @contextlib.contextmanager
    def _replacing(self, place: Place, change: Change, spare: int | None = None) -> Iterator[None]:
        """Hold the lock of a model's folder, and keep the model as a version if it is another one in the end.

        Args:
            place: of the model.
            change: what is about to happen to it.
            spare: a version that stays, however many there are.

        Raises:
            InvalidRequest: the file system takes its ids for another ROI's; nothing was written.
            StorageError: see `writing`; the model could not be kept either, and then is not changed.
        """
        folder = place.memory.parent
        check_names(self._root, folder)
        with writing(folder, "model"):
            check_names(self._root, folder)  # again: another may have made it
            finish_put_back(place)
            facts, served = _served(place)
            self._tidy_versions(folder, served, spare)
            if served and self._keep_versions:
                versions.keep(folder, served, Record(utc_now().isoformat(), change, **facts))
            try:
                yield
            finally:
                self._tidy_versions(folder, _served(place)[1], spare)

    def _tidy_versions(self, folder: Path, served: Sequence[Path], spare: int | None) -> None:
        try:
            versions.tidy(folder, served, self._keep_versions, spare)
        except OSError as exc:  # the next change does it: no change fails for it
            log.warning("versions.not_tidied", reason=exc.strerror)

    def count_stale(self) -> int:
        """How many calibrations of this service are not of the scores that images get now, or are damaged.

        In a recipe that is the fit of the default recipe, where the recipe has no model of its own.

        Raises:
            OSError: files cannot be read.
        """
        known, self._memory_ids = self._memory_ids, {}  # those of models that were deleted are forgotten
        return sum(self._is_stale(calibration, known) for calibration in calibrations(self._root))

    def stale_in_recipes(self, key: RoiKey) -> list[RoiKey]:
        """Who is served this model of the default recipe, and has a calibration of its own that is stale.

        Raises:
            OSError: files cannot be read.
        """
        place = current_place(self._root, key)
        if key.recipe != DEFAULT_RECIPE:
            return []
        files = [
            file
            for file in calibrations_in_recipes(self._root, key)
            if self._memory_of(file) == place.memory and self._is_stale(file, self._memory_ids)
        ]
        return [key_of(self._root, file) for file in files]

    def _is_stale(self, file: Path, known: dict[Path, tuple[FileIdentity, str | None]]) -> bool:
        if not file.exists():
            return False
        try:
            calibration = read_calibration(file)
        except StorageError:
            return True
        memory = self._memory_of(file)
        if calibration is None or memory is None:
            return False
        identity = _identity(memory.stat())
        read = self._memory_ids.get(memory) or known.get(memory)
        if read is None or read[0] != identity:
            read = identity, written_memory_id(memory)
        self._memory_ids[memory] = read
        memory_id = read[1]
        if memory_id is None or self._applicable(calibration, memory_id) is not None:
            return False
        others = [read_next_calibration(memory)]
        if memory.parent != file.parent:
            with contextlib.suppress(StorageError):  # which is counted where it lies
                others.append(read_calibration(memory.with_name(CALIBRATION_FILE)))
        return all(self._applicable(other, memory_id) is None for other in others)

    def _memory_of(self, calibration: Path) -> Path | None:
        """The memory bank that a calibration is for; None where there is none of this service."""
        memory = calibration.with_name(MEMORY_FILE)
        if memory.exists():
            return memory
        key = key_of(self._root, calibration)
        if not any(place.memory.exists() for place in places(self._root, key, older=False)):
            return None
        place = next((place for place in places(self._root, key) if place.memory.exists()), None)
        return place.memory if place is not None and place.layout == "current" else None

    def count_fitted(self) -> int:
        """How many memory banks are stored, in this layout and the older ones."""
        patterns = (*_CURRENT_MEMORIES, "recipes/*/*/*__*.npz", "*.npz")
        return sum(1 for pattern in patterns for _ in self._root.glob(pattern))

    def _find(self, key: RoiKey, *, repair: bool = True) -> tuple[Place, StoredMemory] | None:
        of_no_version = None
        for place in places(self._root, key):
            loaded = self._read_memory(place.memory, repair=repair)
            if loaded is None:
                continue
            if place.layout == "L0" and loaded.version is not None:  # this service's, of the id that its folder encodes
                continue
            if place.layout != "current":
                return place, loaded
            if loaded.version is None:  # not written by this service: the oldest layout, which all others go before
                of_no_version = of_no_version or (replace(place, layout="L0"), loaded)
                continue
            if (owner := loaded.owner) not in (None, place.key):
                raise IncompatibleMemory(
                    f"refit needed: the memory found for {key} was fitted for {owner}; its folder was copied or "
                    "renamed, or the ids differ in upper and lower case only"
                )
            return place, loaded
        return of_no_version

    def _is_found(self, key: RoiKey, place: Place, memory_id: str) -> bool:
        """Whether a model that was found is found still."""
        if place.layout != "current" and not any(ours.memory.exists() for ours in places(self._root, key, older=False)):
            loaded = self._read_memory(place.memory)  # nobody writes others that would come before it
            return loaded is not None and loaded.memory_id == memory_id
        found = self._find(key)
        return found is not None and (found[0].memory, found[1].memory_id) == (place.memory, memory_id)

    def _read_memory(self, path: Path, *, repair: bool = True) -> StoredMemory | None:
        """The memory in a file, None if there is none; `repair` is False for who holds the lock of its folder.

        Of many who ask at once for what is not in memory yet, one reads, and the others wait: a read takes several
        times what it leaves in memory.
        """
        try:
            if (cached := self._cached(path)) is not None:
                return cached
            if not repair:  # and not kept either, so that the next load does
                return _read_file(path)[1]
            with self._cache_lock:
                reader = self._readers.setdefault(path, Lock())
            with reader:
                if (cached := self._cached(path)) is not None:
                    return cached
                identity, loaded = _read_file(path)
                self._keep_cached(path, identity, loaded)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            if exc.errno == errno.ENAMETOOLONG:  # an id that no older backend could store
                return None
            raise StorageError(f"the stored memory cannot be read ({exc.strerror}); check the models folder") from exc
        if loaded.version is not None:
            self._repair_index(path, identity, loaded.memory)
        return loaded

    def _cached(self, path: Path) -> StoredMemory | None:
        identity = _identity(path.stat())
        with self._cache_lock:
            cached = self._cache.get(path)
            if cached is None or cached[0] != identity:
                return None
            self._cache.move_to_end(path)
            return cached[1]

    def _keep_cached(self, path: Path, identity: FileIdentity, loaded: StoredMemory) -> None:
        with self._cache_lock:
            self._cache[path] = (identity, loaded)
            self._cache.move_to_end(path)
            while len(self._cache) > 1 and self._cached_bytes() > _CACHE_BYTES:
                self._cache.popitem(last=False)

    def _forget(self, path: Path) -> None:
        with self._cache_lock:
            self._cache.pop(path, None)

    def _cached_bytes(self) -> int:
        # Twice: the index holds a copy of the embeddings.
        return sum(2 * loaded.memory.embeddings.nbytes for _, loaded in self._cache.values())

    def _repair_index(self, path: Path, identity: FileIdentity, memory: PatchCoreMemory) -> None:
        # The index of a flat bank holds the bank and nothing else, so what serves is built from memory.npz and
        # index.faiss is kept for other readers. Comparing bytes never hands a damaged file to FAISS's native reader.
        if not isinstance(memory.index, FaissIndex):
            return
        file = path.parent / INDEX_FILE
        expected = memory.index.serialized()
        try:
            if file.is_file() and file.stat().st_size == len(expected) and file.read_bytes() == expected:
                return
            with writing(path.parent, "model"):
                if _identity(path.stat()) == identity:
                    write_atomic({file: expected})
                    log.info("index.rebuilt")
        except (OSError, StorageError) as exc:
            log.warning("index.not_rebuilt", reason=str(exc))

    def _calibration_for(
        self, key: RoiKey, place: Place, memory_id: str
    ) -> tuple[Calibration | None, CalibrationState, RoiKey]:
        """The calibration for a memory bank, its state, and whose it is."""
        own = current_place(self._root, calibrated_as(key, place.key))
        files = {own.calibration: own.key}
        if place.layout == "current":
            files.setdefault(place.calibration, place.key)
        ours = []
        for file, owner in files.items():
            if place.layout == "current" and file == place.calibration:
                # Asked first, as it becomes the other: who asks in this order and misses it has read the other too
                # early.
                next_one = self._applicable(read_next_calibration(place.memory), memory_id)
                if next_one is not None:
                    return next_one, "applied", place.key
            calibration = read_calibration(file)
            if self._applicable(calibration, memory_id) is not None:
                return calibration, "applied", owner
            ours.append(calibration)
        # Older backends did not write which memory a calibration belongs to: it is the one it lies beside. Beside a
        # memory of ours, a calibration that names no memory or another one was made for an earlier fit.
        beside = None if place.layout == "current" else read_calibration(place.calibration)
        if beside is not None and beside.memory_id is None:
            return beside, "applied", place.key
        return None, "none" if all(calibration is None for calibration in ours) else "stale", place.key

    def _applicable(self, calibration: Calibration | None, memory_id: str) -> Calibration | None:
        """A calibration if its scores are those that a memory bank gives now."""
        if calibration is None or calibration.memory_id != memory_id:
            return None
        is_of_other_maps = None not in (self._blur_sigma, calibration.blur_sigma) and (
            calibration.blur_sigma != self._blur_sigma
        )
        return None if is_of_other_maps else calibration

    def _read_version(self, version: Version, owner: RoiKey) -> FittedRoi:
        name = f"{MEMORY_FILE} of version {version.number}"
        try:
            with (version.folder / MEMORY_FILE).open("rb") as file:
                loaded = read_memory(file, name)
        except FileNotFoundError as exc:
            raise DamagedMemory(f"the stored {name} is gone; nothing was changed") from exc
        except OSError as exc:
            raise StorageError(f"the stored {name} cannot be read ({exc.strerror}); nothing was changed") from exc
        if loaded.memory_id != version.record.memory_id:  # written over, and it is the same file as the model's
            raise DamagedMemory(f"the stored {name} is damaged: it holds another memory bank; nothing was changed")
        if (other := loaded.owner) not in (None, owner):
            raise IncompatibleMemory(f"version {version.number} was fitted for {other}, not for {owner}: refit instead")
        try:
            calibration = read_calibration(version.folder / CALIBRATION_FILE)
        except DamagedCalibration as exc:
            raise DamagedMemory(
                f"the {CALIBRATION_FILE} of version {version.number} is damaged; nothing was changed"
            ) from exc
        belongs = calibration is not None and calibration.memory_id == loaded.memory_id
        calibration = self._applicable(calibration, loaded.memory_id)
        state: CalibrationState = "applied" if calibration else "stale" if belongs else "none"
        return FittedRoi(loaded.memory, loaded.memory_id, loaded.metadata, owner, "current", calibration, state, owner)


def calibrated_as(key: RoiKey, stored: RoiKey) -> RoiKey:
    """Under which ROI a calibration is stored when `key` is what was asked for, and its memory is that of `stored`."""
    return key if key.recipe_id is None else replace(key, role_id=stored.role_id, model_key=stored.model)


def _served(place: Place) -> tuple[dict[str, Any], list[Path]]:
    """What is at a place, as a `Record` says it, and its files: the memory and the calibration that belongs to it.

    Nothing where there is no memory bank that this service wrote for this ROI, or a damaged one: those are not kept.
    """
    memory = summarise(place.memory)
    if memory is None or memory.owner not in (None, place.key):
        return {}, []
    calibration = None
    with contextlib.suppress(StorageError):
        calibration = read_calibration(place.calibration)
    belongs = calibration is not None and calibration.memory_id == memory.facts["memory_id"]
    return memory.facts, [place.memory, *([place.calibration] if belongs else [])]


def _set_aside_if_damaged(calibration: Path) -> None:
    """Move a calibration out of the way of a new model, which would be refused for it; the caller holds the lock."""
    try:
        read_calibration(calibration)
    except DamagedCalibration as damaged:
        history = calibration.parent / HISTORY_FOLDER
        try:
            make_folder(history)
            calibration.replace(history / f"calib-unreadable-{utc_now():%Y%m%d-%H%M%S-%f}.json")
            sync_folder(history)
            sync_folder(calibration.parent)
        except OSError as exc:  # the model is stored, and no fit fails for what comes after
            log.warning("calibration.not_set_aside", reason=exc.strerror)
        else:
            log.warning("calibration.set_aside", reason=str(damaged))
    except StorageError as exc:  # which may pass, and says nothing of what is in it
        log.warning("calibration.not_read", reason=str(exc))


def _read_file(path: Path) -> tuple[FileIdentity, StoredMemory]:
    with path.open("rb") as file:
        return _identity(os.fstat(file.fileno())), read_memory(file, path.name)


def _identity(stat: os.stat_result) -> FileIdentity:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
