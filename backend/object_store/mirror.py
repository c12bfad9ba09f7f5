"""Looking at the store before reading, and changing it: the files of a unit are always those of one manifest.

Whoever reads looks at the manifest first, so nobody goes back in time: what is read is no older than what the store had
when the look began. A change is made in a scratch folder by the code that changes files in a models folder; what is
different then is uploaded, and the manifest swapped. Where somebody else was faster, it is made again, from theirs.
"""

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from backend.common.errors import Conflict, StorageError, StoreUnavailable
from backend.disk.layout import MEMORY_FILE
from backend.disk.memory_file import written_memory_id
from backend.object_store.bucket import Bucket, Object
from backend.object_store.local_copy import LocalCopy
from backend.object_store.manifest import Entry, Manifest, entry_of, parse_manifest
from backend.object_store.swap import Swapped, swap
from backend.object_store.unit_state import UnitState
from backend.object_store.units import Unit, is_stored, unit_of
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
Edit = bytes | Callable[[], bytes] | Entry | None
"""New bytes of a file, or what gives them; or what is known to be in the store already; None where it goes."""
_Edit = Edit | Path


def nothing(_: str) -> bool:
    """Wants what stands in the manifest alone."""
    return False


class Overtaken(Conflict):
    """Others changed the same again and again; nothing was changed by who gets this."""


class _Gone(Exception):
    """A blob is gone, because the manifest that names it was replaced since."""


