"""The files of a folder as texts: their contents if readable, else their size and sha256."""

import csv
import io
import re
import zipfile
from pathlib import Path

import numpy as np

from harness.contract.blanks import Blanks, digest, layout_of, parse, pretty, sized

_MEASURED_COLUMNS = frozenset({"ms"})
_EMBEDDED = re.compile(r"data:image/[a-z]+;base64,([A-Za-z0-9+/=]+)")
# Milliseconds per image: in the last column of a table, and with their unit.
_DURATION = re.compile(r"(?<=<td>)\d+(?=</td></tr>)|\b\d+ ms\b")


def texts_of_files(root: Path, blanks: Blanks) -> dict[str, str]:
    """Every file below a folder, by its path; empty folders, too."""
    texts = {}
    for path in sorted(root.rglob("*")):
        name = blanks.path(path.relative_to(root).as_posix())
        if path.is_file():
            texts[name] = text_of_file(path, blanks)
        elif not any(path.iterdir()):
            texts[f"{name}/"] = "<empty folder>\n"
    return texts


def text_of_file(path: Path, blanks: Blanks) -> str:
    """One file, by its kind."""
    content = path.read_bytes()
    kinds = {
        ".json": _json,
        ".jsonl": _json_lines,
        ".csv": _csv,
        ".npz": _arrays,
        ".html": _page,
    }
    size = f"{sized(content)}\n"
    try:
        read = kinds.get(path.suffix)
        return size if read is None else read(content, blanks)
    except (ValueError, KeyError, zipfile.BadZipFile):
        return f"<damaged> {size}"


def _json(content: bytes, blanks: Blanks) -> str:
    text = content.decode()
    return f"{pretty(blanks.json(parse(text)))}\nwritten as {layout_of(text)}\n"


def _json_lines(content: bytes, blanks: Blanks) -> str:
    lines = content.decode().split("\n")
    return "\n".join(_json(line.encode(), blanks) if line else "<empty line>" for line in lines)


def _csv(content: bytes, blanks: Blanks) -> str:
    header, *rows = csv.reader(io.StringIO(content.decode(), newline=""))
    lines = [",".join(header)]
    for row in rows:
        cells = ("<measured>" if name in _MEASURED_COLUMNS else cell for name, cell in zip(header, row, strict=True))
        lines.append(blanks.prose(" | ".join(cells)))
    ends = "lines end with " + ("CRLF" if content.endswith(b"\r\n") else "LF")
    return "\n".join([*lines, ends]) + "\n"


def _arrays(content: bytes, blanks: Blanks) -> str:
    lines = []
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        packed = {item.filename: item.compress_type for item in archive.infolist()}
        members = {name: archive.read(name) for name in packed}
    for name, member in members.items():
        array = np.load(io.BytesIO(member), allow_pickle=False)
        lines.append(f"{name}: {array.dtype.kind} {list(array.shape)}, packed {packed[name]}, sha256 {digest(member)}")
        if array.dtype.kind == "U" and array.ndim == 0:
            text = str(array)
            lines[-1] = f"{name}: {pretty(blanks.json(parse(text)))}\nwritten as {layout_of(text)}"
    return "\n".join([f"{len(content)} bytes", *lines]) + "\n"


def _page(content: bytes, blanks: Blanks) -> str:
    text = _EMBEDDED.sub(lambda match: f"<image sha256 {digest(match[1].encode())}>", content.decode())
    return blanks.prose(_DURATION.sub("<measured>", text))
