"""The loop: each part that arrives is cut, judged, recorded, reported and moved away, one after the other."""

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.commands.console import on_a_terminal, some
from backend.commands.watch.arrivals import Arrival, Arrivals, identity_of
from backend.commands.watch.delivery import Delivery
from backend.commands.watch.journal import Journal, Owed
from backend.commands.watch.judges import Away
from backend.commands.watch.judging import Cut, Judging
from backend.commands.watch.placing import Changed, place
from backend.commands.watch.preparing import Prepared, prepare
from backend.commands.watch.results import Results
from backend.commands.watch.verdicts import PartVerdict, Word
from backend.common.errors import NotReady, StorageError

_LOOK_EVERY_S = 0.25
# A folder with very many files takes long to read: most of the time is for judging.
_LOOK_SHARE = 0.1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_MOST_TRIES = 6
_FORGET_EVERY_S = 86400.0
_WRITE_AGAIN_S = 2.0
_AT_ONCE = 100


@dataclass(frozen=True)
class Places:
    """Where files go.

    Attributes:
        folder: the watched folder.
        by_verdict: folders by verdict; without a folder, the file stays.
        copy: files are copied, and stay.
    """

    folder: Path
    by_verdict: Mapping[Word, Path]
    copy: bool


@dataclass
class Tally:
    """The work of this run.

    Attributes:
        counts: parts by verdict.
    """

    counts: dict[Word, int] = field(default_factory=lambda: {"ok": 0, "ng": 0, "not_judged": 0})

    @property
    def n_parts(self) -> int:
        """The number of all parts."""
        return sum(self.counts.values())


