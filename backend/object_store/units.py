"""Units: files that change together, and have one manifest.

========== ======================================== =====================================================
unit       is                                       has, below a models folder
========== ======================================== =====================================================
models     a ROI in a recipe, all model keys        ``<role>/<roi>/``, ``@recipes/<recipe>/models/<role>/<roi>/``
recipes    a recipe                                 ``@recipes/<recipe>/recipe.json``, ``…/layout/``
datasets   the stored images of a ROI in a recipe   ``@recipes/<recipe>/datasets/<role>/<roi>/``
drift      what was counted of a ROI                ``.drift/<shard>/<digest>.json``
history    judgements of a ROI                      ``.history/<digest>.sqlite``, ``.history/<digest>/``
========== ======================================== =====================================================
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from backend.common.errors import InvalidRequest
from backend.common.files import TEMPORARY_PREFIX
from backend.common.roi_key import DEFAULT_RECIPE, RoiKey
from backend.disk.drift_files import FOLDER as DRIFT_FOLDER
from backend.disk.gui_layouts import LAYOUT_FOLDER
from backend.disk.judgements import FOLDER as HISTORY_FOLDER
from backend.disk.judgements import SUFFIX as HISTORY_SUFFIX
from backend.disk.known_rois import NAME_FILE
from backend.disk.layout import (
    DATASETS_FOLDER,
    INDEX_FILE,
    MODELS_FOLDER,
    RECIPES_FOLDER,
    folder_name,
    recipe_folder,
)
from backend.disk.locking import LOCK_FILE
from backend.disk.recipes import RECIPE_FILE
from backend.disk.score_cache import PREFIX as SCORES_PREFIX

MANIFESTS = "manifests/"
PENDING_FOLDER = ".pending"
"""In the folder of a recipe: scales that somebody is about to store something with."""
_LOCAL_FILES = (LOCK_FILE, INDEX_FILE)
_LOCAL_PREFIXES = (TEMPORARY_PREFIX, SCORES_PREFIX)
_LONGEST_KEY = 900  # stores allow 1024 bytes, with the prefix
# What names of folders hold beside letters, digits, "-", "_" and ".": clients of stores would encode some of it.
_ESCAPES = {"=": "=3D", "%": "=25", " ": "=20", "~": "=7E", "@": "=40"}

Kind = Literal["models", "recipes", "datasets", "drift", "history"]
_KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, order=True)
class Unit:
    """Files that change together.

    Attributes:
        kind: their kind.
        names: recipe, role and roi, as names of folders; or their digest.
    """

    kind: Kind
    names: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key of its manifest.

        Raises:
            InvalidRequest: the ids are too long for the store.
        """
        key = f"{MANIFESTS}{self.kind}/{'/'.join(map(_escaped, self.names))}.json"
        if len(key) > _LONGEST_KEY:
            raise InvalidRequest(
                f"the ids make a key of {len(key)} bytes, but object stores accept at most {_LONGEST_KEY}"
            )
        return key

    def __str__(self) -> str:
        return f"{self.kind}/{'/'.join(self.names)}"


def model_unit(key: RoiKey) -> Unit:
    """The unit of all models of a ROI in a recipe.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    names = recipe_folder(Path(), key.recipe).name, folder_name(key.role_id), folder_name(key.roi_id)
    return Unit("models", names)


def dataset_unit(key: RoiKey) -> Unit:
    """The unit of the stored images of a ROI; raises as `model_unit`."""
    return Unit("datasets", model_unit(key).names)


def recipe_unit(recipe_id: str) -> Unit:
    """The unit of a recipe; raises as `model_unit`."""
    return Unit("recipes", (recipe_folder(Path(), recipe_id).name,))


def unit_of(path: str) -> Unit | None:
    """The unit of a file, by its path below the models folder, with slashes; None if no unit has it."""
    parts = PurePosixPath(path).parts
    if path != "/".join(parts) or ".." in parts or path.startswith("/"):
        return None
    return _of_recipe(parts) if parts[0] == RECIPES_FOLDER else _of_root(parts)


def _of_recipe(parts: tuple[str, ...]) -> Unit | None:
    _, recipe, *inner = (*parts, "", "")
    is_setting = len(parts) == 3 and inner[0] in (RECIPE_FILE, NAME_FILE)
    if is_setting or (len(parts) >= 4 and inner[0] in (LAYOUT_FOLDER, PENDING_FOLDER)):
        return Unit("recipes", (recipe,))
    if len(parts) >= 7 and inner[0] == MODELS_FOLDER:
        return Unit("models", (recipe, *parts[3:5]))
    if len(parts) >= 7 and inner[0] == DATASETS_FOLDER:
        return Unit("datasets", (recipe, *parts[3:5]))
    return None


def _of_root(parts: tuple[str, ...]) -> Unit | None:
    if parts[0] == DRIFT_FOLDER and len(parts) == 3:
        return Unit("drift", (PurePosixPath(parts[2]).stem,))
    if parts[0] == HISTORY_FOLDER and len(parts) in (2, 3):
        digest = parts[1].removesuffix(HISTORY_SUFFIX)
        return Unit("history", (digest,)) if (digest != parts[1]) == (len(parts) == 2) else None
    if len(parts) >= 3 and not parts[0].startswith((".", "@")):
        return Unit("models", (DEFAULT_RECIPE, *parts[:2]))
    return None


def is_stored(path: str) -> bool:
    """Whether a file belongs in the store: not locks, indexes, caches or unfinished files."""
    return not any(part in _LOCAL_FILES or part.startswith(_LOCAL_PREFIXES) for part in PurePosixPath(path).parts)


def unit_of_key(key: str) -> Unit | None:
    """The unit of the key of a manifest; None for other keys."""
    for kind in _KINDS:
        prefix = f"{MANIFESTS}{kind}/"
        if key.startswith(prefix) and key.endswith(".json"):
            unit = Unit(kind, tuple(map(_unescaped, key.removeprefix(prefix).removesuffix(".json").split("/"))))
            return unit if unit.key == key else None
    return None


def _escaped(name: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in name)


def _unescaped(name: str) -> str:
    for character, escape in reversed(_ESCAPES.items()):
        name = name.replace(escape, character)
    return name
