"""The output of `watch` on stderr: parts that were not OK, and the progress."""

import json
import sys
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from backend.commands.console import count, on_a_terminal, print_line, say, some
from backend.commands.watch.journal import Journal
from backend.commands.watch.layouts import Layout
from backend.commands.watch.verdicts import WORDS
from backend.commands.watch.watching import Tally

_SHOWN_EVERY_S = {True: 0.2, False: 10.0}
"""Whether stderr is a terminal, and how often it says how far it is."""
_RATE_OVER_S = 30.0


class Showing:
    """Shows the progress.

    Args:
        journal: knows how many messages wait.
        prints_results: print each part to stdout as a line of JSON.
    """

    def __init__(self, journal: Journal, *, prints_results: bool) -> None:
        self._journal = journal
        self._prints = prints_results
        self._bar: Any = tqdm(bar_format="{desc}", file=sys.stderr, dynamic_ncols=True, disable=not sys.stderr.isatty())
        self._next = 0.0
        self._shown = ""
        self._seen: deque[tuple[float, int]] = deque()

    def __enter__(self) -> "Showing":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def say(self, text: str) -> None:
        """Tell people something that happened. From any thread."""
        if self._bar.disable:
            say(text)
        else:
            self._bar.write(on_a_terminal(text), file=sys.stderr)

    def begin(self, layout: Layout, folder: Path, channels: Collection[str]) -> None:
        """Print what is watched, and which waiting messages are not sent."""
        names = some([drawn.name for drawn in layout.rois], 6)
        self.say(f"watching {folder}: {count(len(layout.rois), 'ROI')} of recipe {layout.recipe!r} ({names})")
        for channel, waiting in self._journal.n_messages().items():
            if channel in channels:
                self.say(f"{channel}: {count(waiting, 'message')} of an earlier run are sent first")
            else:
                self.say(
                    f"{count(waiting, 'message')} of an earlier run are waiting for --{channel}, which was not given"
                )

    def report(self, told: dict[str, Any]) -> None:
        """Show a judged part."""
        if self._prints:
            print_line(json.dumps(told))
        if told["verdict"] == "ok":
            return
        reasons = [f"{roi['name']}: {roi.get('why', 'NG')}" for roi in told["rois"] if roi["verdict"] == "ng"]
        why = told.get("reason") or " ".join(reasons)
        about = why if why.startswith(told["file"]) else f"{told['file']}: {why}"
        self.say(f"{WORDS[told['verdict']]}: {about}")

    def show(self, tally: Tally, n_waiting: int) -> None:
        """Show the progress, unless this was done recently."""
        now, is_terminal = time.monotonic(), not self._bar.disable
        if now < self._next:
            return
        self._next = now + _SHOWN_EVERY_S[is_terminal]
        self._seen.append((now, tally.n_parts))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()
        began, before = self._seen[0]
        rate = (tally.n_parts - before) / (now - began) if now > began else 0.0
        unsent = "".join(f", {n} messages for {name} wait" for name, n in self._journal.n_messages().items())
        text = f"{_counts(tally)}, {count(n_waiting, 'file')} waiting{unsent}"
        if is_terminal:
            self._bar.set_description_str(f"{text}, {rate:.1f} parts/s")
        elif text != self._shown and self._shown:
            say(f"{text}, {rate:.1f} parts/s")
        self._shown = text

    def end(self, tally: Tally) -> None:
        """Print what was done."""
        unsent = [f"{n} for {name}" for name, n in self._journal.n_messages().items()]
        waiting = f"; messages that are sent next time: {', '.join(unsent)}" if unsent else ""
        self.say(f"{count(tally.n_parts, 'part')}: {_counts(tally)}{waiting}")


def _counts(tally: Tally) -> str:
    return ", ".join(f"{n} {WORDS[word]}" for word, n in tally.counts.items())
