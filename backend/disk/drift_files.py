"""The statistics of production as files: a small one for each ROI, below a hidden folder, shared by all processes."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import structlog
from pydantic import ValidationError

from backend.common.errors import StorageError
from backend.common.files import delete, read_small, write_atomic
from backend.common.roi_key import RoiKey
from backend.disk.locking import writing
from backend.scores.drift_statistics import RoiDrift

FOLDER = ".drift"  # no id becomes a hidden folder
_FILES = "*/*.json"
# Each shard has a lock of its own: while a worker adds to all files one after the other, others seldom wait.
_SHARD_DIGITS = 1
_WHAT = "drift statistics"
_PATIENCE_S = 2.0  # with a lock that is held, where the work can wait for the next time
_MAX_FILES = 1000
_MAX_FILE_BYTES = 256 << 10  # more than N_STEPS occupied steps take

DriftChange = Callable[[RoiDrift | None], RoiDrift | Literal["keep"] | None]
"""From what is known of a ROI, None if that is nothing, to what shall be; ``"keep"`` leaves it, None deletes it."""

log: Any = structlog.get_logger(__name__)


class DriftFiles:
    """The files below one models folder.

    Args:
        root: the models folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._grew = False

    def path(self, key: RoiKey) -> Path:
        """The file of a ROI."""
        digest = hashlib.sha256(json.dumps(asdict(key), sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:_SHARD_DIGITS] / f"{digest[:32]}.json"

    def paths(self) -> Iterator[Path]:
        """All files that there are."""
        return self._folder.glob(_FILES)

    def read(self, path: Path) -> RoiDrift | None:
        """The contents of a file; None if there is none, or if it cannot be used: then the ROI starts again."""
        return _read(path)

    def update(self, path: Path, change: DriftChange, *, is_patient: bool = True, is_durable: bool = True) -> None:
        """Replace a file by the result of a change; nobody else changes it meanwhile.

        Args:
            path: of the ROI, see `path`.
            change: called with the current contents; may raise.
            is_patient: False gives up soon if somebody else holds the lock of the file.
            is_durable: False does not wait for the disk.

        Raises:
            StorageError: see `locking.writing`.
        """
        with writing(path.parent, _WHAT, *(() if is_patient else (_PATIENCE_S,))):
            changed = change(_read(path))
            if changed is None:
                delete(path)
            elif changed != "keep":
                self._grew |= not path.exists()
                write_atomic({path: changed.model_dump_json(exclude_none=True).encode()}, durable=is_durable)

    def forget(self, path: Path, change: DriftChange) -> None:
        """As `update`, if anything is counted at all; if this fails, nothing happens."""
        with contextlib.suppress(OSError, StorageError):
            if path.parent.exists():
                self.update(path, change)

    def prune(self) -> None:
        """Keep only the files of the ROIs that were inspected or calibrated last; the caller holds no lock."""
        if not self._grew:
            return
        self._grew = False
        files = list(self.paths())
        if len(files) <= _MAX_FILES:
            return
        dated = sorted((_written_at(path), path) for path in files)
        for written_at, path in dated[: len(files) - _MAX_FILES]:
            # Where it cannot be deleted, the next new file tries again.
            with contextlib.suppress(StorageError), writing(path.parent, _WHAT, _PATIENCE_S):
                if _written_at(path) == written_at:  # and not written meanwhile
                    delete(path)


def _read(path: Path) -> RoiDrift | None:
    try:
        return RoiDrift.model_validate_json(read_small(path, _MAX_FILE_BYTES))
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        log.warning("drift.not_read", reason=f"{exc.error_count()} values cannot be used", hint="begins anew")
    except (OSError, ValueError) as exc:
        log.warning("drift.not_read", reason=str(exc), hint="begins anew")
    return None


def _written_at(path: Path) -> int:
    """The time when a file was written, in nanoseconds; 0 if unknown."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
