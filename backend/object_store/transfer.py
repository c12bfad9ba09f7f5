"""Copying models between a folder and an object store (push and pull), and maintenance of the store.

A push stores each unit of a folder in one swap; a pull writes the files of a models folder. Both can be repeated after
a stop: existing data is skipped.
"""

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

from backend.common.errors import StorageError
from backend.common.files import TEMPORARY_PREFIX, delete, make_folder, replace, write_atomic
from backend.disk.judgements import SUFFIX as HISTORY_SUFFIX
from backend.disk.judgements import JudgementFiles
from backend.disk.layout import MEMORY_FILE, RECIPES_FOLDER
from backend.disk.locking import writing
from backend.disk.memory_file import read_header
from backend.disk.recipes import RECIPE_FILE, parse_settings, read_settings, same_scale
from backend.object_store.bucket import PROBES, Bucket
from backend.object_store.judgements import Segment, kept_in, segments_of
from backend.object_store.lost import error_about, how_lost, mend
from backend.object_store.manifest import BLOBS, Entry, Manifest, entry_of, parse_manifest
from backend.object_store.swap import swap
from backend.object_store.units import MANIFESTS, PENDING_FOLDER, Unit, is_stored, unit_of, unit_of_key

GARBAGE_AFTER = timedelta(days=1)

Tell = Callable[[str], None]
"""Called with a sentence about what was done, or what is wrong."""


@dataclass
class Counts:
    """The result of a command.

    Attributes:
        units: number of examined units.
        changed: number of changed units.
        files: number of files that were written, uploaded or checked.
        n_bytes: of these files.
        problems: messages, which were already printed.
    """

    units: int = 0
    changed: int = 0
    files: int = 0
    n_bytes: int = 0
    problems: list[str] = field(default_factory=list)


def push(folder: Path, bucket: Bucket, tell: Tell) -> Counts:
    """Copy a models folder into the store. The same units in the store are replaced.

    Bytes that the store already has are not sent again, no matter which push sent them. The locked scale of a recipe in
    the store stays: a recipe with another scale in the folder is left out.

    Args:
        folder: a models folder, which nobody writes meanwhile.
        bucket: the store.
        tell: called with messages about files that cannot be pushed.

    Raises:
        StoreUnavailable, StorageError: the store cannot be used, or a file cannot be read.
    """
    counts = Counts()
    units: dict[Unit, list[str]] = {}
    for path in sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()):
        unit = unit_of(_as_in_a_store(path))
        if not is_stored(path) or path.startswith((".runs/", ".fit-")):
            continue
        if unit is None:
            _tell(counts, tell, f"{path}: not pushed: {_why_not(path)}")
        elif path.endswith(f"/{MEMORY_FILE}") and _is_of_older_backend(folder / path):
            _tell(counts, tell, f"{path}: not pushed: an older backend wrote it; run migrate first, or refit")
        else:
            units.setdefault(unit, []).append(path)
    settled = {
        unit.names[0]: why for unit in units if unit.kind == "recipes" and (why := _other_scale(folder, bucket, unit))
    }
    for name in sorted(settled):
        _tell(counts, tell, f"recipe {unquote(name)!r}: not pushed: {settled[name]}")
    blobs = _Blobs(bucket)
    for unit, paths in sorted(units.items()):
        if unit.kind in ("models", "datasets", "recipes") and unit.names[0] in settled:
            continue
        counts.units += 1
        _push_unit(folder, bucket, unit, paths, blobs, counts, tell)
    return counts


def _other_scale(folder: Path, bucket: Bucket, unit: Unit) -> str | None:
    """The scale of a recipe in the store, if it differs: replicas rely on a locked scale."""
    path = f"{RECIPES_FOLDER}/{unit.names[0]}/{RECIPE_FILE}"
    theirs = _manifest_in(bucket, unit)[0].files.get(path)
    with contextlib.suppress(StorageError):  # damaged here, and damaged there
        ours = read_settings(folder / path) or read_settings(folder / f"{path}.pending")
        if ours and theirs is not None and theirs.text is not None:
            scale, settled = ours["mm_per_px"], parse_settings(theirs.text.encode(), RECIPE_FILE)["mm_per_px"]
            if not same_scale(scale, settled):
                return f"its mm_per_px is {scale:g}, but the store is locked to {settled:g}: push to another prefix"
    return None


def _manifest_in(bucket: Bucket, unit: Unit) -> tuple[Manifest, str | None]:
    """The files of a unit in the store, and the ETag of the manifest; empty if the manifest is damaged."""
    found = bucket.get(unit.key)
    manifest = Manifest(unit)
    if found is not None:
        with contextlib.suppress(StorageError):
            manifest = parse_manifest(unit, found.content)
    return manifest, None if found is None else found.etag