class Mirror:
    """The units of one place in a store, and their files here. Safe to call from many threads.

    Args:
        bucket: the place.
        copy: their files.
        fresh_s: how old what is read may be, in seconds; 0 looks at the store every time.
    """

    def __init__(self, bucket: Bucket, copy: LocalCopy, fresh_s: float = 0.0) -> None:
        self.bucket = bucket
        self.copy = copy
        self._fresh_s = fresh_s
        self._states: dict[Unit, UnitState] = {}
        self._room = _MOST_ABSENT
        self._adding = threading.Lock()
        # Two, as a look waits for what it fetches.
        self._looking = ThreadPoolExecutor(_THREADS, thread_name_prefix="object-store-look")
        self._fetching = ThreadPoolExecutor(_THREADS, thread_name_prefix="object-store-fetch")

    @property
    def root(self) -> Path:
        """The models folder that the local files make up."""
        return self.copy.root

    def close(self) -> None:
        """Delete the local files."""
        self._looking.shutdown()
        self._fetching.shutdown()
        self.copy.close()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """The local files stay as they are meanwhile."""
        return self.copy.reading()

    def manifest(self, unit: Unit) -> Manifest:
        """That of the local files."""
        return self._state(unit).manifest

    def known(self) -> list[Manifest]:
        """Those of all local files."""
        with self._adding:
            states = list(self._states.values())
        return [state.manifest for state in states if state.manifest.generation]

    def look_at_all(self, units: Collection[Unit], wanted: Wanted = nothing, *, now: bool = False) -> None:
        """Look at several units at once, see `look`."""
        if len(units) == 1:
            self.look(next(iter(units)), wanted, now=now)
        else:
            list(self._looking.map(lambda unit: self.look(unit, wanted, now=now), units))

    def look(self, unit: Unit, wanted: Wanted = nothing, *, now: bool = False) -> Manifest:
        """See that the local files are those that the store has.

        Args:
            unit: whose files.
            wanted: those whose bytes are needed.
            now: look at the store, however fresh the last look is.

        Returns:
            What there is; a manifest of generation 0 where there is nothing.

        Raises:
            StoreUnavailable: the store does not answer, or contradicts itself.
            StorageError: what it has is damaged.
        """
        state = self._state(unit)
        for _ in range(_LOOKS):
            began = time.monotonic()
            try:
                if now or not self._fresh_s or began - state.looked_at > self._fresh_s:
                    self._look(unit, state, began, wanted)
                self._complete(state, wanted)
            except _Gone:
                now = True
            else:
                return state.manifest
        raise StoreUnavailable(f"{unit} changes faster than it can be read; retry")

    def edit(self, unit: Unit, edit: Callable[[Manifest], Mapping[str, Edit]], wanted: Wanted = nothing) -> None:
        """Change files of a unit; where somebody else was faster, again from theirs.

        Args:
            unit: whose files.
            edit: called with what there is; gives what becomes of files, by path. May raise, and then nothing is
                changed.
            wanted: files whose bytes `edit` needs here.

        Raises:
            Overtaken: others were faster again and again; nothing was changed.
            StoreUnavailable, StorageError: as `look`; see `swap` for what then may have been done.
        """

        def attempt() -> tuple[None, Mapping[str, _Edit]]:
            return None, edit(state.manifest)

        state = self._state(unit)
        self._change(unit, state, wanted, attempt)

    def change(
        self,
        unit: Unit,
        action: Callable[[Path], _Result],
        also: Collection[Unit] = (),
        also_wanted: Wanted = nothing,
    ) -> _Result:
        """Change files of a unit as in a models folder; where somebody else was faster, again from theirs.

        Args:
            unit: whose files.
            action: called with a models folder that has them. May raise, and then nothing is changed.
            also: units whose files are there, too, and are not changed.
            also_wanted: which of those.

        Returns:
            What `action` returned.

        Raises:
            Overtaken, StoreUnavailable, StorageError: as `edit`.
        """
        state = self._state(unit)
        with self.copy.scratch() as scratch:

            def attempt() -> tuple[_Result, Mapping[str, _Edit]]:
                folder = scratch / uuid.uuid4().hex
                folder.mkdir()
                self.look_at_all(also, also_wanted) if also else None
                linked = self._linked(state, folder, lambda _: True)
                for other in also:
                    self._linked(self._state(other), folder, also_wanted)
                result = action(folder)
                edits: dict[str, _Edit] = dict.fromkeys(linked)
                for file in folder.rglob("*"):
                    path = file.relative_to(folder).as_posix()
                    if unit_of(path) != unit or not is_stored(path) or not file.is_file():
                        continue
                    stat = file.stat()
                    before = linked.get(path)
                    if before and (stat.st_ino, stat.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                        del edits[path]
                    else:
                        edits[path] = file
                return result, edits

            return self._change(unit, state, lambda _: True, attempt)

    def _linked(self, state: UnitState, folder: Path, wanted: Wanted) -> dict[str, os.stat_result]:
        """Give files of a unit second names below another folder."""
        with state.installing, self.reading():  # between the two, what is said to be here may be gone
            return {path: self.copy.link(path, folder).stat() for path in state.here if wanted(path)}

    def _change(
        self,
        unit: Unit,
        state: UnitState,
        wanted: Wanted,
        attempt: Callable[[], tuple[_Result, Mapping[str, _Edit]]],
    ) -> _Result:
        with self._alone(state, unit):
            uploaded: dict[str, Entry] = {}
            deadline = time.monotonic() + _PATIENCE_S
            while (began := time.monotonic()) < deadline:
                self.look(unit, wanted, now=True)
                etag = state.etag
                result, edits = attempt()
                sources: dict[str, Path] = {}
                try:
                    files = self._uploaded(state.manifest, edits, uploaded, sources)
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
        raise Overtaken(f"{unit} was changed by others again and again meanwhile; nothing was stored: send it again")

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

    def _uploaded(
        self,
        manifest: Manifest,
        edits: Mapping[str, _Edit],
        uploaded: dict[str, Entry],
        sources: dict[str, Path],
    ) -> dict[str, Entry]:
        """The files of a manifest after some changes; `sources` gets local files of what is new, which may be moved."""
        files = dict(manifest.files)
        known = {entry.sha256: entry for entry in (*uploaded.values(), *manifest.files.values())}
        for path, new in edits.items():
            if new is None:
                files.pop(path, None)
                continue
            if isinstance(new, Entry):
                files[path] = new
                continue
            content, mtime_ns, memory_id = _read(new)
            entry = entry_of(manifest.unit, content, mtime_ns, memory_id)
            if (same := known.get(entry.sha256)) is not None:
                entry = entry.model_copy(update={"blob": same.blob})
            elif (key := entry.blob_key) is not None:
                self.bucket.put(key, content)
                uploaded[entry.sha256] = known[entry.sha256] = entry
            files[path] = entry
            sources[path] = self.copy.incoming()
            sources[path].write_bytes(content)
        return files

    def _take_over(
        self, unit: Unit, state: UnitState, manifest: Manifest, done: Swapped, began: float, sources: dict[str, Path]
    ) -> None:
        """Let the local files be those that were just stored."""
        with state.installing:
            if manifest.generation > state.manifest.generation:
                come = {path: (source, manifest.files[path]) for path, source in sources.items()}
                self._put_in_place(state, manifest, done.etag, (began, time.monotonic()), come)
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
        """See that there never was a manifest: where one is out of sight, no ROI shall be judged by another model.

        Raises:
            StoreUnavailable: there was one, or is.
        """
        is_listed = state.manifest.generation == 0 and any(
            item.key == unit.key for item in self.bucket.list(_folder_of(unit))
        )
        if is_listed or state.manifest.generation:
            raise StoreUnavailable(
                f"the object store says that there is no manifest of {unit}, and there is one or was one; retry, and "
                "if it stays so, look whether somebody deletes objects"
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
            self._put_in_place(state, manifest, found.etag, times, self._fetched(needed))

    def _put_in_place(
        self,
        state: UnitState,
        manifest: Manifest,
        etag: str | None,
        times: tuple[float, float],
        come: dict[str, tuple[Path, Entry]],
    ) -> None:
        gone = {path for path, entry in state.here.items() if manifest.files.get(path) != entry}
        self.copy.replace(gone, come)
        here = {path: entry for path, entry in state.here.items() if path not in gone}
        state.here = here | {path: entry for path, (_, entry) in come.items()}
        state.manifest, state.etag = manifest, etag
        state.looked_at, state.answered_at = max(state.looked_at, times[0]), max(state.answered_at, times[1])

    def _complete(self, state: UnitState, wanted: Wanted) -> None:
        """Fetch what is needed here and was not before, or was deleted by who tidies temporary folders."""
        if not self._missing(state, wanted):
            return
        with state.installing:
            missing = self._missing(state, wanted)
            come = self._fetched(missing)
            self.copy.replace(set(), come)
            state.here = state.here | missing

    def _missing(self, state: UnitState, wanted: Wanted) -> dict[str, Entry]:
        # Without a file of its own, a ROI would be judged by another model.
        is_model = state.manifest.unit.kind == "models"
        return {
            path: entry
            for path, entry in state.manifest.files.items()
            if wanted(path) and (state.here.get(path) != entry or (is_model and not (self.root / path).exists()))
        }

    def _fetched(self, needed: Mapping[str, Entry]) -> dict[str, tuple[Path, Entry]]:
        fetching = {path: self._fetching.submit(self._fetch, entry) for path, entry in needed.items()}
        try:
            return {path: (fetch.result(), needed[path]) for path, fetch in fetching.items()}
        except BaseException:  # else what did come would lie here for good, and come again with the next look
            for fetch in fetching.values():
                if not fetch.cancel() and fetch.exception() is None:
                    fetch.result().unlink(missing_ok=True)
            raise

    def _fetch(self, entry: Entry) -> Path:
        content = entry.text.encode() if entry.text is not None else None
        if entry.blob_key is not None:
            content = self.bucket.get_large(entry.blob_key)
            if content is None:
                raise _Gone
        if content is None or not entry.is_content(content):
            raise StorageError(
                f"an object of the store does not have the bytes that its name says ({entry.blob_key}): roi-anomaly "
                "models check tells whose it is"
            )
        source = self.copy.incoming()
        source.write_bytes(content)
        return source


def _read(new: bytes | Callable[[], bytes] | Path) -> tuple[bytes, int, str | None]:
    """The bytes of a new file, when it was written, and the identity of the memory bank in it."""
    if not isinstance(new, Path):
        return new if isinstance(new, bytes) else new(), time.time_ns(), None
    return new.read_bytes(), new.stat().st_mtime_ns, written_memory_id(new) if new.name == MEMORY_FILE else None


def _folder_of(unit: Unit) -> str:
    return unit.key.rpartition("/")[0]
