"""The settings of a recipe: the scale of its images, which its first fit or upload decides."""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock

from backend.common.errors import ScaleLocked, StorageError
from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, replace, sync_folder, write_atomic
from backend.common.roi_key import canonical_recipe
from backend.disk.layout import recipe_folder
from backend.disk.locking import LOCK_FILE, writing
from backend.disk.name_clashes import refuse_clashes
from backend.disk.path_lengths import refuse_long_paths
from backend.utils import utc_now

RECIPE_FILE = "recipe.json"
_PENDING_FILE = f"{RECIPE_FILE}.pending"
OLDER_RECIPE_FILE = "recipe_meta.json"
_ASKING_S = 0.2
_SAME_SCALE = 1e-6  # clients print all digits; files of older backends went through other hands


class RecipeStore:
    """Settings of the recipes below one models folder. Several processes may share it.

    Requests without a recipe neither set nor need a scale: for them, pass None.

    Args:
        root: the models folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._at_work: dict[Path, tuple[int, int]] = {}

    def mm_per_px(self, recipe_id: str | None) -> float | None:
        """Millimetres per pixel that the recipe is locked to; None before its first fit or upload.

        Raises:
            StorageError: the stored settings are damaged or cannot be read.
        """
        if recipe_id is None:
            return None
        folder = recipe_folder(self._root, recipe_id)
        own = read_settings(folder / RECIPE_FILE) or self._left_pending(folder)
        if own:
            return float(own["mm_per_px"])
        for path in self._older_files(recipe_id):
            with contextlib.suppress(StorageError):  # theirs may lack the scale, and locks nothing then
                return float(read_settings(path)["mm_per_px"])
        return None

    def check(self, recipe_id: str | None, mm_per_px: float) -> None:
        """Refuse a scale other than that of the recipe.

        Raises:
            ScaleLocked: the recipe is locked to another one.
            StorageError: as `mm_per_px`.
        """
        locked = self.mm_per_px(recipe_id)
        if locked is not None and not same_scale(locked, mm_per_px):
            raise ScaleLocked(
                f"mm_per_px is {mm_per_px:g}, but recipe {recipe_id!r} is locked to mm_per_px {locked:g}, as in its "
                "first fit or upload: send that value, or use another recipe"
            )

    @contextlib.contextmanager
    def locking_scale(
        self, recipe_id: str | None, mm_per_px: float | None, stored: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Lock the recipe to a scale after the block has succeeded; nobody else sets the scale meanwhile.

        If a process dies in the block, it is unknown what it stored: its scale stays, so that a recipe never has models
        or images of two scales.

        Args:
            recipe_id: the recipe.
            mm_per_px: its scale; None sets nothing.
            stored: gives any value that changes with the stored files. If it has changed, the scale stays even after a
                failure: a disk may fail when everything is written. Without it, a failure means that nothing was
                stored.

        Raises:
            InvalidRequest: its path is too long, or the file system confuses the recipe with another one; nothing was
                done.
            ScaleLocked: it is locked to another scale; nothing was done.
            StorageError: the settings cannot be read or written.
        """
        if recipe_id is None or mm_per_px is None:
            yield
            return
        if self.mm_per_px(recipe_id) is not None:  # for good: what is done now needs no lock
            self.check(recipe_id, mm_per_px)  # only now: another may have locked it just before
            yield
            return
        folder = recipe_folder(self._root, recipe_id)
        refuse_long_paths(folder)
        refuse_clashes(self._root, folder)
        with writing(folder, "recipe"):
            refuse_clashes(self._root, folder)  # again: another may have made it
            _commit_pending(folder)
            self.check(recipe_id, mm_per_px)
            before = stored()
            # Written before, so that a full disk shows before anything is done, and renamed after.
            write_atomic({folder / _PENDING_FILE: settings_bytes(recipe_id, mm_per_px, utc_now().isoformat())})
            try:
                yield
            except BaseException:
                if stored() == before:
                    delete(folder / _PENDING_FILE)
                raise
            _commit_pending(folder)

    def adopt(self, recipe_id: str, mm_per_px: float, created_at_utc: str) -> None:
        """Lock the recipe to the scale of another backend.

        Raises:
            InvalidRequest: its path is too long, or the file system confuses the recipe with another one; nothing was
                done.
            ScaleLocked: it is locked to another scale; nothing was done.
            StorageError: the settings cannot be read or written.
        """
        folder = recipe_folder(self._root, recipe_id)
        refuse_long_paths(folder)
        refuse_clashes(self._root, folder)
        with writing(folder, "recipe"):
            refuse_clashes(self._root, folder)  # again: another may have made it
            _commit_pending(folder)
            self.check(recipe_id, mm_per_px)
            if not (folder / RECIPE_FILE).exists():
                write_atomic({folder / RECIPE_FILE: settings_bytes(recipe_id, mm_per_px, created_at_utc)})

    def has_settings(self, recipe_id: str) -> bool:
        """Whether the recipe has settings of this service, and not only those of an older backend."""
        return (recipe_folder(self._root, recipe_id) / RECIPE_FILE).exists()

    def _left_pending(self, folder: Path) -> dict[str, Any]:
        """The scale of a process that died before it could lock it; nothing if the process is still working."""
        try:
            if (folder / _PENDING_FILE).exists():
                stat = (folder / _PENDING_FILE).stat()
                written = stat.st_ino, stat.st_mtime_ns
                # Who holds the lock may as well be another who asks: then it is settled in a moment. If not, it is one
                # who writes for long, and not waited for again.
                timeout_s = 0 if self._at_work.get(folder) == written else _ASKING_S
                try:
                    with filelock.FileLock(folder / LOCK_FILE, timeout=timeout_s):
                        _commit_pending(folder)
                except filelock.Timeout:
                    self._at_work[folder] = written
        except OSError:  # where nothing can be written, nobody is at work
            if left := read_settings(folder / _PENDING_FILE):
                return left
        return read_settings(folder / RECIPE_FILE)  # which another who asked may have settled

    def _older_files(self, recipe_id: str) -> list[Path]:
        files = (self._root / "recipes").glob(f"*/{OLDER_RECIPE_FILE}")
        found = [file for file in files if canonical_recipe(file.parent.name) == recipe_id]
        return sorted(found, key=lambda file: (file.parent.name != recipe_id, file))  # the newest has no capitals


