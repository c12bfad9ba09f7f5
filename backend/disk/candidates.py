"""The places where the model of a ROI may be stored, in the order of the search, and the model that the ROI uses."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote

from backend.common.errors import IncompatibleMemory
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey, roles
from backend.disk.layout import (
    CALIBRATION_FILE,
    MEMORY_FILE,
    MODELS_FOLDER,
    ModelFiles,
    current_files,
    folder_name,
    newest_first,
    recipe_folder,
)
from backend.disk.older_layouts import older_of_recipe, older_without_recipes


class _File(Protocol):
    """The contents of a file about its model; see `StoredMemory`."""

    @property
    def version(self) -> int | None: ...

    @property
    def owner(self) -> RoiKey | None: ...


_Found = TypeVar("_Found", bound=_File)


def find_model(root: Path, key: RoiKey, read: Callable[[Path], _Found | None]) -> tuple[ModelFiles, _Found] | None:
    """The model that a ROI uses, and its place; None if the ROI was never fitted.

    Args:
        root: the models folder.
        key: the ROI.
        read: reads the contents of a file; None if there is no file.

    Raises:
        InvalidRequest: see `folder_name`.
        IncompatibleMemory: it was fitted for another ROI.
    """
    of_no_version = None
    for files in candidates(root, key):
        found = read(files.memory)
        if found is None:
            continue
        if files.layout == "L0" and found.version is not None:  # this service's, of the id that its folder encodes
            continue
        if files.layout != "current":
            return files, found
        if found.version is None:  # not written by this service: the oldest layout, which all others go before
            of_no_version = of_no_version or (replace(files, layout="L0"), found)
            continue
        if (owner := found.owner) not in (None, files.key):
            raise IncompatibleMemory(
                f"refit needed: the memory found for {key} was fitted for {owner}; its folder was copied or "
                "renamed, or the ids differ only in upper and lower case"
            )
        return files, found
    return of_no_version


def candidates(root: Path, key: RoiKey, *, older: bool = True) -> Iterator[ModelFiles]:
    """Where the model of a ROI may lie, in the order in which it is looked for.

    The recipe's own comes before the default recipe's, and that before what knew no recipes; within each this service's
    before older ones, newest layout first.

    Args:
        root: the models folder.
        key: the ROI.
        older: False leaves out those of older backends.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    if key.recipe_id is None:
        default = replace(key, recipe_id=DEFAULT_RECIPE, model_key=None)
        yield current_files(root, key)
        yield from _other_model_keys(root, default)
        if older:
            yield from older_of_recipe(root, default)
    else:
        yield from _of_recipe(root, key, older)
        if key.recipe_id != DEFAULT_RECIPE:
            yield from _of_recipe(root, replace(key, recipe_id=DEFAULT_RECIPE), older)
        if key.model != key.roi_id:
            yield from (current_files(root, RoiKey(role_id, key.roi_id)) for role_id in roles(key))
    for role_id in roles(key) if older else ():
        yield from older_without_recipes(root, RoiKey(role_id, key.roi_id))


def _of_recipe(root: Path, key: RoiKey, older: bool) -> Iterator[ModelFiles]:
    under_each_role = [replace(key, role_id=role_id) for role_id in roles(key)]
    for own in under_each_role:
        yield current_files(root, own)
        if key.model_key is None:
            yield from _other_model_keys(root, own)
    for own in under_each_role if older else ():
        yield from older_of_recipe(root, own)


def _other_model_keys(root: Path, key: RoiKey) -> Iterator[ModelFiles]:
    """Models of the ROI under other model keys, newest first: some clients name the key when they fit, and then not."""
    folder = recipe_folder(root, key.recipe) / MODELS_FOLDER / folder_name(key.role_id) / folder_name(key.roi_id)
    for memory in newest_first(folder.glob(f"*/{MEMORY_FILE}")):
        owner = replace(key, model_key=unquote(memory.parent.name)).owner
        yield ModelFiles("current", owner, memory, memory.with_name(CALIBRATION_FILE))
