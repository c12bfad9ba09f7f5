"""The report of a migration: a line for each found item, remarks about single files, and a summary."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backend.commands.console import count
from backend.commands.migrate.older import Found
from backend.common.program import PROGRAM

_HEADER = ("what", "layout", "recipe", "role", "roi", "found", "result")
_HINT = f"Calibrate refitted ROIs next: POST /calibrate_dataset, or `{PROGRAM} calibrate` with images of good parts."

Kind = Literal["recipe", "data set", "model", "calibration"]
_KINDS: tuple[Kind, ...] = ("recipe", "data set", "model", "calibration")


@dataclass
class Line:
    """A found item, and its result.

    Attributes:
        kind, layout, recipe, role, roi: of the item.
        found: its contents.
        results: what was done, or why nothing was done.
    """

    kind: Kind
    layout: str
    recipe: str
    role: str
    roi: str
    found: str = ""
    results: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        """The printed line."""
        texts = (self.kind, self.layout, self.recipe, self.role, self.roi, self.found, "; ".join(self.results))
        return tuple(map(_shown, texts))


class Report:
    """The report of a migration.

    Args:
        old: the older backend's models folder.
        dry_run: whether it reports only what would be done.
    """

    def __init__(self, old: Path, *, dry_run: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._old = old
        self._dry_run = dry_run
        self._lines: list[Line] = []
        self._notes: list[str] = []

    def line(self, kind: Kind, found: Found) -> Line:
        """A new line."""
        role_id, roi_id = (found.key.role_id, found.key.roi_id) if found.key else (found.name, "-")
        if kind == "recipe":
            role_id = "-"
        line = Line(kind, found.layout, found.recipe, role_id, roi_id)
        self._lines.append(line)
        return line

    def note(self, path: Path, text: str) -> None:
        """Add a remark about one file of the older backend."""
        self._notes.append(_shown(f"{path.relative_to(self._old).as_posix()}: {text}"))

    def failed(self, reason: str) -> str:
        """The text of a failed line."""
        self.counts["failed"] += 1
        return f"failed: {reason}"

    def did(self, past: str, verb: str) -> str:
        """What was done, or in a dry run would be."""
        return f"would {verb}" if self._dry_run else past

    def text(self) -> Iterator[str]:
        """The report, line by line."""
        if not self._lines:
            yield f"Nothing of an older backend was found in {self._old}."
            return
        lines = sorted(
            self._lines, key=lambda line: (_KINDS.index(line.kind), line.recipe, line.role, line.roi, line.layout)
        )
        yield from _table([_HEADER, *(line.cells() for line in lines)])
        if self._notes:
            yield ""
            yield from self._notes
        yield ""
        yield self._summary()
        yield _HINT

    def _summary(self) -> str:
        kinds = Counter(line.kind for line in self._lines)
        found = ", ".join(count(kinds[kind], kind) for kind in _KINDS if kinds[kind])
        done = {
            self.did("locked", "lock"): count(self.counts["locked"], "recipe"),
            self.did("copied", "copy"): count(self.counts["copied"], "image"),
            self.did("kept", "keep"): f"{count(self.counts['kept'], 'calibration')} as history",
            self.did("refitted", "refit"): count(self.counts["refitted"], "ROI"),
        }
        summary = f"Found {found}: {', '.join(f'{did} {what}' for did, what in done.items())}"
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        return summary + failed + (" (dry run: nothing was written)." if self._dry_run else ".")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(text: str) -> str:
    """A printable text, because ids and file names may have any character."""
    return text if text.isprintable() else ascii(text)[1:-1]
