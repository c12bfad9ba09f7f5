"""Reading the store before use, and changing it: the files of a unit always belong to one manifest.

Every reader looks at the manifest first, so nobody goes back in time: the data is not older than the store at the start
of the look. A change is made in a scratch folder, by the code that changes files in a models folder. Then the
differences are uploaded, and the manifest is swapped. If somebody else was faster, the change is made again on their
result.

A file whose bytes the store has lost is empty here: a reader that needs it gets an error, and a change continues
without it.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from backend.common.errors import Conflict, StorageError, StoreUnavailable
from backend.object_store.bucket import Bucket, Object
from backend.object_store.fetching import Fetched, Fetcher
from backend.object_store.local_copy import LocalCopy
from backend.object_store.lost import error_about
from backend.object_store.manifest import Entry, Manifest, parse_manifest
from backend.object_store.scratch import Linked, changes_in
from backend.object_store.swap import Swapped, swap
from backend.object_store.unit_state import UnitState
from backend.object_store.units import Unit
from backend.object_store.uploading import Edit, Kept, Uploads
from backend.object_store.waiting import wait_with_jitter

Wanted = Callable[[str], bool]
"""Which files of a unit are needed here, by path; those that stand in the manifest always are here."""

_PATIENCE_S = 30.0  # as long as a writer waits for the lock of a folder
_WAIT_S = 0.05
_OTHER_WRITER_S = 30.0
_LOOKS = 4
_THREADS = 8
_MOST_ABSENT = 10_000

_Result = TypeVar("_Result")
log: Any = structlog.get_logger(__name__)


def nothing(_: str) -> bool:
    """Needs only the files in the manifest itself."""
    return False


def everything(_: str) -> bool:
    """Needs every file."""
    return True


class Overtaken(Conflict):
    """Others kept changing the same unit; nothing was changed."""


class Mirror:
    """The units of one place in a store, and their files here. Safe to call from many threads.

    Args:
        bucket: the place.
        copy: their files.
        fresh_s: maximum age of the data, in seconds; 0 looks at the store every time.
    """

    def __init__(self, bucket: Bucket, copy: LocalCopy, fresh_s: float = 0.0) -> None:
        self.bucket = bucket
        self.copy = copy
        self._fresh_s = fresh_s
        self._states: dict[Unit, UnitState] = {}
        self._room = _MOST_ABSENT
        self._adding = threading.Lock()
        # Beside the threads of the fetcher, as a look waits for what it fetches.
        self._looking = ThreadPoolExecutor(_THREADS, thread_name_prefix="object-store-look")
        self._fetcher = Fetcher(bucket, copy)

    @property
    def root(self) -> Path:
        """The models folder of the local files."""
        return self.copy.root

    def close(self) -> None:
        """Delete the local files."""
        self._looking.shutdown()
        self._fetcher.close()
        self.copy.close()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Keep the local files unchanged meanwhile."""
        return self.copy.reading()

    def manifest(self, unit: Unit) -> Manifest:
        """The manifest of the local files."""
        return self._state(unit).manifest

    def lost(self, unit: Unit) -> Set[str]:
        """Paths of local files that are empty because the store has lost their bytes."""
        return self._state(unit).lost

    def known(self) -> list[Manifest]:
        """The manifests of all local files."""
        with self._adding:
            states = list(self._states.values())
        return [state.manifest for state in states if state.manifest.generation]

    def look_at_all(
        self, units: Collection[Unit], wanted: Wanted = nothing, *, now: bool = False, allow_lost: bool = False
    ) -> None:
        """Look at several units at once, see `look`."""
        look = partial(self.look, wanted=wanted, now=now, allow_lost=allow_lost)
        if len(units) == 1:
            look(next(iter(units)))
        else:
            list(self._looking.map(look, units))

    def look_over(self, units: Collection[Unit], wanted: Wanted = nothing) -> dict[Unit, str]:
        """Look at the current state of several units at once.

        Returns:
            The errors of units whose manifests cannot be read; their local files stay unchanged.

        Raises:
            StoreUnavailable: as `look`.
        """

        def what_is_wrong(unit: Unit) -> str | None:
            try:
                self.look(unit, wanted, now=True, allow_lost=True)
            except StoreUnavailable:
                raise
            except StorageError as exc:
                return str(exc)
            return None

        found = zip(units, self._looking.map(what_is_wrong, units), strict=True)
        return {unit: wrong for unit, wrong in found if wrong is not None}

    def look(self, unit: Unit, wanted: Wanted = nothing, *, now: bool = False, allow_lost: bool = False) -> Manifest:
        """Make sure that the local files are those of the store.

        Args:
            unit: the unit of the files.
            wanted: files whose bytes are needed.
            now: look at the store, even if the last look is recent.
            allow_lost: accept empty files if the store has lost needed ones.

        Returns:
            The manifest; one of generation 0 if there is none.

        Raises:
            StoreUnavailable: the store does not answer, or contradicts itself.
            StorageError: its data is damaged, or it has lost needed files; see `error_about`.
        """
        state, seen = self._state(unit), None
        for _ in range(_LOOKS):
            began = time.monotonic()
            if now or not self._fresh_s or began - state.looked_at > self._fresh_s:
                self._look(unit, state, began, wanted)
            manifest, lost = self._complete(state, wanted)
            if lost and manifest.nonce != seen:
                # They may be gone because the manifest that names them was replaced since: the next look tells.
                seen, now = manifest.nonce, True
                continue
            if lost and not allow_lost:
                raise error_about(lost)
            if lost:
                log.warning("object_store.lost", unit=str(unit), lost=lost)
            return manifest
        raise StoreUnavailable(f"{unit} changes faster than it can be read; retry")

    def edit(
        self,
        unit: Unit,
        edit: Callable[[Manifest], Mapping[str, Edit]],
        wanted: Wanted = nothing,
        *,
        allow_lost: bool = False,
    ) -> None:
        """Change files of a unit; again on the new state, if somebody else was faster.

        Args:
            unit: the unit of the files.
            edit: called with the manifest; returns the changes of files, by path. If it raises, nothing is changed.
            wanted: files whose bytes `edit` needs here.
            allow_lost: as for `look`.

        Raises:
            Overtaken: others were always faster; nothing was changed.
            StoreUnavailable, StorageError: as `look`; see `swap` for changes that may have happened then.
        """

        def attempt() -> tuple[None, Mapping[str, Edit]]:
            return None, edit(state.manifest)

        state = self._state(unit)
        self._change(unit, state, wanted, attempt, allow_lost=allow_lost)

    def change(
        self,
        unit: Unit,
        action: Callable[[Path], _Result],
        also: Collection[Unit] = (),
        also_wanted: Wanted = nothing,
    ) -> _Result:
        """Change files of a unit as in a models folder; again on the new state, if somebody else was faster.

        Args:
            unit: the unit of the files.
            action: called with a models folder that has them. If it raises, nothing is changed.
            also: further units in this folder, which are not changed.
            also_wanted: the needed files of these.

        Files whose bytes the store has lost are empty there; those that `action` does not change stay unchanged.

        Returns:
            The result of `action`.

        Raises:
            Overtaken, StoreUnavailable, StorageError: as `edit`.
        """
        state = self._state(unit)
        with self.copy.scratch() as scratch:

            def attempt() -> tuple[_Result, Mapping[str, Kept | Path | None]]:
                folder = scratch / uuid.uuid4().hex
                folder.mkdir()
                self.look_at_all(also, also_wanted, allow_lost=True)
                linked, lost = self._linked(state, folder, everything)
                for other in also:
                    linked |= self._linked(self._state(other), folder, also_wanted)[0]
                result = action(folder)
                return result, changes_in(folder, unit, linked, lost)

            return self._change(unit, state, everything, attempt, allow_lost=True)

    def _linked(self, state: UnitState, folder: Path, wanted: Wanted) -> tuple[dict[str, Linked], Set[str]]:
        """Link files of a unit into another folder; returns the linked files and the lost ones."""
        with state.installing, self.reading():  # between the two, what is said to be here may be gone
            linked = {
                path: Linked(self.copy.link(path, folder).stat(), entry)
                for path, entry in state.here.items()
                if wanted(path)
            }
            return linked, state.lost

    def _change(
        self,
        unit: Unit,
        state: UnitState,
        wanted: Wanted,
        attempt: Callable[[], tuple[_Result, Mapping[str, Edit | Path | Kept]]],
        *,
        allow_lost: bool,
    ) -> _Result:
        with self._alone(state, unit):
            uploads = Uploads(self.bucket, self.copy)
            deadline = time.monotonic() + _PATIENCE_S
            while (began := time.monotonic()) < deadline:
                self.look(unit, wanted, now=True, allow_lost=allow_lost)
                etag = state.etag
                result, edits = attempt()
                sources: dict[str, Path] = {}
                try:
                    files = uploads.files_after(state.manifest, edits, sources)
                    if files == state.manifest.files:
                        return result
                    successor = state.manifest.successor(files)
                    done = swap(self.bucket, successor, etag)
                    if done is not None:
                        self._take_over(unit, state, successor, done, began, sources)
                        return result
                finally:
                    for source in sources.values():
                        source.unlink(missing_ok=True)
                wait_with_jitter(_WAIT_S)
        raise Overtaken(f"other requests kept changing {unit}; nothing was stored: send it again")

    @contextlib.contextmanager
    def _alone(self, state: UnitState, unit: Unit) -> Iterator[None]:
        if not state.changing.acquire(timeout=_OTHER_WRITER_S):
            raise StorageError(f"another request has been changing {unit} for too long; retry")
        state.is_changing = True
        try:
            yield
        finally:
            state.is_changing = False
            state.changing.release()

    def _take_over(
        self, unit: Unit, state: UnitState, manifest: Manifest, done: Swapped, began: float, sources: dict[str, Path]
    ) -> None:
        """Make the files that were just stored the local files."""
        with state.installing:
            if manifest.generation > state.manifest.generation:
                come = {path: (source, manifest.files[path]) for path, source in sources.items()}
                self._put_in_place(state, manifest, done.etag, (began, time.monotonic()), Fetched(come, {}))
        if done.etag is None:
            with contextlib.suppress(StoreUnavailable, StorageError):  # the change is stored, whatever came since
                self.look(unit, now=True)

    def _state(self, unit: Unit) -> UnitState:
        with self._adding:
            if unit not in self._states and len(self._states) >= self._room:
                # Clients may ask for any ids: those that name nothing are forgotten.
                there = {known: state for known, state in self._states.items() if state.is_of_use}
                self._states, self._room = there, len(there) + _MOST_ABSENT
            return self._states.setdefault(unit, UnitState(Manifest(unit)))

    def _look(self, unit: Unit, state: UnitState, began: float, wanted: Wanted) -> None:
        etag = state.etag
        found = self.bucket.get(unit.key) if etag is None else self.bucket.get_unless(unit.key, etag)
        answered = time.monotonic()
        if isinstance(found, str):
            state.looked_at = max(state.looked_at, began)
        elif found is None:
            self._refuse_to_forget(unit, state)
            state.looked_at = max(state.looked_at, began)
        else:
            self._install(unit, state, found, (began, answered), wanted)

    def _refuse_to_forget(self, unit: Unit, state: UnitState) -> None:
        """Check that there never was a manifest: if one is only out of sight, no ROI may be judged by another model.

        Raises:
            StoreUnavailable: there was or is one.
        """
        if state.manifest.generation or self.bucket.is_listed(unit.key):
            raise StoreUnavailable(
                f"the object store says that the manifest of {unit} does not exist, but it exists or existed; retry, "
                "and if this continues, check whether something deletes objects"
            )

    def _install(self, unit: Unit, state: UnitState, found: Object, times: tuple[float, float], wanted: Wanted) -> None:
        manifest = parse_manifest(unit, found.content)
        with state.installing:
            # A look that began before what is here was answered may have found what was there before that.
            if manifest.generation <= state.manifest.generation and times[0] <= state.answered_at:
                return
            state.looked_at = max(state.looked_at, times[0])
            if manifest.nonce == state.manifest.nonce:
                state.etag = found.etag
                return
            changed = {path: entry for path, entry in manifest.files.items() if state.here.get(path) != entry}
            # What was here stays here: somebody may be about to read it.
            needed = {
                path: entry
                for path, entry in changed.items()
                if entry.text is not None or wanted(path) or path in state.here
            }
            self._put_in_place(state, manifest, found.etag, times, self._fetcher.fetch(needed))

    def _put_in_place(
        self, state: UnitState, manifest: Manifest, etag: str | None, times: tuple[float, float], fetched: Fetched
    ) -> None:
        self._replace(state, {path for path, entry in state.here.items() if manifest.files.get(path) != entry}, fetched)
        state.manifest, state.etag = manifest, etag
        state.looked_at, state.answered_at = max(state.looked_at, times[0]), max(state.answered_at, times[1])

    def _replace(self, state: UnitState, gone: Set[str], fetched: Fetched) -> None:
        self.copy.replace(gone, fetched.come)
        come = {path: entry for path, (_, entry) in fetched.come.items()}
        state.here = {path: entry for path, entry in state.here.items() if path not in gone} | come
        state.lost = (state.lost - gone - come.keys()) | fetched.lost.keys()

    def _complete(self, state: UnitState, wanted: Wanted) -> tuple[Manifest, dict[str, str]]:
        """Fetch files that are newly needed here, or that a cleaner of temporary folders has deleted.

        Returns:
            The manifest of the local files, and the errors of needed files that are lost, by path.
        """
        manifest = state.manifest
        if not self._missing(state, wanted):
            return manifest, {}
        with state.installing:
            fetched = self._fetcher.fetch(self._missing(state, wanted))
            for path in fetched.lost.keys() & state.lost:  # the same empty file stays, for who compares them
                if (self.root / path).exists():
                    fetched.come.pop(path)[0].unlink()
            self._replace(state, set(), fetched)
            return state.manifest, fetched.lost

    def _missing(self, state: UnitState, wanted: Wanted) -> dict[str, Entry]:
        # Without a file of its own, a ROI would be judged by another model.
        is_model = state.manifest.unit.kind == "models"
        return {
            path: entry
            for path, entry in state.manifest.files.items()
            if wanted(path)
            and (state.here.get(path) != entry or path in state.lost or (is_model and not (self.root / path).exists()))
        }
