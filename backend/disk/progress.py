"""The progress of long work of all processes, and its cancellation.

A run and the request that cancels it agree by a file. The first of them renames it: ``.open`` becomes ``.cancelled`` or
``.storing``. So a cancelled run stores nothing, and a storing run never counts as cancelled.
"""

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import structlog

from backend.common.error_text import quoted
from backend.common.errors import RunCancelled, RunNotFound, RunStoring, StorageError, StoreUnavailable
from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, replace
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress, current_request_id
from backend.utils import utc_now

_LOG_EVERY_S = 5.0
_SHOW_EVERY_S = 0.5
_FORGET_AFTER_S = 3600.0
_PRIVATE = ("host", "pid", "process_started")
_IDS = ("run_id", "role_id", "roi_id", "recipe_id", "model_key", "request_id")
_FOLDER = ".runs"  # no id becomes a hidden folder
_OPEN, _CANCELLED, _STORING = _STATES = (".open", ".cancelled", ".storing")

log: Any = structlog.get_logger(__name__)


class Run:
    """One piece of long work.

    Args:
        path: file that shows it to other processes.
        record: its description.
        on_progress: also called, with the step, its finished units and all its units.
    """

    def __init__(self, path: Path, record: dict[str, Any], on_progress: OnProgress | None) -> None:
        self._path = path
        self._record = record
        self._on_progress = on_progress
        self._step, self._step_since, self._step_began_with = "wait", time.monotonic(), 0
        self._done, self._total = 0, int(record["n_images"])
        self._logged = time.monotonic()
        self._shown = 0.0
        self._shows = True
        self._may_be_cancelled = True
        self.n_errors = 0

    def begin(self) -> None:
        """Show that the run waits; from now on, it can be cancelled."""
        self.show({"step": self._step, "done": self._done, "total": self._total}, first=True)

    def report(self, step: str, done: int, total: int) -> None:
        """Report the progress of a step: ``"extract"``, ``"coreset"``, ``"score"``.

        Raises:
            RunCancelled: see `raise_if_cancelled`.
        """
        if self._on_progress is not None:
            self._on_progress(step, done, total)
        now = time.monotonic()
        if step != self._step:
            self._step, self._step_since, self._step_began_with = step, now, done
        self._done, self._total = done, total
        progress = {"step": step, "done": done, "total": total}
        if done > self._step_began_with:  # what was done when the step was first told of took nobody knows how long
            progress["left_s"] = round((now - self._step_since) / (done - self._step_began_with) * (total - done))
        if now - self._logged >= _LOG_EVERY_S and 0 < done < total:
            self._logged = now
            whose = {name: self._record[name] for name in _IDS if name in self._record}
            log.info(f"{self._record['kind']}.progress", **whose, **progress)
        if now - self._shown >= _SHOW_EVERY_S:
            self._shown = now
            self.show(progress)
        self.raise_if_cancelled()

    def raise_if_cancelled(self) -> None:
        """End the work if somebody cancelled it.

        Raises:
            RunCancelled: somebody cancelled it; the message has its progress.
        """
        is_cancelled = False
        if self._may_be_cancelled:
            with contextlib.suppress(OSError):  # a disk that fails must not end the work
                is_cancelled = self._file(_CANCELLED).exists()
        if is_cancelled:
            raise RunCancelled(self._how_far())

    def conclude(self) -> None:
        """From now on, the run cannot be cancelled, so its result may be stored.

        Raises:
            RunCancelled: somebody cancelled it before.
        """
        try:
            if self._may_be_cancelled:
                replace(self._file(_OPEN), self._file(_STORING))
        except OSError:  # it was cancelled, or nobody can cancel it: its files were removed, or the disk is read-only
            self.raise_if_cancelled()
        self._may_be_cancelled = False

    def end(self) -> None:
        """Stop showing the run."""
        with contextlib.suppress(OSError):  # whoever lists sees that this process has ended, in the end
            _forget(self._path)

    def show(self, progress: dict[str, Any], *, first: bool = False) -> None:
        """Show the run to other processes; the first time, also allow them to cancel it."""
        if not self._shows:
            return
        content = {**self._record, **progress, "n_errors": self.n_errors}
        temporary = self._path.with_suffix(".part")
        try:
            if first:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            if first:  # a process that is killed now has left its record, by which both files are cleared
                self._file(_OPEN).touch()
            replace(temporary, self._path)
        except OSError as exc:  # a disk that is full or read-only must not end the work, nor be asked again
            self._shows = False
            log.warning("run.not_shown", reason=str(exc.strerror))

    def log_cancelled(self) -> None:
        """Log that the run was cancelled, with its progress."""
        whose = {name: self._record[name] for name in ("kind", *_IDS) if name in self._record}
        log.info("run.cancelled", **whose, step=self._step, done=self._done, total=self._total)

    def _how_far(self) -> str:
        return (
            f"the run was cancelled (POST /runs/cancel) at step {self._step}, {self._done} of {self._total}: no "
            "model or calibration was stored, and the earlier ones are unchanged"
        )

    def _file(self, state: str) -> Path:
        return self._path.with_suffix(state)


