"""Judgements in an object store: the judgements of a replica in two seconds are a segment of two files.

``.history/<digest>/<first number>-<how many>.jsonl`` has a line for each judgement, ``.jpgs`` beside it has their
thumbnails in sequence. Small segments are joined, so that there are never many. The database of a pushed folder stays
unchanged as ``.history/<digest>.sqlite``, and is deleted when it is too old; a pull adds the segments to it.
``.history/<digest>/marks.json`` has the marks of the last judgements that have one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk.judgements import (
    FOLDER,
    SUFFIX,
    JudgementFiles,
    JudgementQuery,
    KeptJudgement,
    NewJudgement,
)
from backend.object_store.manifest import Manifest
from backend.object_store.mirror import Mirror, Overtaken
from backend.object_store.units import Unit
from backend.object_store.uploading import Edit

_SMALL = 64
_MOST_SMALL = 16
_BYTES = "thumbnail_bytes"
_MARKS, _MOST_MARKS = "marks.json", 500
_Lines = list[dict[str, Any]]


@dataclass(frozen=True, order=True)
class Segment:
    """Judgements that were stored together.

    Attributes:
        first: number of the first.
        count: their number.
        folder: of the history, below the models folder.
    """

    first: int
    count: int
    folder: str

    @property
    def end(self) -> int:
        """The number after the last one."""
        return self.first + self.count

    @property
    def judgements(self) -> str:
        """The file with a line for each judgement."""
        return f"{self.folder}/{self.first:012d}-{self.count:06d}.jsonl"

    @property
    def thumbnails(self) -> str:
        """The file with their thumbnails."""
        return self.judgements.replace(".jsonl", ".jpgs")


class ObjectJudgementFiles:
    """Judgements; arguments, results and errors as for `JudgementFiles`, and `StoreUnavailable`.

    Args:
        mirror: the units.
        most: how many are kept for each ROI.
    """

    def __init__(self, mirror: Mirror, most: int) -> None:
        self._mirror = mirror
        self._most = most
        self._names = JudgementFiles(mirror.root)

    def has(self, key: RoiKey) -> bool:
        """As `JudgementFiles.has`."""
        return bool(self._mirror.look(self._unit(key)).files)

    def add(self, key: RoiKey, judgements: Sequence[NewJudgement], most: int) -> None:
        """As `JudgementFiles.add`; none is added twice, even if the store did not confirm an addition.

        Judgements that the store has lost are removed, and the others stay; their numbers may grow.
        """
        unit = self._unit(key)
        folder = f"{FOLDER}/{unit.names[0]}"

        def added(manifest: Manifest) -> dict[str, Edit]:
            there, lost = segments_of(manifest), self._mirror.lost(unit)
            segments = [segment for segment in there if not lost & {segment.judgements, segment.thumbnails}]
            known = {
                (line["at"], line["request_id"]) for segment in segments[-_MOST_SMALL:] for line in self._lines(segment)
            }
            path = f"{folder}/{_MARKS}"
            seen = list(json.loads(self._bytes(path))) if path in manifest.files and path not in lost else []
            new = []
            for found, jpeg, mark in judgements:
                if (found.at, found.request_id) not in known and (mark is None or mark not in seen):
                    new.append((found, jpeg))
                    seen += [mark] if mark else []
            new = new[-most:]
            if not new:
                return {}
            lines: _Lines = [{**asdict(found), _BYTES: len(jpeg)} for found, jpeg in new]
            pictures = b"".join(jpeg for _, jpeg in new)
            files: dict[str, Edit] = dict.fromkeys(lost)
            for segment in set(there).difference(segments):
                files |= {segment.judgements: None, segment.thumbnails: None}
            first = there[-1].end if there else self._names.last(key) + 1
            small = segments[-_MOST_SMALL:]
            if len(small) == _MOST_SMALL and all(segment.count < _SMALL for segment in small):
                first -= sum(segment.count for segment in small)
                lines = [line for segment in small for line in self._lines(segment)] + lines
                pictures = b"".join(self._bytes(segment.thumbnails) for segment in small) + pictures
                files |= {path: None for segment in small for path in (segment.judgements, segment.thumbnails)}
            joined = Segment(first, len(lines), folder)
            for segment in segments:
                if segment.end <= joined.end - most:
                    files |= {segment.judgements: None, segment.thumbnails: None}
            if segments and segments[0].first <= joined.end - most:
                files |= dict.fromkeys(filter(_is_of_a_folder, manifest.files))
            content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
            if any(each.mark for each in judgements):
                files[path] = json.dumps(seen[-_MOST_MARKS:]).encode()
            return files | {joined.judgements: content, joined.thumbnails: pictures}

        try:
            # Thumbnails of segments that may be joined, which are small.
            self._mirror.edit(
                unit, added, lambda path: not path.endswith(".jpgs") or _count(path) < _SMALL, allow_lost=True
            )
        except Overtaken as exc:  # what waits to be kept waits on
            raise StorageError(str(exc)) from exc

    def list(self, key: RoiKey, wanted: JudgementQuery) -> "list[KeptJudgement]":
        """As `JudgementFiles.list`."""
        manifest = self._mirror.look(self._unit(key), lambda path: not path.endswith(".jpgs"))
        segments = segments_of(manifest)
        oldest = self._oldest(segments)
        found: list[KeptJudgement] = []
        for segment in reversed(segments):
            if wanted.before is not None and segment.first >= wanted.before:
                continue
            for place, line in reversed(list(enumerate(self._lines(segment)))):
                number = segment.first + place
                kept = _kept(line, number)
                if number >= oldest and _is_wanted(kept, wanted):
                    found.append(kept)
                if len(found) == wanted.limit:
                    return found
        rest = replace(wanted, limit=wanted.limit - len(found))
        return [*found, *(kept for kept in self._names.list(key, rest) if kept.number >= oldest)]

    def thumbnail(self, key: RoiKey, number: int) -> bytes | None:
        """As `JudgementFiles.thumbnail`."""
        unit = self._unit(key)
        segments = segments_of(self._mirror.look(unit, lambda path: not path.endswith(".jpgs")))
        if number < self._oldest(segments):
            return None
        segment = next((segment for segment in segments if segment.first <= number < segment.end), None)
        if segment is None:
            return self._names.thumbnail(key, number)
        self._mirror.look(unit, lambda path: path in (segment.judgements, segment.thumbnails))
        sizes = [int(line[_BYTES]) for line in self._lines(segment)]
        start = sum(sizes[: number - segment.first])
        return self._bytes(segment.thumbnails)[start : start + sizes[number - segment.first]]

    def _oldest(self, segments: Sequence[Segment]) -> int:
        """The number of the oldest kept judgement; segments are deleted as a whole, so some judgements stay longer."""
        return segments[-1].end - self._most if segments and self._most else 0

    def _unit(self, key: RoiKey) -> Unit:
        return Unit("history", (self._names.path(key).stem,))

    def _lines(self, segment: Segment) -> _Lines:
        return _parsed(segment, self._bytes(segment.judgements))

    def _bytes(self, path: str) -> bytes:
        try:
            return (self._mirror.root / path).read_bytes()
        except FileNotFoundError as exc:  # joined by another replica since the look
            raise StorageError("the history was changed while it was read; retry") from exc


def segments_of(manifest: Manifest) -> list[Segment]:
    """The segments of a history, the oldest first."""
    found = []
    for path in manifest.files:
        name = PurePosixPath(path)
        first, _, count = name.stem.partition("-")
        if name.suffix == ".jsonl" and first.isdecimal() and count.isdecimal():
            found.append(Segment(int(first), int(count), str(name.parent)))
    return sorted(found)


def kept_in(segment: Segment, lines: bytes, thumbnails: bytes) -> Iterator[tuple[KeptJudgement, bytes]]:
    """The judgements of a segment with their thumbnails, the oldest first.

    Args:
        segment: the segment.
        lines, thumbnails: its two files.

    Raises:
        StorageError: they are damaged.
    """
    start = 0
    for number, line in enumerate(_parsed(segment, lines), start=segment.first):
        end = start + int(line[_BYTES])
        yield _kept(line, number), thumbnails[start:end]
        start = end


def _parsed(segment: Segment, content: bytes) -> _Lines:
    try:
        lines = [json.loads(line) for line in content.splitlines()]
        if len(lines) != segment.count or not all(isinstance(line, dict) for line in lines):
            raise ValueError("other lines than its name says")
    except ValueError as exc:
        raise StorageError(f"{segment.judgements} of the history is damaged ({exc})") from exc
    return lines


def _kept(line: dict[str, Any], number: int) -> KeptJudgement:
    return KeptJudgement(**{name: line[name] for name in line if name != _BYTES}, number=number)


def _is_of_a_folder(path: str) -> bool:
    return path.endswith(SUFFIX)


def _count(path: str) -> int:
    return int(PurePosixPath(path).stem.partition("-")[2] or 0)


def _is_wanted(kept: KeptJudgement, wanted: JudgementQuery) -> bool:
    return (
        wanted.decision in (None, kept.decision)
        and (wanted.before is None or kept.number < wanted.before)
        and (wanted.since is None or kept.at >= wanted.since)
        and (wanted.until is None or kept.at < wanted.until)
    )
