"""The places of everything below the models folder: only names of folders and files.

::

    <role>/<roi>/                                       models of the default recipe
    @recipes/<recipe>/recipe.json                       what a recipe has settled
    @recipes/<recipe>/models/<role>/<roi>/<model_key>/  models of the other recipes
    @recipes/<recipe>/datasets/<role>/<roi>/{ok,ng}/    stored images
    @recipes/<recipe>/layout/                           what a GUI keeps of the recipe

No id becomes a folder name that begins with ``@`` or a dot, so nothing collides with ``@recipes``, or with the files
beside a model (``.versions``, ``.lock``).
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from backend.common.errors import InvalidRequest
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey

MEMORY_FILE = "memory.npz"
INDEX_FILE = "index.faiss"
CALIBRATION_FILE = "calib.json"
HISTORY_FOLDER = "history"  # beside a model: calibrations that are not applied any more
RECIPES_FOLDER = "@recipes"
MODELS_FOLDER = "models"
DATASETS_FOLDER = "datasets"
_MAX_FOLDER_BYTES = 240  # file systems allow 255
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_HASHED_RECIPE = re.compile("[a-z0-9_]{1,80}@[0-9a-f]{32}")  # see `recipe_folder`

Layout = Literal["current", "L4", "L3", "L2", "L1", "L0"]


@dataclass(frozen=True)
class ModelFiles:
    """The place of a model, whether it exists or not.

    Attributes:
        layout: ``"current"``, or the older layout: ``"L0"`` … ``"L4"``.
        key: the ROI that it is stored under.
        memory, calibration: its files.
    """

    layout: Layout
    key: RoiKey
    memory: Path
    calibration: Path


def folder_name(identifier: str) -> str:
    """The folder of an id: reversible (`urllib.parse.unquote`), unique, safe on every file system.

    Letters, digits, ``-``, ``_``, ``.``, ``~`` and inner spaces stay unchanged; everything else is percent-encoded as
    UTF-8, including characters that would make a name hidden, relative, or a device on Windows.

    >>> folder_name("Master1"), folder_name("A B"), folder_name("../x"), folder_name("nul.txt")
    ('Master1', 'A B', '%2E.%2Fx', '%6Eul.txt')

    Raises:
        InvalidRequest: empty, or too long for a file name.
    """
    name = quote(identifier, safe=" ")
    if not name or len(name) > _MAX_FOLDER_BYTES:
        raise InvalidRequest(f"ids must not be empty, nor longer than {_MAX_FOLDER_BYTES} bytes encoded")
    if name[0] in ". " or _WINDOWS_DEVICES.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if name[-1] in ". ":
        name = f"{name[:-1]}%{ord(name[-1]):02X}"
    return name


def recipe_folder(root: Path, recipe_id: str) -> Path:
    """The folder of a recipe. Layout names may be longer than a file name: then a hash replaces their end."""
    encoded = quote(recipe_id, safe=" ")
    if len(encoded) > _MAX_FOLDER_BYTES:
        digest = hashlib.sha256(recipe_id.encode()).hexdigest()[:32]
        return root / RECIPES_FOLDER / f"{re.sub('[^a-z0-9]', '_', recipe_id)[:80]}@{digest}"
    return root / RECIPES_FOLDER / folder_name(recipe_id)


def dataset_folder(root: Path, key: RoiKey) -> Path:
    """Folder of a ROI's stored images.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    return recipe_folder(root, key.recipe) / DATASETS_FOLDER / folder_name(key.role_id) / folder_name(key.roi_id)


def current_files(root: Path, key: RoiKey) -> ModelFiles:
    """Where this service stores the model of a ROI.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    owner = key.owner
    folder = Path(folder_name(key.role_id), folder_name(key.roi_id))
    if owner.recipe_id is None:
        folder = root / folder
    else:
        folder = recipe_folder(root, owner.recipe_id) / MODELS_FOLDER / folder / folder_name(owner.model)
    return ModelFiles("current", owner, folder / MEMORY_FILE, folder / CALIBRATION_FILE)


def model_folders(root: Path, recipes: Sequence[Path], listed: Callable[[Path], Sequence[Path]]) -> Iterator[Path]:
    """Folders that may contain a model of this service, or its calibration.

    Args:
        root: the models folder.
        recipes: its `recipe_folders`.
        listed: gives the folders of ids in a folder, as `folders_of_ids` does.
    """
    for role in listed(root):
        yield from listed(role)
    for recipe in recipes:
        for role in listed(recipe / MODELS_FOLDER):
            for roi in listed(role):
                yield from listed(roi)


def dataset_folders(recipes: Sequence[Path], listed: Callable[[Path], Sequence[Path]]) -> Iterator[Path]:
    """Folders that may contain stored images of a ROI; arguments as for `model_folders`."""
    for recipe in recipes:
        for role in listed(recipe / DATASETS_FOLDER):
            yield from listed(role)


def is_hashed(recipe: Path) -> bool:
    """Whether the folder of a recipe does not state its name, because the name is too long."""
    return _HASHED_RECIPE.fullmatch(recipe.name) is not None


def calibrations_in_recipes(root: Path, key: RoiKey) -> list[Path]:
    """The places of the recipes' own calibrations for a model of the default recipe.

    Raises:
        OSError: a folder cannot be read.
    """
    folder = Path(MODELS_FOLDER, folder_name(key.role_id), folder_name(key.roi_id), folder_name(key.model))
    recipes = [recipe for recipe in recipe_folders(root) if recipe.name != DEFAULT_RECIPE]
    return [recipe / folder / CALIBRATION_FILE for recipe in recipes]


def key_of(root: Path, calibration: Path) -> RoiKey:
    """The ROI of a calibration of this service.

    The name of a recipe is unknown if it is too long for a folder.
    """
    ids = [unquote(part) for part in calibration.relative_to(root).parts[:-1]]
    if ids[0] != RECIPES_FOLDER:
        return RoiKey(*ids)
    _, recipe, _, role, roi, model = ids
    return RoiKey(role, roi, recipe, model)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return Path(entry).is_dir() if entry.is_symlink() else entry.is_dir()  # a link to itself is none


def recipe_folders(root: Path) -> list[Path]:
    """The folders of recipes.

    Raises:
        OSError: the folder that they are in cannot be read.
    """
    folders = _folders(root / RECIPES_FOLDER)
    return [path for path in folders if _is_folder_name(path.name) or _HASHED_RECIPE.fullmatch(path.name)]


def folders_of_ids(folder: Path) -> list[Path]:
    """Folders whose names are those of ids, without folders of the file system, such as ``lost+found``.

    Raises:
        OSError: the folder cannot be read.
    """
    return [path for path in _folders(folder) if _is_folder_name(path.name)]


def _is_folder_name(name: str) -> bool:
    try:
        return folder_name(unquote(name)) == name
    except (InvalidRequest, UnicodeEncodeError):  # too long, or no text
        return False


def newest_first(files: Iterable[Path]) -> list[Path]:
    """The files that still exist, the newest first."""
    dated = []
    for file in files:
        try:
            dated.append((file.stat().st_mtime_ns, file))
        except OSError:  # deleted since
            continue
    return [file for _, file in sorted(dated, reverse=True)]


def checkpoint_folder(root: Path, key: RoiKey) -> Path:
    """The folder for the embeddings of a running fit, below the models folder: hidden, so that no id maps to it."""
    digest = hashlib.sha256(repr(key).encode("utf-8", "surrogateescape")).hexdigest()
    return root / f".fit-{digest[:16]}"
