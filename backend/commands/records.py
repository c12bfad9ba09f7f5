"""The records of a bulk run: one per image, in a JSON lines or CSV file that the next run continues.

Every record has the conditions that it was made under, so that records of different conditions never share a file.
"""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import filelock

from backend.commands.console import shown
from backend.commands.excel import Excel
from backend.common.errors import InvalidRequest, StorageError
from backend.common.files import write_atomic
from backend.disk.fitted import CalibrationState

Row = Mapping[str, Any]
"""A record as it was read back, without regions: its columns by name; in CSV all of them text, empty for none."""

_INSTEAD = "give another file, or begin again with --restart"


@dataclass(frozen=True)
class Conditions:
    """The conditions of a record besides its image; the names are columns.

    Attributes:
        threshold, area_mm2_thr: of the calibration; None if none is applied.
        calibration: as in the reply of ``/infer``.
        score_percentile: percentile of the masked distance map that is the score.
        mm_per_px: millimetres per pixel of the images.
        shape: mask in pixels of the images.
        blur_sigma: Gaussian sigma on the distance map, in pixels.
        memory_id: identity of the memory bank.
        role_id, roi_id: the ROI.
        decide_by, pixel_threshold: of the calibration, if regions decide; only then they are columns.
    """

    threshold: float | None
    calibration: CalibrationState
    score_percentile: float
    area_mm2_thr: float | None
    mm_per_px: float
    shape: dict[str, Any] | None
    blur_sigma: float
    memory_id: str
    role_id: str
    roi_id: str
    decide_by: Literal["region", "either"] | None = None
    pixel_threshold: float | None = None


@dataclass(frozen=True)
class Record:
    """The record of one image.

    Attributes:
        path: the image, as it was given.
        sha256: of its bytes; None if they cannot be read.
        conditions: of its judgement.
        ms: milliseconds from reading the image to its heatmap.
        score, decision, regions: as in the reply of ``/infer``; None if the image failed.
        error: why it failed.
        scores: at further requested percentiles, and of regions; not a column.
        pixels_sha256: identity of its pixels, if requested; not a column.
        heatmap, overlay: their files, if the names differ from that of the image; only in JSON lines.
        why: it is OK or NG, in words; a column only if regions decide.
    """

    path: str
    sha256: str | None
    conditions: Conditions
    ms: float
    score: float | None = None
    decision: Literal["ok", "ng"] | None = None
    regions: list[dict[str, Any]] | None = None
    error: str | None = None
    scores: tuple[float, ...] = ()
    pixels_sha256: str | None = None
    heatmap: str | None = None
    overlay: str | None = None
    why: str | None = None

    def as_json(self) -> bytes:
        """One line of JSON, in ASCII; path and error as `shown`."""
        paths = {"heatmap": self.heatmap, "overlay": self.overlay}
        elsewhere = {name: shown(path) for name, path in paths.items() if path is not None}
        values = {**self._shared(), "regions": self.regions, **elsewhere, **self._of_regions()}
        return json.dumps(values, allow_nan=False).encode() + b"\n"

    def as_csv(self, excel: Excel | None = None) -> bytes:
        """One record of CSV, in UTF-8; regions as their number and areas, if there is a threshold.

        Args:
            excel: whose spreadsheet it is for; None writes plain CSV.
        """
        areas = (
            None
            if self.regions is None or self.conditions.threshold is None
            else [region["area_mm2"] for region in self.regions]
        )
        summary = [None] * 3 if areas is None else [len(areas), max(areas, default=0.0), math.fsum(areas)]
        return _csv_line((*self._shared().values(), *summary, *self._of_regions().values()), excel)

    def _shared(self) -> dict[str, Any]:
        return {
            "path": shown(self.path),
            "score": self.score,
            "decision": self.decision,
            **{name: value for name, value in asdict(self.conditions).items() if name not in _REGION_COLUMNS},
            "sha256": self.sha256,
            "ms": self.ms,
            "error": None if self.error is None else shown(self.error),
        }

    def _of_regions(self) -> dict[str, Any]:
        decide_by, pixel_threshold = self.conditions.decide_by, self.conditions.pixel_threshold
        return (
            {} if decide_by is None else dict(zip(_REGION_COLUMNS, (decide_by, pixel_threshold, self.why), strict=True))
        )


