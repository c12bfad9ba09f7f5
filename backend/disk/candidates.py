"""Where the model of a ROI may lie, in the order in which it is looked for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

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
