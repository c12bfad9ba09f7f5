"""Every ROI with stored files below the models folder: only names; no file of a model is opened."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from backend.common.files import MAX_JSON_FILE_BYTES, read_small
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey, canonical_recipe
from backend.disk.layout import (
    CALIBRATION_FILE,
    MEMORY_FILE,
    dataset_folders,
    folders_of_ids,
    is_hashed,
    model_folders,
    recipe_folders,
)
from backend.disk.older_layouts import ids_of_stem
from backend.disk.recipes import RECIPE_FILE

NAME_FILE = "name.json"
"""In the folder of a recipe that does not say its name: ``{"recipe_id": …}``."""


@dataclass(frozen=True)
class KnownRois:
    """The ROIs and recipes below a models folder.

    Attributes:
        rois: sorted by recipe, role, roi and model key.
        recipes: sorted; the default recipe is always there.
        problems: what could not be listed, and why, in words.
    """

    rois: list[RoiKey]
    recipes: list[str]
    problems: list[str]


def known_rois(root: Path) -> KnownRois:
    """List the ROIs that have a model, a calibration or stored images.

    A ROI whose images are used with a model of another key is listed under that key alone.

    Args:
        root: the models folder; it may be missing.
    """
    problems: list[str] = []

    def listed(folder: Path) -> list[Path]:
        try:
            return folders_of_ids(folder)
        except OSError as exc:
            problems.append(_unreadable(folder, exc))
            return []

    try:
        recipes = recipe_folders(root)
    except OSError as exc:
        problems.append(f"the folder of the recipes cannot be read ({exc.strerror})")
        recipes = []
    names = {folder.name: _name_of(folder) for folder in recipes}
    folders = [folder for folder in model_folders(root, recipes, listed) if _has_model(folder, problems)]
    with_models = {key for folder in folders if (key := _key_of_model(root, folder, names))}
    with_images = {key for folder in dataset_folders(recipes, listed) if (key := _key_of_images(root, folder, names))}
    n_nameless = sum(name is None for name in names.values())
    if n_nameless:
        problems.append(f"{_counted(n_nameless, 'recipe')} with a long name cannot be named: the name was not stored")
    older, n_ambiguous = _older(root)
    if n_ambiguous:
        problems.append(
            f"{_counted(n_ambiguous, 'model')} of an older backend cannot be named: the file does not say the role"
        )
    models = {key.owner for key in (*with_models, *older)}
    covered = {(key.role_id, key.roi_id, key.recipe) for key in models}
    rois = models | {key.owner for key in with_images if (key.role_id, key.roi_id, key.recipe) not in covered}
    recipe_ids = {DEFAULT_RECIPE, *(name for name in names.values() if name), *(key.recipe for key in rois)}
    ordered = sorted(rois, key=lambda key: (key.recipe, key.role_id, key.roi_id, key.model))
    return KnownRois(ordered, sorted(recipe_ids), problems)


def _has_model(folder: Path, problems: list[str]) -> bool:
    try:
        return any((folder / name).exists() for name in (MEMORY_FILE, CALIBRATION_FILE))
    except OSError as exc:
        problems.append(_unreadable(folder, exc))
        return False


def _unreadable(folder: Path, exc: OSError) -> str:
    return f"the folder {folder.name!r} cannot be read ({exc.strerror})"


def _key_of_model(root: Path, folder: Path, names: dict[str, str | None]) -> RoiKey | None:
    parts = folder.relative_to(root).parts
    if len(parts) == 2:
        return RoiKey(*map(unquote, parts))
    recipe = names.get(parts[1])
    role_id, roi_id, model_key = map(unquote, parts[3:])
    return RoiKey(role_id, roi_id, recipe, model_key) if recipe else None


def _key_of_images(root: Path, folder: Path, names: dict[str, str | None]) -> RoiKey | None:
    _, recipe_folder, _, role, roi = folder.relative_to(root).parts
    recipe = names.get(recipe_folder)
    return RoiKey(unquote(role), unquote(roi), recipe) if recipe else None


def _name_of(recipe: Path) -> str | None:
    """The name of a recipe; None if neither its folder nor a file in it states the name."""
    if not is_hashed(recipe):
        return unquote(recipe.name)
    for file in (RECIPE_FILE, NAME_FILE):
        try:
            name = json.loads(read_small(recipe / file, MAX_JSON_FILE_BYTES))["recipe_id"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue  # not there, or damaged: the other may say it
        if isinstance(name, str) and name:
            return name
    return None


def _older(root: Path) -> tuple[set[RoiKey], int]:
    """ROIs with a model of an older backend, and the number of these models that do not state their ROI."""
    found, n_ambiguous = set(), 0
    for memory in _files(root, "*.npz"):
        ids = ids_of_stem(memory.stem)
        n_ambiguous += ids is None
        if ids:
            found.add(RoiKey(*ids))
    for memory in _files(root, "recipes/*/*/*.npz"):
        ids, recipe = ids_of_stem(memory.stem), canonical_recipe(memory.parts[-3])
        n_ambiguous += ids is None or recipe is None
        if ids and recipe:
            found.add(RoiKey(*ids, recipe, memory.parent.name))
    return found, n_ambiguous


def _files(root: Path, pattern: str) -> Iterator[Path]:
    return (path for path in root.glob(pattern) if path.is_file())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
