"""The file of results: CSV with a line for each ROI of a part, or JSON lines with a line for each part.

The lines of a part are on the disk before its file is moved. The journal has the length of the file before them, so
lines that a crash damaged are written again, and complete ones are not.
"""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from backend.commands.excel import Excel
from backend.common.errors import InvalidRequest, StorageError
from backend.common.files import sync_folder

COLUMNS = (
    *("id", "time_utc", "recipe_id", "file", "verdict", "reason"),
    *("name", "role_id", "roi_id", "model_key", "roi_verdict", "roi_reason"),
    *("score", "threshold", "calibration", "decide_by", "pixel_threshold", "why", "n_regions", "largest_area_mm2"),
    *("memory_id", "warning", "dx", "dy", "angle_deg", "anchor_score", "ms", "sha256"),
)
"""Of CSV. Those of the part are repeated for each ROI; `roi_verdict` and `roi_reason` are the ROI's own."""
_JSON_BEGINNING = b'{"id": "'
_OF_PART = frozenset({"id", "time_utc", "recipe_id", "file", "verdict", "reason", "ms", "sha256"})
_FORMATS = (".csv", ".jsonl")


class Results:
    """A file of results.

    Args:
        path: ``.csv`` or ``.jsonl``; an existing file is continued.
        excel: whose spreadsheet the CSV is for; None is for plain CSV.

    Raises:
        InvalidRequest: another extension, or a file with other contents.
        StorageError: it cannot be read.
    """

    def __init__(self, path: Path, excel: Excel | None = None) -> None:
        self.path = path
        self._excel = excel
        self._is_csv = path.suffix.lower() == ".csv"
        if path.suffix.lower() not in _FORMATS:
            raise InvalidRequest(f"{path}: the extension names the format; use {' or '.join(_FORMATS)}")
        if not path.parent.is_dir():
            raise InvalidRequest(f"{path}: no such folder")
        self._header = self._csv([dict(zip(COLUMNS, COLUMNS, strict=True))], begins=True) if self._is_csv else b""
        beginning = self._header if self._is_csv else _JSON_BEGINNING
        try:
            found = path.read_bytes()[: len(beginning)] if path.exists() else b""
        except OSError as exc:
            raise StorageError(f"{path} cannot be read ({exc.strerror})") from exc
        if not beginning.startswith(found):
            raise InvalidRequest(f"{path} contains something else, or was begun with other options: give another file")

    def end(self) -> int:
        """Bytes of the file.

        Raises:
            StorageError: the size is unknown, for example because a share does not answer.
        """
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise StorageError(f"{self.path} cannot be read ({exc.strerror})") from exc

    def append(self, told: dict[str, Any], at: int) -> None:
        """Write the lines of a part, unless they exist; when this returns, they are on the disk.

        Args:
            told: the result of `PartVerdict.as_dict`.
            at: the result of `end` before they were written for the first time.

        Raises:
            StorageError: they cannot be written; the same call tries again.
        """
        try:
            with self.path.open("ab") as file:
                is_new = file.tell() == 0
            with self.path.open("rb+") as file:
                self._append(file, self._lines(told), at)
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self.path.parent)
        except PermissionError as exc:  # on Windows also while Excel has it open
            raise StorageError(
                f"{self.path} cannot be written ({exc.strerror}): close it in other programs, such as Excel, or make "
                "it and its folder writable"
            ) from exc
        except OSError as exc:
            raise StorageError(f"{self.path} cannot be written ({exc.strerror})") from exc

    def _append(self, file: "io.BufferedRandom", lines: bytes, at: int) -> None:
        size = file.seek(0, os.SEEK_END)
        if at > size:  # somebody began the file anew
            at = 0
        file.seek(at)
        found = file.read()
        wanted = self._header + lines if at == 0 else lines
        if lines in found:
            return
        if wanted.startswith(found):  # nothing, or what a crash left of it
            file.truncate(at)
            file.seek(at)
            file.write(wanted)
            return
        file.seek(0, os.SEEK_END)  # somebody else wrote there
        file.write(lines if found.endswith(b"\n") else b"\n" + lines)

    def _lines(self, told: dict[str, Any]) -> bytes:
        if not self._is_csv:
            return json.dumps(told, allow_nan=False).encode() + b"\n"
        placement = told.get("placement", {})
        part = {name: value for name, value in told.items() if name in _OF_PART}
        part |= {"anchor_score" if name == "score" else name: value for name, value in placement.items()}
        rois = [
            roi | {"roi_verdict": roi["verdict"], "roi_reason": roi.get("reason")} | {"reason": None} | part
            for roi in told["rois"]
        ]
        return self._csv(rois or [part])

    def _csv(self, rows: list[dict[str, Any]], *, begins: bool = False) -> bytes:
        buffer = io.StringIO()
        excel = self._excel
        writer = (
            csv.writer(buffer, lineterminator="\n") if excel is None else csv.writer(buffer, delimiter=excel.delimiter)
        )
        cell = _cell if excel is None else excel.cell
        writer.writerows([cell(row.get(name)) for name in COLUMNS] for row in rows)
        return (excel.beginning if begins and excel else b"") + buffer.getvalue().encode()


def _cell(value: Any) -> str:
    """The text of a value; numbers keep every digit."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
