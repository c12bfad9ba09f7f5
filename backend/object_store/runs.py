"""Long work of all replicas, and its cancellation: an object for each run, which its replica keeps writing.

A run and the request that cancels it agree by its object. The first of them swaps its state: ``open`` becomes
``cancelled`` or ``storing``. An object that was not written for a minute belongs to a killed replica.
"""

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import structlog

from backend.common.errors import RunCancelled, RunStoring, StoreUnavailable
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress
from backend.disk.progress import Run, not_found, record_of, shown
from backend.object_store.bucket import Bucket, SwapRefused

RUNS = "runs/"
_BEAT_S = 10.0
_SHOW_S = 2.0
_DEAD_AFTER = timedelta(seconds=60)
_CLOCK_EVERY_S = 600.0
_ID = re.compile("[0-9a-f]{32}")

log: Any = structlog.get_logger(__name__)


class ObjectRun(Run):
    """One piece of long work, in an object.

    Args:
        bucket: the place of the object.
        record, on_progress: as for `Run`.
    """

    def __init__(self, bucket: Bucket, record: dict[str, Any], on_progress: OnProgress | None) -> None:
        super().__init__(Path(), record, on_progress)
        self._bucket = bucket
        self._key = f"{RUNS}{record['run_id']}.json"
        self._etag: str | None = None
        self._state = "open"
        self._progress: dict[str, Any] = {}
        self._written = 0.0
        self._writing = threading.RLock()
        self._ended = threading.Event()

    def show(self, progress: dict[str, Any], *, first: bool = False) -> None:
        """As `Run.show`, every two seconds; a thread keeps the object alive if there is no report for a long time."""
        self._progress = progress
        if first:
            with self._writing:
                if not self._write():  # or it is, and the store did not say so
                    log.warning("run.not_shown", reason="the object store cannot be used now")
            threading.Thread(target=self._beat, name="run-beat", daemon=True).start()
        elif time.monotonic() - self._written >= _SHOW_S:
            with self._writing:
                self._write()

    def raise_if_cancelled(self) -> None:
        """As `Run.raise_if_cancelled`, with the state from the last time it was shown."""
        if self._may_be_cancelled and self._state == "cancelled":
            raise RunCancelled(self._how_far())

    def conclude(self) -> None:
        """As `Run.conclude`.

        Raises:
            StoreUnavailable: it is unknown whether it was cancelled.
        """
        with self._writing:
            if self._may_be_cancelled:
                self.raise_if_cancelled()
                self._state = "storing"
                if not self._write():
                    self._state = "open"
                    raise StoreUnavailable("the object store cannot be used now; nothing was stored: retry")
                self.raise_if_cancelled()
            self._may_be_cancelled = False

    def end(self) -> None:
        """As `Run.end`."""
        self._ended.set()
        with self._writing, contextlib.suppress(StoreUnavailable):  # it shows as killed in a minute
            self._bucket.delete([self._key])

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_S):
            with self._writing:
                if not self._ended.is_set() and time.monotonic() - self._written >= _BEAT_S / 2:
                    self._write()

    def _write(self) -> bool:
        """Write the object, or notice that the run was cancelled; False if the store does not answer."""
        self._written = time.monotonic()
        content = {**self._record, **self._progress, "n_errors": self.n_errors, "state": self._state}
        with contextlib.suppress(StoreUnavailable):
            for _ in range(3):
                with contextlib.suppress(SwapRefused):
                    encoded = json.dumps({**content, "beat": uuid.uuid4().hex}).encode()
                    self._etag = self._bucket.swap(self._key, encoded, self._etag)
                    return True
                there = self._bucket.get(self._key)
                self._etag = None if there is None else there.etag
                if there is not None and _parsed(there.content).get("state") == "cancelled":
                    self._state = "cancelled"
                    return True
        return False


class ObjectRunBoard:
    """The long work of all replicas; arguments, results and errors as for `RunBoard`, and `StoreUnavailable`.

    Args:
        bucket: the place of the objects.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._ahead = timedelta()
        self._asked_at = -_CLOCK_EVERY_S

    @contextlib.contextmanager
    def run(self, kind: str, key: RoiKey, n_images: int, on_progress: OnProgress | None = None) -> Iterator[Run]:
        """As `RunBoard.run`."""
        run = ObjectRun(self._bucket, record_of(kind, key, n_images), on_progress)
        with shown(run):
            yield run

    def cancel(self, run_id: str) -> dict[str, Any]:
        """As `RunBoard.cancel`."""
        key = f"{RUNS}{run_id}.json"
        for _ in range(10):
            found = self._bucket.get(key) if _ID.fullmatch(run_id) else None
            if found is None:
                raise not_found(run_id)
            record = _parsed(found.content)
            shown = _shown(record)
            if record.get("state") == "cancelled":
                return shown
            if record.get("state") == "storing":
                raise RunStoring(
                    f"the {shown['kind']} of role {shown['role_id']!r}, roi {shown['roi_id']!r} is storing its "
                    "result and can no longer be cancelled; /rollback undoes a fit or a calibration"
                )
            # Where it was not swapped, or the store did not say so, the next look tells.
            with contextlib.suppress(SwapRefused, StoreUnavailable):
                self._bucket.swap(key, json.dumps({**record, "state": "cancelled"}).encode(), found.etag)
                return shown
        raise StoreUnavailable("the object store does not say whether the run was cancelled; retry")

    def running(self) -> list[dict[str, Any]]:
        """As `RunBoard.running`."""
        found: list[tuple[str, dict[str, Any]]] = []
        for item in list(self._bucket.list(RUNS)):
            if self._now() - item.written_at > _DEAD_AFTER:
                self._bucket.delete([item.key])
                continue
            there = self._bucket.get(item.key)
            record = {} if there is None else _parsed(there.content)
            if "run_id" in record:
                found.append((str(record.get("started_at_utc")), _shown(record)))
        return [shown for _, shown in sorted(found, key=lambda run: run[0])]

    def _now(self) -> datetime:
        """The time by the clock of the store, whatever this machine's says."""
        if time.monotonic() - self._asked_at > _CLOCK_EVERY_S:
            self._ahead, self._asked_at = self._bucket.now() - datetime.now(timezone.utc), time.monotonic()
        return datetime.now(timezone.utc) + self._ahead


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in record.items() if name not in ("host", "pid", "process_started", "state", "beat")
    }