def _cell(value: Any) -> str:
    """The text of a value in CSV; numbers keep every digit."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _csv_line(values: Iterable[Any], excel: Excel | None = None) -> bytes:
    buffer = io.StringIO()
    if excel is None:
        csv.writer(buffer, lineterminator="\n").writerow(map(_cell, values))
    else:
        csv.writer(buffer, delimiter=excel.delimiter).writerow(map(excel.cell, values))
    return buffer.getvalue().encode()


_REGION_COLUMNS = ["decide_by", "pixel_threshold", "why"]
_EVERY_CONDITION = [field.name for field in fields(Conditions)]
_DECISIVE = ["memory_id", *(name for name in _EVERY_CONDITION if name != "memory_id")]  # it explains the others
_CONDITIONS = [name for name in _EVERY_CONDITION if name not in _REGION_COLUMNS]
_COLUMNS = ["path", "score", "decision", *_CONDITIONS, "sha256", "ms", "error"]
_SUMMARY = ["n_regions", "largest_area_mm2", "total_area_mm2"]
_CSV_COLUMNS = [*_COLUMNS, *_SUMMARY]
_ELSEWHERE: tuple[list[str], ...] = ([], ["heatmap"], ["overlay"], ["heatmap", "overlay"])
_JSON_COLUMNS = [
    [*_COLUMNS, "regions", *elsewhere, *of_regions] for elsewhere in _ELSEWHERE for of_regions in ([], _REGION_COLUMNS)
]
_NUMBERS = {"score", "threshold", "score_percentile", "area_mm2_thr", "mm_per_px", "blur_sigma", "ms", *_SUMMARY}
_NUMBERS |= {"pixel_threshold"}


def _read_json(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict) or list(row) not in _JSON_COLUMNS:
        raise ValueError("other columns")
    del row["regions"]  # the contours of a long run would fill the memory
    return row


def _read_csv(columns: Sequence[str], line: bytes) -> Row:
    # Earlier versions wrote the bytes of file names as they are.
    (cells,) = csv.reader(io.StringIO(line.decode("utf-8", "surrogateescape"), newline=""), strict=True)
    return dict(zip(columns, cells, strict=True))


def _read_excel(excel: Excel, columns: Sequence[str], line: bytes) -> Row:
    (cells,) = csv.reader(io.StringIO(line.decode(), newline=""), delimiter=excel.delimiter, strict=True)
    row = dict(zip(columns, cells, strict=True))
    return {name: excel.number(cell) if name in _NUMBERS else excel.text(cell) for name, cell in row.items()}


@dataclass(frozen=True)
class _Format:
    """The format of records in a file.

    Attributes:
        header: beginning of every file begins with.
        beginning: beginning of every file with a record begins with.
        write: a record as bytes; the last one is a newline.
        read: the same back; ValueError or csv.Error for anything else.
        is_whole: whether bytes that end with a newline are a complete record.
    """

    header: bytes
    beginning: bytes
    write: Callable[[Record], bytes]
    read: Callable[[bytes], Row]
    is_whole: Callable[[bytes], bool]


def _is_whole_csv(line: bytes) -> bool:
    return line.count(b'"') % 2 == 0  # a newline between quotes belongs to a path or an error


def _csv_format(excel: Excel | None, by_regions: bool) -> _Format:
    columns = [*_CSV_COLUMNS, *(_REGION_COLUMNS if by_regions else [])]
    if excel is None:
        header = _csv_line(columns)
        return _Format(header, header, Record.as_csv, partial(_read_csv, columns), _is_whole_csv)
    header = excel.beginning + _csv_line(columns, excel)
    read = partial(_read_excel, excel, columns)
    return _Format(header, header, partial(Record.as_csv, excel=excel), read, _is_whole_csv)


_FORMATS: dict[str, Callable[[Excel | None, bool], _Format]] = {
    ".jsonl": lambda _excel, _by_regions: _Format(b"", b'{"path": ', Record.as_json, _read_json, lambda _line: True),
    ".csv": _csv_format,
}


class RecordFile:
    """The file of a run, with the records of the runs before it.

    Attributes:
        path: the file; ``.jsonl`` or ``.csv``.
        restart: whether this run started again.
        rows: the records of earlier runs, by path of the image as `shown`.
    """

    def __init__(self, path: Path, *, restart: bool, excel: Excel | None = None) -> None:
        self.path = path
        self.restart = restart
        self.rows: dict[str, Row] = {}
        self._excel = excel
        self._format = _format_of(path, excel)
        self._lines: dict[str, bytes] = {}
        self._is_ready = False
        content = b"" if restart or not path.exists() else path.read_bytes()
        by_regions = _format_of(path, excel, by_regions=True)
        if content.startswith(by_regions.beginning):
            self._format = by_regions
        for number, line in enumerate(self._whole_records(content), 1):
            try:
                row = self._format.read(line)
            except (ValueError, TypeError, RecursionError, csv.Error) as exc:
                which = "with these options of --excel" if excel is not None else "by this command"
                raise InvalidRequest(f"{path}: record {number} was not made {which}; {_INSTEAD}") from exc
            path_shown = shown(row["path"])  # earlier versions wrote halves of characters
            self.rows[path_shown] = row
            self._lines[path_shown] = line

    @classmethod
    @contextlib.contextmanager
    def opened(cls, path: Path, *, restart: bool, excel: Excel | None = None) -> Iterator["RecordFile"]:
        """Read the file, if there is one, and lock it against other runs.

        Args:
            path: the file.
            restart: ignore its records; the first `append` deletes them.
            excel: whose spreadsheet the CSV is for; None is for plain CSV.

        Raises:
            InvalidRequest: another extension, a file with other contents, or another run is writing it.
            StorageError: the file or its folder cannot be read or written.
        """
        with _writing(path):
            _format_of(path, excel)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            with _writing(path):
                lock.acquire()
                records = cls(path, restart=restart, excel=excel)
            yield records
        finally:
            if lock.is_locked:
                with contextlib.suppress(OSError):
                    Path(lock.lock_file).unlink()  # while it is held: who waits for a file that is gone makes a new one
                lock.release()

    def require(self, conditions: Conditions) -> None:
        """Refuse to mix conditions, and use the columns of these.

        Raises:
            InvalidRequest: a record was made under other conditions; the message names the difference.
        """
        now = {name: _cell(value) for name, value in asdict(conditions).items()}
        for row in self.rows.values():
            for name in _DECISIVE:
                if (found := _cell(row.get(name))) != now[name]:
                    difference = f"with {name} {found or 'none'} instead of {now[name] or 'none'}"
                    if name == "memory_id":
                        difference = "with another memory bank, because the ROI was fitted anew since"
                    raise InvalidRequest(f"{self.path} holds records that were made {difference}: {_INSTEAD}")
        if not self.rows:
            self._format = _format_of(self.path, self._excel, by_regions=conditions.decide_by is not None)

    def drop(self, path: str) -> None:
        """Drop the record of an image before the first `append`, so that a new one can replace it."""
        del self.rows[shown(path)], self._lines[shown(path)]

    def append(self, record: Record) -> None:
        """Write one record; it is in the file when this returns.

        Raises:
            StorageError: the file cannot be written; it still ends with the record before.
        """
        rest = memoryview(self._format.write(record))
        with _writing(self.path), self._ready().open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError:
                file.truncate(end)
                raise

    def _ready(self) -> Path:
        """The file; the first time, without incomplete and dropped records, and empty after a restart."""
        if not self._is_ready:
            content = self._format.header + b"".join(self._lines.values())
            if not self.path.exists() or self.path.read_bytes() != content:
                write_atomic({self.path.resolve(): content})
            self._is_ready = True
            self._lines.clear()
        return self.path

    def _whole_records(self, content: bytes) -> Iterator[bytes]:
        beginning = self._format.beginning
        if content[: len(beginning)] != beginning[: len(content)]:
            if b"path" in content[:7] and b"total_area_mm2" in content[: len(beginning) + 8]:
                raise InvalidRequest(
                    f"{self.path} was made with other options of --excel; give the same options as before, or "
                    f"{_INSTEAD}"
                )
            raise InvalidRequest(f"{self.path} was not made by this command; {_INSTEAD}")
        record = b""
        for line in io.BytesIO(content[len(self._format.header) :]):
            record += line
            if record.endswith(b"\n") and self._format.is_whole(record):
                yield record
                record = b""


def _format_of(path: Path, excel: Excel | None, *, by_regions: bool = False) -> _Format:
    if not path.parent.is_dir():
        raise InvalidRequest(f"{path}: no such folder")
    if path.exists() and not path.is_file():
        raise InvalidRequest(f"{path} is not a regular file; give a file that ends in {' or '.join(_FORMATS)}")
    try:
        return _FORMATS[path.suffix.lower()](excel, by_regions)
    except KeyError as exc:
        hint = ", with --excel to open it in Excel" if path.suffix.lower().startswith(".xls") else ""
        raise InvalidRequest(f"{path}: the extension names the format; use {' or '.join(_FORMATS)}{hint}") from exc


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except filelock.Timeout as exc:
        raise InvalidRequest(f"{path}: another run is writing this file; wait until it ends") from exc
    except PermissionError as exc:
        raise StorageError(
            f"{path} cannot be written ({exc.strerror}): close it in other programs, such as Excel, or make it and its "
            "folder writable; then run the command again: it resumes where it stopped"
        ) from exc
    except OSError as exc:
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc
