"""Long work and how far it is: in the log, and for everybody who asks, whichever process does it."""

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

from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, replace
from backend.common.roi_key import RoiKey
from backend.common.telemetry import OnProgress, current_request_id
from backend.utils import utc_now

_LOG_EVERY_S = 5.0
_SHOW_EVERY_S = 0.5
_FORGET_AFTER_S = 3600.0
_PRIVATE = ("host", "pid", "process_started")
_IDS = ("role_id", "roi_id", "recipe_id", "model_key", "request_id")
_FOLDER = ".runs"  # no id becomes a hidden folder

log: Any = structlog.get_logger(__name__)


class Run:
    """One piece of long work.

    Args:
        path: file that shows it to other processes.
        record: what it is.
        on_progress: also told; called with the step, how much of it is done, and of how much.
    """

    def __init__(self, path: Path, record: dict[str, Any], on_progress: OnProgress | None) -> None:
        self._path = path
        self._record = record
        self._on_progress = on_progress
        self._step, self._step_since = "", time.monotonic()
        self._logged = time.monotonic()
        self._shown = 0.0
        self._shows = True
        self.n_errors = 0

    def report(self, step: str, done: int, total: int) -> None:
        """Tell how far a step is: ``"extract"``, ``"coreset"``, ``"score"``."""
        if self._on_progress is not None:
            self._on_progress(step, done, total)
        now = time.monotonic()
        if step != self._step:
            self._step, self._step_since = step, now
        progress = {"step": step, "done": done, "total": total}
        if done:
            progress["left_s"] = round((now - self._step_since) / done * (total - done))
        if now - self._logged >= _LOG_EVERY_S and 0 < done < total:
            self._logged = now
            whose = {name: self._record[name] for name in _IDS if name in self._record}
            log.info(f"{self._record['kind']}.progress", **whose, **progress)
        if now - self._shown >= _SHOW_EVERY_S:
            self._shown = now
            self.show(progress)

    def show(self, progress: dict[str, Any]) -> None:
        """Let other processes see it."""
        if not self._shows:
            return
        content = {**self._record, **progress, "n_errors": self.n_errors}
        temporary = self._path.with_suffix(".part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(content), encoding="utf-8")
            replace(temporary, self._path)
        except OSError as exc:  # a disk that is full or read-only must not end the work, nor be asked again
            self._shows = False
            log.warning("run.not_shown", reason=str(exc.strerror))


class RunBoard:
    """The long work of all processes that share a models folder.

    Args:
        root: the models folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / _FOLDER

    @contextlib.contextmanager
    def run(self, kind: str, key: RoiKey, n_images: int, on_progress: OnProgress | None = None) -> Iterator[Run]:
        """Show a piece of long work for as long as it takes; until it reports, it waits.

        Args:
            kind: ``"fit"``, ``"calibrate_dataset"``, ``"infer_dataset"``.
            key: whose it is.
            n_images: how many images it is about.
            on_progress: see `Run`.
        """
        process = psutil.Process()
        record = {
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
        path = self._folder / f"{uuid.uuid4().hex}.json"
        run = Run(path, {name: value for name, value in record.items() if value is not None}, on_progress)
        run.show({"step": "wait", "done": 0, "total": n_images})
        try:
            yield run
        finally:
            with contextlib.suppress(OSError):  # whoever lists sees that this process has ended, in the end
                delete(path)

    def running(self) -> list[dict[str, Any]]:
        """What is under way, the oldest first; what a killed process left is cleared."""
        found: list[tuple[str, dict[str, Any]]] = []
        for torn in self._folder.glob("*.part"):
            with contextlib.suppress(OSError):
                if _is_old(torn):
                    torn.unlink()
        for path in [*self._folder.glob("*.json"), *self._folder.glob("*.part")]:
            try:
                record = json.loads(read_small(path, MAX_JSON_FILE_BYTES))
                if _has_ended(record, path):
                    path.unlink(missing_ok=True)
                elif path.suffix == ".json":
                    shown = {name: value for name, value in record.items() if name not in _PRIVATE}
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