class RunBoard:
    """The long work of all processes that share a models folder.

    Args:
        root: the models folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / _FOLDER

    @contextlib.contextmanager
    def run(self, kind: str, key: RoiKey, n_images: int, on_progress: OnProgress | None = None) -> Iterator[Run]:
        """Show a piece of long work while it runs; until its first report, it counts as waiting.

        Args:
            kind: ``"fit"``, ``"calibrate_dataset"``, ``"infer_dataset"``.
            key: whose it is.
            n_images: number of its images.
            on_progress: see `Run`.

        Raises:
            RunCancelled: somebody cancelled it, see `cancel`; the exception also ends the work inside.
        """
        record = record_of(kind, key, n_images)
        run = Run(self._folder / f"{record['run_id']}.json", record, on_progress)
        with shown(run):
            yield run

    def cancel(self, run_id: str) -> dict[str, Any]:
        """Cancel a run of any process; it ends at its next report of progress, and stores nothing.

        Args:
            run_id: as in `running`.

        Returns:
            The run, as in `running`. A run that was cancelled before, but has not ended yet, is returned again.

        Raises:
            RunNotFound: it has ended, or never existed.
            RunStoring: it is storing its result.
            StorageError: the file that cancels it cannot be written.
        """
        found = next((run for run in self.running() if run_id and run.get("run_id") == run_id), None)
        if found is None:
            raise not_found(run_id)
        path = self._folder / f"{run_id}{_OPEN}"
        try:
            replace(path, path.with_suffix(_CANCELLED))
        except FileNotFoundError as exc:
            if path.with_suffix(_STORING).exists():
                raise RunStoring(
                    f"the {found['kind']} of role {found['role_id']!r}, roi {found['roi_id']!r} is storing its "
                    "result and can no longer be cancelled; /rollback undoes a fit or a calibration"
                ) from exc
            if not path.with_suffix(_CANCELLED).exists():
                raise not_found(run_id) from exc
        except OSError as exc:
            raise StorageError(f"the run cannot be cancelled ({exc.strerror}); check the models folder") from exc
        return found

    def running(self) -> list[dict[str, Any]]:
        """The running work, the oldest first; entries of killed processes are deleted."""
        found: list[tuple[str, dict[str, Any]]] = []
        for left in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                is_lone = left.suffix in _STATES and not left.with_suffix(".json").exists()
                if (is_lone or left.suffix == ".part") and _is_old(left):
                    left.unlink()
        for path in [*self._folder.glob("*.json"), *self._folder.glob("*.part")]:
            try:
                record = json.loads(read_small(path, MAX_JSON_FILE_BYTES))
                if _has_ended(record, path):
                    _forget(path)
                elif path.suffix == ".json":
                    shown = {name: value for name, value in record.items() if name not in _PRIVATE}
                    if shown.get("run_id") != path.stem:  # of an earlier version, which nobody can cancel
                        shown.pop("run_id", None)
                    found.append((str(record["started_at_utc"]), shown))
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                OverflowError,
                RecursionError,
            ):  # it ended just now, or is no file of ours
                continue
        return [shown for _, shown in sorted(found, key=lambda run: run[0])]


@contextlib.contextmanager
def shown(run: Run) -> Iterator[None]:
    """Show a piece of long work while it is done.

    Raises:
        RunCancelled: somebody cancelled it.
    """
    run.begin()
    try:
        yield
        with contextlib.suppress(StoreUnavailable):  # one that has not concluded before stores nothing
            run.conclude()
    except RunCancelled:
        run.log_cancelled()
        raise
    finally:
        run.end()


def record_of(kind: str, key: RoiKey, n_images: int) -> dict[str, Any]:
    """The description of a new run of this process; arguments as for `RunBoard.run`."""
    process = psutil.Process()
    record = {
        "run_id": uuid.uuid4().hex,
        "kind": kind,
        "role_id": key.role_id,
        "roi_id": key.roi_id,
        "recipe_id": key.recipe,
        "model_key": key.model,
        "request_id": current_request_id(),
        "started_at_utc": utc_now().isoformat(timespec="microseconds"),
        "host": socket.gethostname(),
        "pid": process.pid,
        "process_started": process.create_time(),
        "n_images": n_images,
    }
    return {name: value for name, value in record.items() if value is not None}


def not_found(run_id: str) -> RunNotFound:
    """The error about a run that is not under way."""
    return RunNotFound(f"run {quoted(run_id)} is not under way: it has ended, or never existed; /runs lists all runs")


def _forget(path: Path) -> None:
    """Delete the files of a run: ``.open`` before the name that it may get, and the record last."""
    for file in (*(path.with_suffix(state) for state in _STATES), path):
        delete(file)


def _has_ended(record: dict[str, Any], path: Path) -> bool:
    if record["host"] != socket.gethostname():  # on a shared volume: only that machine knows its processes
        return _is_old(path)
    try:
        return abs(psutil.Process(record["pid"]).create_time() - float(record["process_started"])) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:  # another user's process
        return _is_old(path)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _FORGET_AFTER_S