class Watching:
    """Watches a folder.

    Args:
        places: the folder, and the targets of files.
        arrivals: of the folder.
        judging: judges parts.
        journal: finished and pending work.
        results: their file; None if `report` gets the parts.
        deliveries: started; they send the messages.
        report: called with the data of every judged part.
        say: tells people something that happened.
        show: shows the progress: the tally, and the number of waiting files.
        stopping: when set, the loop ends after the current part.
        settle_s: how long a file must stay unchanged, in seconds; five times longer if it cannot be read.
        once: end when all existing files were judged.
    """

    def __init__(
        self,
        places: Places,
        arrivals: Arrivals,
        judging: Judging,
        journal: Journal,
        results: Results | None,
        deliveries: Sequence[Delivery],
        *,
        report: Callable[[dict[str, Any]], None],
        say: Callable[[str], None],
        show: Callable[[Tally, int], None],
        stopping: threading.Event,
        settle_s: float,
        once: bool,
    ) -> None:
        self.tally = Tally()
        self._stopping = stopping
        self._places = places
        self._arrivals = arrivals
        self._judging = judging
        self._journal = journal
        self._results = results
        self._deliveries = deliveries
        self._report = report
        self._say = say
        self._show = show
        self._patience_s = 5 * settle_s
        self._once = once
        self._next_look = self._next_forgetting = 0.0
        self._queue: list[Arrival] = []
        self._put_off: set[Arrival] = set()
        self._n_ignored = 0
        self._lack = ""  # why the results cannot be written now
        self._is_lack_told = False
        self._next_try = 0.0

    def run(self) -> None:
        """Watch until `stopping` is set, or, with `once`, until nothing waits.

        Raises:
            NotReady: with `once`: nobody judges.
            StorageError: a file cannot be moved or copied, the folder cannot be read, or the journal cannot be written;
                with `once`, also: the results cannot be written.
            InvalidRequest: the layout was changed to one that cannot be used.
        """
        for owed in self._journal.owed():
            self._finish(owed)
        self._watch()
        self._catch_up()
        if self._lack:
            problem = f"{self._lack}. Then run the command again: it resumes where it stopped, and no verdict is lost."
            if self._once:
                raise StorageError(problem)
            self._say(problem)

    def _watch(self) -> None:
        with ThreadPoolExecutor(1, "prepare") as pool:
            ahead: dict[Arrival, Future[Prepared]] = {}
            while not self._stopping.is_set():
                self._raise_failures()
                self._forget()
                if time.monotonic() >= self._next_try:
                    self._catch_up()
                self._look()
                self._show(self.tally, self._arrivals.n_waiting)
                if not self._queue:
                    if self._once and not self._arrivals.n_waiting:
                        self._next_look = 0.0  # what came while the last part was judged is there, too
                        self._look()
                        if not self._arrivals.n_waiting:
                            return
                    self._stopping.wait(_LOOK_EVERY_S)
                    continue
                arrival = self._queue.pop(0)
                part = ahead[arrival].result() if arrival in ahead else self._prepare(arrival)
                ahead = {one: pool.submit(self._prepare, one) for one in self._queue[:1]}
                self._take(part)

    def _prepare(self, arrival: Arrival) -> Prepared:
        return prepare(self._places.folder, arrival, self._judging.layout)

    def _raise_failures(self) -> None:
        """End if a delivery ended, because its messages would silently pile up."""
        for delivery in self._deliveries:
            if delivery.failure is not None:
                raise delivery.failure

    def _forget(self) -> None:
        """Delete old entries of the journal, once a day."""
        now = time.monotonic()
        if now >= self._next_forgetting:
            self._journal.forget_files_that_are_gone(self._places.folder)
            self._next_forgetting = now + _FORGET_EVERY_S

    def _look(self) -> None:
        """Look for new files, unless this was done recently."""
        began = time.monotonic()
        if began < self._next_look:
            return
        try:
            whole = self._arrivals.look(began)
        except OSError as exc:
            raise StorageError(f"{self._places.folder} cannot be read ({exc.strerror})") from exc
        took = time.monotonic() - began
        self._next_look = began + max(_LOOK_EVERY_S, took / _LOOK_SHARE)
        self._queue = whole
        ignored = list(self._arrivals.ignored.items())
        by_reason: dict[str, list[str]] = {}
        for path, reason in ignored[self._n_ignored :]:
            by_reason.setdefault(reason, []).append(path)
        for reason, paths in by_reason.items():
            self._say(f"ignored: {some(paths)} ({reason})")
        self._n_ignored = len(ignored)

    def _take(self, part: Prepared) -> None:
        """Judge a part, and do all further work with it."""
        if part.state == "changed":
            self._arrivals.put_off(part.arrival, time.monotonic())  # `look` no longer finds it, or anew
            return
        if part.state == "unfinished" and part.arrival not in self._put_off:
            self._put_off.add(part.arrival)
            self._arrivals.put_off(part.arrival, time.monotonic() + self._patience_s)
            return
        verdict = self._verdict(part)
        if verdict is None:
            return
        self._put_off.discard(part.arrival)
        owed = Owed(verdict.id, part.arrival, verdict.as_dict(), self._end())
        self._journal.add(owed, [delivery.channel.name for delivery in self._deliveries])
        self.tally.counts[verdict.word] += 1
        self._finish(owed)
        self._arrivals.take(part.arrival)

    def _verdict(self, part: Prepared) -> PartVerdict | None:
        """The verdict about a part, after any wait for a judge; None if the command ends before."""
        wait_s, told = _FIRST_WAIT_S, ""
        for tries in itertools.count(1):
            try:
                verdict = self._judging.judge(part)
            except Cut:
                part = self._prepare(part.arrival)
                if part.state != "ready":
                    return None  # it is looked at again
                continue
            except Away as exc:
                if self._once and tries >= _MOST_TRIES:
                    raise NotReady(f"{exc}. Pictures that were not judged stay where they are.", round(wait_s)) from exc
                if str(exc) != told:
                    told = str(exc)
                    self._say(f"nothing is judged: {told}. The command tries again until it works.")
                if self._stopping.wait(max(wait_s, exc.retry_after_s or 0)):
                    return None
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if told:
                self._say("parts are judged again.")
            return verdict
        raise AssertionError

    def _end(self) -> int | None:
        """Bytes of the results; None if there are none, or they cannot be written now."""
        if self._results is None or self._lack:  # lines come after those that wait
            return None
        try:
            return self._results.end()
        except StorageError as exc:
            self._wait_for_results(str(exc))
            return None

    def _finish(self, owed: Owed) -> None:
        """Send a part, write its results and move its file away; after a crash, only what is left to do."""
        self._report(owed.told)
        for delivery in self._deliveries:
            delivery.wake()
        self._write_and_put_away(owed)

    def _write_and_put_away(self, owed: Owed) -> bool:
        """Do this work; returns whether the results could be written."""
        if self._results is not None:
            at = owed.results_at
            if at is None and (at := self._end()) is not None:
                self._journal.begin(owed.id, at)
            if at is None:
                return False
            try:
                self._results.append(owed.told, at)
            except StorageError as exc:
                self._wait_for_results(str(exc))
                return False
        self._journal.done(owed.id, is_gone=self._put_away(owed))
        return True

    def _wait_for_results(self, problem: str) -> None:
        """Continue without the results: the journal has the pending lines."""
        self._next_try = time.monotonic() + _WRITE_AGAIN_S
        if not self._is_lack_told:
            self._say(f"{problem}. Parts are still judged: their lines are kept, and written as soon as possible.")
        self._lack, self._is_lack_told = problem, True

    def _catch_up(self) -> None:
        """Write the pending lines, in the order of the judgements, if this is possible now."""
        if not self._lack:
            return
        self._lack = ""
        while waiting := self._journal.owed(_AT_ONCE):
            for owed in waiting:
                if not self._write_and_put_away(owed):
                    return
        self._is_lack_told = False
        self._say("the results are written again, and none is missing.")

    def _put_away(self, owed: Owed) -> bool:
        """Move or copy the file of a part; returns whether it is no longer in the folder."""
        folder = self._places.by_verdict.get(owed.told["verdict"])
        if folder is None:
            return False
        source = self._places.folder / owed.arrival.path
        try:
            target = place(source, owed.arrival.identity, folder, owed.arrival.path, owed.id, copy=self._places.copy)
        except Changed:
            gone = identity_of(source) is None
            what = "is no longer there" if gone else "was written anew"
            self._say(f"{on_a_terminal(owed.arrival.path)} {what}: it was judged, and cannot be put away.")
            return True
        except OSError as exc:
            raise StorageError(f"{source} cannot be put into {folder} ({exc.strerror or exc})") from exc
        if target.name != source.name:
            self._say(f"{on_a_terminal(owed.arrival.path)}: the name is taken in {folder}: it is {target.name} there.")
        return not self._places.copy