class _Blobs:
    """The blobs in a store, from one listing.

    Args:
        bucket: the store.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._sizes = {item.key: item.size for item in bucket.list(BLOBS.rstrip("/"))}
        self._of_content = {_content_of(key): key for key in self._sizes}

    def has(self, entry: Entry) -> bool:
        """Whether the bytes of a file are in the store, according to name and size."""
        return entry.blob_key is None or self._sizes.get(entry.blob_key) == entry.size

    def bring(self, entry: Entry, content: bytes) -> bool:
        """Make sure that the store has the bytes of a file; returns whether they were sent.

        An existing blob may be unreferenced, and deleted at any moment: so it is copied, and not referenced again.
        """
        same = self._of_content.get(_content_of(entry.blob_key or ""), "")
        if self._sizes.get(same) == entry.size and self._bucket.copy(same, entry.blob_key or ""):
            return False
        self._bucket.put(entry.blob_key or "", content)
        return True


def _content_of(blob_key: str) -> str:
    return blob_key.rpartition("/")[2].partition("-")[0]


def _push_unit(
    folder: Path, bucket: Bucket, unit: Unit, paths: list[str], blobs: _Blobs, counts: Counts, tell: Tell
) -> None:
    manifest, etag = _manifest_in(bucket, unit)
    files = {path: entry for path, entry in manifest.files.items() if path.endswith(f"/{RECIPE_FILE}")}
    known = {entry.sha256: entry for entry in manifest.files.values() if blobs.has(entry)}
    is_as_it_was = True
    for path in paths:
        content, stat = (folder / path).read_bytes(), (folder / path).stat()
        memory_id = _memory_id(folder / path) if path.endswith(f"/{MEMORY_FILE}") else None
        entry = entry_of(unit, content, stat.st_mtime_ns, memory_id)
        if (same := known.get(entry.sha256)) is not None:
            entry = entry.model_copy(update={"blob": same.blob})
        elif entry.blob_key is not None:
            is_as_it_was = False
            known[entry.sha256] = entry
            if blobs.bring(entry, content):
                counts.files += 1
                counts.n_bytes += entry.size
        files[_as_in_a_store(path)] = entry
    if is_as_it_was and _contents(files) == _contents(manifest.files):
        return
    if swap(bucket, manifest.successor(files), etag) is None:
        _tell(counts, tell, f"{unit}: not pushed: somebody changed it in the store meanwhile; push again")
    else:
        counts.changed += 1


def pull(bucket: Bucket, folder: Path, tell: Tell) -> Counts:
    """Copy the store into a models folder, as the files that the service keeps there.

    Args:
        bucket: the store.
        folder: a models folder; files of the units in the store are replaced; files of these units that the store lacks
            are deleted.
        tell: called with messages about units that cannot be pulled.

    Raises:
        StoreUnavailable: the store cannot be used.
        StorageError: something in it is damaged, or the folder cannot be written.
    """
    counts = Counts()
    there = _files_of(folder)  # once: there may be as many units as files
    for manifest in manifests(bucket, counts, tell):
        counts.units += 1
        if _pull_unit(bucket, manifest, folder, there.get(manifest.unit, []), counts):
            counts.changed += 1
    return counts


def _pull_unit(bucket: Bucket, manifest: Manifest, folder: Path, there: Sequence[str], counts: Counts) -> bool:
    if segments := segments_of(manifest):
        return _pull_history(bucket, manifest, segments, folder, counts)
    wanted = _as_in_a_folder(manifest)
    is_changed = False
    # Memory banks last: each decides what the other files beside it are of.
    for path in sorted(wanted, key=lambda path: (path.endswith(f"/{MEMORY_FILE}"), path)):
        entry, target = wanted[path], folder / path
        if target.is_file() and target.stat().st_size == entry.size and entry.is_content(target.read_bytes()):
            continue
        content = _content(bucket, path, entry)
        try:
            make_folder(target.parent)
            with writing(target.parent, "file"):
                write_atomic({target: content})
                os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as exc:
            raise StorageError(f"{target} cannot be written ({exc.strerror})") from exc
        counts.files += 1
        counts.n_bytes += entry.size
        is_changed = True
    for path in there:
        if path not in wanted:
            delete(folder / path)
            is_changed = True
    return is_changed


def _pull_history(
    bucket: Bucket, manifest: Manifest, segments: Sequence[Segment], folder: Path, counts: Counts
) -> bool:
    """Write the database of a history: the judgements of the pushed folder, and the newer ones."""
    path = f"{segments[0].folder}{HISTORY_SUFFIX}"
    target, base = folder / path, manifest.files.get(path)
    make_folder(target.parent)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        if base is not None:
            temporary.write_bytes(_content(bucket, path, base))
        contents = (
            tuple(_content(bucket, name, manifest.files[name]) for name in (segment.judgements, segment.thumbnails))
            for segment in segments
        )
        JudgementFiles(folder).add_numbered(
            temporary,
            (kept for segment, files in zip(segments, contents, strict=True) for kept in kept_in(segment, *files)),
        )
        replace(temporary, target)
    finally:
        delete(temporary)
    counts.files += 1
    counts.n_bytes += target.stat().st_size
    return True


def _content(bucket: Bucket, path: str, entry: Entry) -> bytes:
    content = entry.text.encode() if entry.text is not None else bucket.get_large(entry.blob_key or "")
    if content is None or not entry.is_content(content):
        raise error_about({path: how_lost(content, entry)})
    return content


def _as_in_a_folder(manifest: Manifest) -> dict[str, Entry]:
    """The files of a manifest, by their names in a models folder."""
    files = dict(manifest.files)
    pending = sorted(path for path in files if f"/{PENDING_FOLDER}/" in path)
    for path in pending:
        entry, recipe = files.pop(path), path.split(f"/{PENDING_FOLDER}/")[0]
        if f"{recipe}/{RECIPE_FILE}" not in files:
            files[f"{recipe}/{RECIPE_FILE}.pending"] = entry
    return files


def _as_in_a_store(path: str) -> str:
    """The name of a file in a manifest: an announced scale has another place."""
    recipe, _, name = path.rpartition("/")
    return f"{recipe}/{PENDING_FOLDER}/{name}" if name == f"{RECIPE_FILE}.pending" else path


def _files_of(folder: Path) -> dict[Unit, list[str]]:
    """The files of a models folder that belong in a store, by unit."""
    found: dict[Unit, list[str]] = {}
    for file in folder.rglob("*"):
        path = file.relative_to(folder).as_posix()
        if is_stored(path) and file.is_file() and (unit := unit_of(_as_in_a_store(path))) is not None:
            found.setdefault(unit, []).append(path)
    return found


def manifests(bucket: Bucket, counts: Counts, tell: Tell) -> Iterator[Manifest]:
    """All manifests of a store; damaged ones are reported.

    Raises:
        StoreUnavailable: the store cannot be used, or a listed manifest is missing.
    """
    for item in list(bucket.list(MANIFESTS.rstrip("/"))):
        unit = unit_of_key(item.key)
        found = bucket.get(item.key)
        if unit is None or found is None:
            _tell(
                counts,
                tell,
                f"{item.key}: {'not a manifest of this service' if unit is None else 'listed, but missing'}",
            )
            continue
        try:
            yield parse_manifest(unit, found.content)
        except StorageError as exc:
            _tell(counts, tell, str(exc))


def check(bucket: Bucket, tell: Tell) -> Counts:
    """Read everything in the store, and compare it with its hashes.

    Raises:
        StoreUnavailable: the store cannot be used.
    """
    counts = Counts()
    for manifest in manifests(bucket, counts, tell):
        counts.units += 1
        wrong: dict[str, str | None] = {}  # by blob: a version has those of the model that it was
        for path, entry in sorted(manifest.files.items()):
            counts.files += 1
            counts.n_bytes += entry.size
            if entry.blob_key is None:  # compared when the manifest was read
                continue
            if entry.blob_key not in wrong:
                content = bucket.get_large(entry.blob_key)
                is_right = content is not None and entry.is_content(content)
                wrong[entry.blob_key] = None if is_right else how_lost(content, entry)
            if wrong[entry.blob_key] is not None:
                _tell(counts, tell, f"{path}: {wrong[entry.blob_key]}; {mend(path)}")
    return counts


def collect_garbage(bucket: Bucket, tell: Tell) -> Counts:
    """Delete blobs that no manifest references, a day after they were written, and remains of checks at the start.

    Args:
        bucket: the store.
        tell: called with messages about manifests that cannot be read: then nothing is deleted.

    Raises:
        StoreUnavailable: the store cannot be used.
    """
    counts = Counts()
    now = bucket.now()
    # Listed before the manifests are read: a blob that is named later than that was written later, too.
    old = [
        item
        for prefix in (BLOBS, PROBES)
        for item in bucket.list(prefix.rstrip("/"))
        if now - item.written_at > GARBAGE_AFTER
    ]
    named: set[str | None] = set()
    for manifest in manifests(bucket, counts, tell):
        counts.units += 1
        named.update(entry.blob_key for entry in manifest.files.values())
    if counts.problems:
        return counts
    doomed = [item for item in old if item.key not in named]
    bucket.delete([item.key for item in doomed])
    counts.files = counts.changed = len(doomed)
    counts.n_bytes = sum(item.size for item in doomed)
    return counts


def _contents(files: Mapping[str, Entry]) -> dict[str, str]:
    return {path: entry.sha256 for path, entry in files.items()}


def _tell(counts: Counts, tell: Tell, problem: str) -> None:
    counts.problems.append(problem)
    tell(problem)


def _memory_id(path: Path) -> str | None:
    header = read_header(path)
    found = header.metadata.get("memory_id") if header else None
    return found if isinstance(found, str) else None


def _is_of_older_backend(path: Path) -> bool:
    try:
        header = read_header(path)
    except StorageError:  # damaged here, and damaged there
        return False
    return header is not None and header.version is None


def _why_not(path: str) -> str:
    if path.endswith(".npz") or path.startswith("recipes/"):
        return "an older backend wrote it; run migrate first"
    return "not a file of this service"
