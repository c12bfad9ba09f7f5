"""Common parts of the long runs: clients that check every reply against the history, their counts and latencies."""

import itertools
import random
import statistics
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import httpx

from harness.forms import Form
from harness.history import Answer, History, Lost, Refused, StoreFailed
from harness.measuring import p95
from harness.server import Server
from harness.versions import MM_PER_PX, Version, Versions

_BUSY = httpx.codes.SERVICE_UNAVAILABLE
_SHOWN = 20  # broken promises that are told in full
_THRESHOLDS = itertools.count(1)
_STORE_FAILS = 5  # in a row

Result = TypeVar("Result")


@dataclass(frozen=True)
class Roi:
    """A ROI under load, its ids as form fields, and what happened to it."""

    ids: dict[str, str]
    history: History = field(default_factory=History)

    @property
    def name(self) -> str:
        """Its ids in short."""
        return "/".join(self.ids.values())


class Tally:
    """Counts and latencies of all clients, and every promise that was broken."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.latencies: dict[str, deque[tuple[float, float]]] = {}
        self.broken: list[str] = []
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """One more of these."""
        with self._lock:
            self.counts[what] += 1

    def took(self, what: str, start: float, end: float) -> None:
        """A request that was answered."""
        with self._lock:
            self.counts[what] += 1
            self.latencies.setdefault(what, deque(maxlen=100_000)).append((end, end - start))

    def breaks(self, what: str) -> None:
        """A promise was broken."""
        with self._lock:
            self.broken.append(what)

    def milliseconds(self, what: str, since: float = 0.0) -> list[float]:
        """Latencies of the requests of a kind that ended after `since`, on the clock of `time.monotonic`."""
        with self._lock:
            return [1000 * took for end, took in self.latencies.get(what, ()) if end >= since]

    def rows(self, kinds: Iterable[str]) -> list[list[object]]:
        """Count, median and 95th percentile in milliseconds for each kind of request."""
        rows: list[list[object]] = []
        for kind in kinds:
            times = self.milliseconds(kind)
            spread = [f"{statistics.median(times):.0f}", f"{p95(times):.0f}"] if times else ["–", "–"]
            rows.append([kind, self.counts[kind], *spread])
        return rows

    def exit_code(self) -> int:
        """Tell what was broken: 1 if anything was."""
        for text in self.broken[:_SHOWN]:
            print(f"BROKEN: {text}")
        if len(self.broken) > _SHOWN:
            print(f"… and {len(self.broken) - _SHOWN} more")
        return int(bool(self.broken))


class Client:
    """One client with a connection of its own.

    Args:
        server: the service.
        versions: what it may fit.
        tally: where it counts.
    """

    def __init__(self, server: Server, versions: Versions, tally: Tally) -> None:
        self._versions = versions
        self._tally = tally
        self._http = server.client()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def fit(self, roi: Roi, version: Version) -> None:
        """Fit the ROI anew.

        Raises:
            Refused, Lost: see there.
        """
        form = version.fit_form(**roi.ids)
        with roi.history.fitting(version):
            self._ask("fit", roi, lambda: form.post(self._http, "/fit_ok"), {_BUSY})

    def calibrate(self, roi: Roi) -> float:
        """Calibrate the ROI with a threshold that no other calibration has.

        Raises:
            Refused, Lost: see there.
        """
        threshold = round(0.2 + 1e-6 * next(_THRESHOLDS), 6)
        body = {**roi.ids, "mm_per_px": float(MM_PER_PX), "ok_scores": [threshold]}
        refusals = {_BUSY, httpx.codes.CONFLICT}  # fitted anew at the same time
        with roi.history.calibrating(threshold):
            self._ask("calibrate", roi, lambda: self._http.post("/calibrate_ng", json=body), refusals)
        return threshold

    def infer(self, roi: Roi) -> Answer:
        """Infer the probe image, and hold the reply against the history.

        Raises:
            Refused, Lost: see there.
        """
        form = Form.of("image", [self._versions.probe], mm_per_px=MM_PER_PX, **roi.ids)
        start = time.monotonic()
        reply = self._ask("infer", roi, lambda: form.post(self._http, "/infer"), {_BUSY})
        end = time.monotonic()
        values = reply.json()
        answer = Answer(self._versions.of_score(values["score"]), values["calibration"], values.get("threshold"))
        contradiction = roi.history.contradiction(answer, start, end)
        if contradiction is not None:
            self._tally.breaks(f"/infer of {roi.name}: {contradiction}")
        return answer

    def upload(self, roi: Roi, images: Sequence[bytes]) -> list[str]:
        """Store images of the ROI; the names they got.

        Raises:
            Refused, Lost: see there.
        """
        form = Form.of("images", images, **roi.ids)
        files: list[str] = self._ask(
            "upload", roi, lambda: form.post(self._http, "/datasets/ok/upload"), {_BUSY}
        ).json()["files"]
        return files

    def _ask(self, kind: str, roi: Roi, send: Callable[[], httpx.Response], refusals: Container[int]) -> httpx.Response:
        start = time.monotonic()
        try:
            reply = send()
        except httpx.TransportError as exc:
            self._tally.count(f"{kind} without a reply")
            raise Lost from exc
        if reply.status_code == _BUSY and reply.json()["code"] == "store_unavailable":  # it may have been done
            self._tally.count(f"{kind} while the store failed")
            raise StoreFailed
        if reply.status_code in refusals:
            self._tally.count(f"{kind} refused")
            raise Refused
        if reply.status_code != httpx.codes.OK:
            self._tally.breaks(f"{kind} of {roi.name}: {reply.status_code} {reply.text[:400]}")
            raise Refused
        self._tally.took(kind, start, time.monotonic())
        return reply


def mix(client: Client, rois: Sequence[Roi], versions: Versions, chance: random.Random) -> None:
    """One request of a mixed load: of ten, one fit, one calibration, and inferences.

    Raises:
        Refused, Lost: see there.
    """
    roi = chance.choice(rois)
    kind = chance.random()
    if kind < 0.1:
        client.fit(roi, chance.choice(versions.every))
    elif kind < 0.2:
        client.calibrate(roi)
    else:
        client.infer(roi)


def prepare(client: Client, rois: Sequence[Roi], versions: Versions) -> None:
    """Fit and calibrate ROIs for the first time."""
    for roi in rois:
        insist(partial(client.fit, roi, versions.every[0]))
        insist(partial(client.calibrate, roi))


def insist(work: Callable[[], Result]) -> Result:
    """Do something again where the store fails, which is made to fail now and then."""
    for _ in range(_STORE_FAILS):
        with suppress(StoreFailed):
            return work()
    return work()