def same_scale(first: float, second: float) -> bool:
    """Whether two scales in millimetres per pixel are equal, except for rounding."""
    return math.isclose(first, second, rel_tol=_SAME_SCALE)


def read_settings(path: Path) -> dict[str, Any]:
    """The contents of a file of settings, by this service or an older backend; nothing if there is no file.

    Raises:
        StorageError: it cannot be read, or has no scale.
    """
    try:
        content = read_small(path, MAX_JSON_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise StorageError(f"the settings of the recipe cannot be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise _damaged(path.name) from exc
    return parse_settings(content, path.name)


def parse_settings(content: bytes, name: str) -> dict[str, Any]:
    """The contents of a file of settings.

    Args:
        content: its bytes.
        name: of the file, for messages.

    Raises:
        StorageError: it is damaged, or has no scale.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise _damaged(name) from exc
    scale = values.get("mm_per_px") if isinstance(values, dict) else None
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= sys.float_info.max:
        raise _damaged(name)
    return dict(values)


def _damaged(name: str) -> StorageError:
    return StorageError(f"the stored {name} of the recipe is damaged: restore or remove it")


def _commit_pending(folder: Path) -> None:
    """Commit the settings that were written before the block; the lock of the folder is held."""
    if (folder / _PENDING_FILE).exists():
        if (folder / RECIPE_FILE).exists():
            delete(folder / _PENDING_FILE)
        else:
            replace(folder / _PENDING_FILE, folder / RECIPE_FILE)
        sync_folder(folder)


def settings_bytes(recipe_id: str, mm_per_px: float, created_at_utc: str) -> bytes:
    """The file of the settings of a recipe."""
    settings = {"recipe_id": recipe_id, "mm_per_px": mm_per_px, "created_at_utc": created_at_utc}
    return json.dumps(settings, indent=2).encode()
