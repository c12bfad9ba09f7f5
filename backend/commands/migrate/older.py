"""The files of older backends in a models folder: their places, ROIs and contents. They are read, but never written."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from backend.common.errors import DamagedMemory, InvalidRequest, StorageError
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey, canonical_recipe
from backend.disk.layout import CALIBRATION_FILE, MEMORY_FILE, Layout, current_files, dataset_folder
from backend.disk.memory_file import check_sizes
from backend.disk.older_layouts import ids_of_stem, layout_of_recipe
from backend.disk.recipes import OLDER_RECIPE_FILE

_CALIBRATION_SUFFIX = "_calib.json"


@dataclass(frozen=True)
class Found:
    """A stored item of an older backend.

    Attributes:
        layout: its layout.
        path: the file, or the folder of a data set.
        recipe: the recipe it belongs to.
        name: its name if `key` is None.
        key: its ROI; None if its name does not state it, or states one that this service cannot store.
    """

    layout: Layout
    path: Path
    recipe: str
    name: str
    key: RoiKey | None = None


@dataclass(frozen=True)
class MemoryFacts:
    """What a memory bank is like.

    Attributes:
        n_patches, dim: shape of its embeddings.
        token_hw: token grid (rows, columns).
        is_current: written by this service.
    """

    n_patches: int
    dim: int
    token_hw: tuple[int, int]
    is_current: bool


@dataclass(frozen=True)
class OlderImage:
    """A file in a folder of images, and its metadata if there is a file of it."""

    path: Path
    metadata: Path | None


def memories(root: Path) -> list[Found]:
    """Memory banks in older layouts; those of L0 may be this service's own, see `read_memory`."""
    return _of_rois(root, MEMORY_FILE, ".npz")


def calibrations(root: Path) -> list[Found]:
    """Calibrations in older layouts; those of L0 may be this service's own, see `read_calibration`."""
    return _of_rois(root, CALIBRATION_FILE, _CALIBRATION_SUFFIX)


def datasets(root: Path) -> list[Found]:
    """Folders with images: first those without recipes."""
    found = [
        Found("L2", folder, DEFAULT_RECIPE, folder.name, _storable(RoiKey(folder.parent.name, folder.name)))
        for folder in sorted(root.glob("datasets/*/*"))
    ]
    for recipe_folder in _recipe_folders(root):
        for folder in sorted(recipe_folder.glob("datasets/*")):
            found.append(_of_recipe(recipe_folder, folder, folder.name, None))
    return [item for item in found if any((item.path / label).is_dir() for label in ("ok", "ng"))]


def recipes(root: Path) -> list[Found]:
    """Settings of recipes."""
    return [
        Found(layout_of_recipe(folder.name), file, canonical_recipe(folder.name) or folder.name, folder.name)
        for folder in _recipe_folders(root)
        if (file := folder / OLDER_RECIPE_FILE).is_file()
    ]


def images(folder: Path) -> list[OlderImage]:
    """Everything in a folder of images except their metadata, sorted; metadata without an image counts as a file.

    Raises:
        StorageError: the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StorageError(f"the folder {folder.name} cannot be read ({exc.strerror})") from exc
    metadata = {name for name in names if name.endswith(".json")}
    files = [name for name in names if name not in metadata]
    of_files = {name: (f"{name}.json", f"{PurePath(name).stem}.json") for name in files}
    orphans = metadata.difference(*of_files.values())
    found = []
    for name in sorted([*files, *orphans]):
        own = next((other for other in of_files.get(name, ()) if other in metadata), None)
        found.append(OlderImage(folder / name, None if own is None else folder / own))
    return found


def read_memory(path: Path) -> MemoryFacts:
    """What a memory bank is like.

    Raises:
        StorageError: it is damaged, cannot be read, or is too large for the free memory.
    """
    try:
        with path.open("rb") as file:
            check_sizes(file, path.name)
            with np.load(file, allow_pickle=False) as arrays:
                n_patches, dim = arrays["emb"].shape
                token_hw = (int(arrays["token_h"]), int(arrays["token_w"]))
                return MemoryFacts(n_patches, dim, token_hw, "version" in arrays)
    except StorageError as exc:
        raise StorageError("damaged" if isinstance(exc, DamagedMemory) else str(exc)) from exc
    except OSError as exc:
        raise StorageError(f"cannot be read ({exc.strerror})" if exc.strerror else "damaged") from exc
    except Exception as exc:  # numpy and zipfile raise whatever the bytes lead them to: zlib.error, KeyError, …
        raise StorageError("damaged") from exc


def read_calibration(content: bytes) -> dict[str, Any]:
    """The values of a calibration.

    Raises:
        StorageError: it is damaged.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise StorageError("damaged") from exc
    if not isinstance(values, dict):
        raise StorageError("damaged")
    return values


def is_current_calibration(values: dict[str, Any]) -> bool:
    """Whether this service wrote it."""
    return not values.keys().isdisjoint(("memory_id", "version"))


def _of_rois(root: Path, l0_name: str, suffix: str) -> list[Found]:
    found = []
    for file in _files(root.glob(f"*/*/{l0_name}")):
        role_id, roi_id = file.parts[-3:-1]
        if role_id != "@recipes":
            found.append(Found("L0", file, DEFAULT_RECIPE, roi_id, _storable(RoiKey(role_id, roi_id))))
    for file in _files(root.glob(f"*{suffix}")):
        stem = file.name.removesuffix(suffix)
        ids = ids_of_stem(stem)
        if ids is not None and "".join(ids).isprintable():  # else characters of L1 that happen to be base64
            found.append(Found("L2", file, DEFAULT_RECIPE, stem, _storable(RoiKey(*ids))))
        else:
            found.append(Found("L1", file, DEFAULT_RECIPE, stem))
    for folder in _recipe_folders(root):
        for file in _files(folder.glob(f"*/*{suffix}")):
            found.append(_of_recipe(folder, file, file.name.removesuffix(suffix), file.parent.name))
    return found


def _of_recipe(folder: Path, path: Path, stem: str, model_key: str | None) -> Found:
    layout, recipe_id, ids = layout_of_recipe(folder.name), canonical_recipe(folder.name), ids_of_stem(stem)
    if recipe_id is None or ids is None:
        return Found(layout, path, recipe_id or folder.name, stem)
    return Found(layout, path, recipe_id, stem, _storable(RoiKey(*ids, recipe_id, model_key)))


def _storable(key: RoiKey) -> RoiKey | None:
    try:
        current_files(Path(), key)
        dataset_folder(Path(), key)
    except (InvalidRequest, UnicodeEncodeError):  # too long, or a file name that is no text
        return None
    return key


def _recipe_folders(root: Path) -> list[Path]:
    """The folders of recipes; for the same recipe, the newest layout first, which has no capitals."""
    return sorted(
        (folder for folder in root.glob("recipes/*") if folder.is_dir()),
        key=lambda folder: (canonical_recipe(folder.name) != folder.name, folder.name),
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.is_file())
