"""Uploading the bytes of new files from this machine to the store."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from backend.disk.layout import MEMORY_FILE
from backend.disk.memory_file import written_memory_id
from backend.object_store.bucket import Bucket
from backend.object_store.local_copy import LocalCopy, link
from backend.object_store.manifest import Entry, Manifest, entry_of
from backend.object_store.units import Unit

Edit = bytes | Callable[[], bytes] | Entry | None
"""New bytes of a file, or what gives them; or what is known to be in the store already; None if it goes."""


class Kept(NamedTuple):
    """A file that was already in the unit, and has a new name.

    Attributes:
        entry: its entry in the manifest.
        file: with its bytes.
    """

    entry: Entry
    file: Path


class Uploads:
    """The uploads for one change of a unit, for all its attempts.

    Bytes that a file of the unit had before are uploaded again if somebody writes them. The bytes of a renamed file are
    uploaded again if the store has lost them. This repairs a model.

    Args:
        bucket: the target.
        copy: the local copy, which also gets the new files.
    """

    def __init__(self, bucket: Bucket, copy: LocalCopy) -> None:
        self._bucket = bucket
        self._copy = copy
        self._done: dict[str, Entry] = {}

    def files_after(
        self, manifest: Manifest, edits: Mapping[str, Edit | Path | Kept], sources: dict[str, Path]
    ) -> dict[str, Entry]:
        """The files of a manifest after some changes; new bytes are in the store then.

        Args:
            manifest: before the changes.
            edits: the changes of files, by path.
            sources: receives the local files of new bytes, which may be moved, by path.

        Raises:
            StoreUnavailable: something could not be uploaded.
        """
        files = dict(manifest.files)
        for path, new in edits.items():
            if new is None:
                files.pop(path, None)
            elif isinstance(new, Entry):
                files[path] = new
            elif isinstance(new, Kept):
                files[path] = new.entry if self._has(new.entry) else self._again(manifest.unit, new)
                self._link(new.file, path, sources)
                if files[path].blob == new.entry.blob:
                    continue
                for other, found in manifest.files.items():  # what else had these bytes has them again
                    if found.blob == new.entry.blob and other not in edits:
                        files[other] = found.model_copy(update={"blob": files[path].blob})
                        self._link(new.file, other, sources)
            else:
                content, mtime_ns, memory_id = _read(new)
                files[path] = self._uploaded(entry_of(manifest.unit, content, mtime_ns, memory_id), content)
                sources[path] = self._copy.incoming()
                sources[path].write_bytes(content)
        return files

    def _link(self, file: Path, path: str, sources: dict[str, Path]) -> None:
        if path not in sources:
            sources[path] = self._copy.incoming()
            link(file, sources[path])

    def _uploaded(self, entry: Entry, content: bytes) -> Entry:
        if entry.blob_key is None:
            return entry
        if (same := self._done.get(entry.sha256)) is not None:
            return entry.model_copy(update={"blob": same.blob})
        self._bucket.put(entry.blob_key, content)
        self._done[entry.sha256] = entry
        return entry

    def _again(self, unit: Unit, kept: Kept) -> Entry:
        content = kept.file.read_bytes()
        return self._uploaded(entry_of(unit, content, kept.entry.mtime_ns, kept.entry.memory_id), content)

    def _has(self, entry: Entry) -> bool:
        """Whether the store has the bytes of a file, according to its listing."""
        if entry.blob_key is None:
            return True
        there = self._bucket.head(entry.blob_key)
        return there is not None and there.size == entry.size


def _read(new: bytes | Callable[[], bytes] | Path) -> tuple[bytes, int, str | None]:
    """The bytes of a new file, the time when it was written, and the identity of its memory bank."""
    if not isinstance(new, Path):
        return new if isinstance(new, bytes) else new(), time.time_ns(), None
    return new.read_bytes(), new.stat().st_mtime_ns, written_memory_id(new) if new.name == MEMORY_FILE else None
