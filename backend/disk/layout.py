"""Where everything lies below the models folder: this service's layout, and those of older backends. Names only.

::

    <role>/<roi>/                                       models of the default recipe
    @recipes/<recipe>/recipe.json                       what a recipe has settled
    @recipes/<recipe>/models/<role>/<roi>/<model_key>/  models of the other recipes
    @recipes/<recipe>/datasets/<role>/<roi>/{ok,ng}/    stored images

No id becomes a folder name that begins with ``@`` or a dot, so nothing collides with ``@recipes``, nor with what lies
beside a model (``.versions``, ``.lock``).
"""

import base64
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from backend.common.errors import InvalidRequest, ReservedRecipe

DEFAULT_RECIPE = "default"
MEMORY_FILE = "memory.npz"
INDEX_FILE = "index.faiss"
CALIBRATION_FILE = "calib.json"
HISTORY_FOLDER = "history"  # beside a model: calibrations that are not applied any more
INSPECTION_ROLE = "Inspection"
MAX_RECIPE_CHARACTERS = 1000
_RECIPES = "@recipes"
_MODELS = "models"
_RESERVED_RECIPE = "last"
_MAX_FOLDER_BYTES = 240  # file systems allow 255
_WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)
_NEWEST_RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HASHED_RECIPE = re.compile("[a-z0-9_]{1,80}@[0-9a-f]{32}")  # see `recipe_folder`

Layout = Literal["current", "L4", "L3", "L2", "L1", "L0"]


@dataclass(frozen=True)
class RoiKey:
    """Names one ROI, with role, roi and model key exactly as the client sends them.

    Attributes:
        role_id, roi_id: the ROI.
        recipe_id: as `canonical_recipe` gives it; None where the client named none, which is the default recipe.
        model_key: which model of the ROI; None is the ROI's own, named by `roi_id`. Of no effect without a recipe.
    """

    role_id: str
    roi_id: str
    recipe_id: str | None = None
    model_key: str | None = None

    @property
    def recipe(self) -> str:
        """The recipe that is meant."""
        return DEFAULT_RECIPE if self.recipe_id is None else self.recipe_id

    @property
    def model(self) -> str:
        """The model key that is meant."""
        return self.roi_id if self.recipe_id is None or self.model_key is None else self.model_key

    @property
    def owner(self) -> "RoiKey":
        """The one among the keys that mean the same model."""
        if self.recipe == DEFAULT_RECIPE and self.model == self.roi_id:
            return RoiKey(self.role_id, self.roi_id)
        return replace(self, model_key=self.model)

    def __str__(self) -> str:
        model = f", model_key {self.model!r}" if self.model != self.roi_id else ""
        recipe = "" if self.recipe_id is None else f", recipe {self.recipe_id!r}"
        return f"role {self.role_id!r}, roi {self.roi_id!r}{model}{recipe}"


@dataclass(frozen=True)
class Place:
    """Where a model lies, or may lie.

    Attributes:
        layout: ``"current"``, or the older layout it is: ``"L0"`` … ``"L4"``.
        key: the ROI that it is stored under.
        memory, calibration: its files.
    """

    layout: Layout
    key: RoiKey
    memory: Path
    calibration: Path


def canonical_recipe(text: str) -> str | None:
    """The recipe that a client's layout name means: without outer blanks, in lower case.

    >>> canonical_recipe(" My Layout 1"), canonical_recipe("DEFAULT"), canonical_recipe(" ")
    ('my layout 1', 'default', None)
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).strip() or None


def check_recipe(recipe_id: str | None) -> None:
    """Refuse a recipe that no client may name.

    Raises:
        ReservedRecipe: it is "last".
        InvalidRequest: its name is too long.
    """
    if recipe_id is not None and len(recipe_id) > MAX_RECIPE_CHARACTERS:
        raise InvalidRequest(f"recipe_id: at most {MAX_RECIPE_CHARACTERS} characters are accepted")
    if recipe_id == _RESERVED_RECIPE:
        raise ReservedRecipe(f"recipe {_RESERVED_RECIPE!r} is reserved: save the layout under a name of its own")


def folder_name(identifier: str) -> str:
    """The folder of an id: reversible (`urllib.parse.unquote`), never colliding, safe on every file system.

    Letters, digits, ``-``, ``_``, ``.``, ``~`` and inner spaces stay as they are; everything else is percent-encoded as
    UTF-8, and so is what would make a name hidden, relative, or a device on Windows.

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
    """The folder of a recipe. Layout names may be longer than a file name: then a hash stands for their end."""
    encoded = quote(recipe_id, safe=" ")
    if len(encoded) > _MAX_FOLDER_BYTES:
        digest = hashlib.sha256(recipe_id.encode()).hexdigest()[:32]
        return root / _RECIPES / f"{re.sub('[^a-z0-9]', '_', recipe_id)[:80]}@{digest}"
    return root / _RECIPES / folder_name(recipe_id)


def dataset_folder(root: Path, key: RoiKey) -> Path:
    """Folder of a ROI's stored images.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    return recipe_folder(root, key.recipe) / "datasets" / folder_name(key.role_id) / folder_name(key.roi_id)


def current_place(root: Path, key: RoiKey) -> Place:
    """Where this service stores the model of a ROI.

    Raises:
        InvalidRequest: see `folder_name`.
    """
    owner = key.owner
    folder = Path(folder_name(key.role_id), folder_name(key.roi_id))
    if owner.recipe_id is None:
        folder = root / folder
    else:
        folder = recipe_folder(root, owner.recipe_id) / _MODELS / folder / folder_name(owner.model)
    return Place("current", owner, folder / MEMORY_FILE, folder / CALIBRATION_FILE)


def calibrations(root: Path) -> Iterator[Path]:
    """Where calibrations of this service may lie: in every folder of a model.

    Raises:
        OSError: a folder cannot be read.
    """
    for role in _folders_of_ids(root):
        yield from (roi / CALIBRATION_FILE for roi in _folders_of_ids(role))
    for recipe in _recipe_folders(root):
        for role in _folders_of_ids(recipe / _MODELS):
            for roi in _folders_of_ids(role):
                yield from (model / CALIBRATION_FILE for model in _folders_of_ids(roi))


def calibrations_in_recipes(root: Path, key: RoiKey) -> list[Path]:
    """Where the recipes keep calibrations of their own for a model of the default recipe.

    Raises:
        OSError: a folder cannot be read.
    """
    folder = Path(_MODELS, folder_name(key.role_id), folder_name(key.roi_id), folder_name(key.model))
    recipes = [recipe for recipe in _recipe_folders(root) if recipe.name != DEFAULT_RECIPE]
    return [recipe / folder / CALIBRATION_FILE for recipe in recipes]


def key_of(root: Path, calibration: Path) -> RoiKey:
    """The ROI of a calibration of this service.

    The name of a recipe that is too long for a folder is not known.
    """
    ids = [unquote(part) for part in calibration.relative_to(root).parts[:-1]]
    if ids[0] != _RECIPES:
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


def _recipe_folders(root: Path) -> list[Path]:
    folders = _folders(root / _RECIPES)
    return [path for path in folders if _is_folder_name(path.name) or _HASHED_RECIPE.fullmatch(path.name)]


def _folders_of_ids(folder: Path) -> list[Path]:
    """Folders whose names are those of ids: not what a file system keeps beside them, such as ``lost+found``."""
    return [path for path in _folders(folder) if _is_folder_name(path.name)]


def _is_folder_name(name: str) -> bool:
    try:
        return folder_name(unquote(name)) == name
    except (InvalidRequest, UnicodeEncodeError):  # too long, or no text
        return False


def places(root: Path, key: RoiKey, *, older: bool = True) -> Iterator[Place]:
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
        yield current_place(root, key)
        yield from _other_model_keys(root, default)
        if older:
            yield from _older_of_recipe(root, default)
    else:
        yield from _of_recipe(root, key, older)
        if key.recipe_id != DEFAULT_RECIPE:
            yield from _of_recipe(root, replace(key, recipe_id=DEFAULT_RECIPE), older)
        if key.model != key.roi_id:
            yield from (current_place(root, RoiKey(role_id, key.roi_id)) for role_id in roles(key))
    for role_id in roles(key) if older else ():
        yield from _older_without_recipes(root, RoiKey(role_id, key.roi_id))


def ids_of_stem(stem: str) -> tuple[str, str] | None:
    """The role and roi that a name ``<b64 role>__<b64 roi>`` of older backends stands for; None if it is no such name.

    >>> ids_of_stem("TWFzdGVyMQ__UGF0dGVybg"), ids_of_stem("Master1_Pattern")
    (('Master1', 'Pattern'), None)
    """
    found = []
    for split in re.finditer(r"(?=__)", stem):  # base64url has underscores of its own
        role_id, roi_id = _text_of_b64(stem[: split.start()]), _text_of_b64(stem[split.start() + 2 :])
        if role_id and roi_id:
            found.append((role_id, roi_id))
    return found[0] if len(found) == 1 else None


def layout_of_recipe(folder: str) -> Layout:
    """The layout that a folder ``recipes/<folder>`` of an older backend is: recipes first kept their case."""
    return "L4" if _NEWEST_RECIPE_NAME.fullmatch(folder) else "L3"


def has_older_images(root: Path) -> bool:
    """Whether there are stored images of older backends, which only a migration reads."""
    return any(True for pattern in ("datasets/*/*/[on][kg]", "recipes/*/datasets/*") for _ in root.glob(pattern))


def roles(key: RoiKey) -> tuple[str, ...]:
    """The roles that the model of a ROI may be stored under.

    Clients that name recipes turn the role of every roi called "inspection…" into "Inspection" when they fit and infer,
    and leave it when they ask for the state or send images. What lies under the other role in the default recipe was
    fitted by clients that name none.
    """
    if key.recipe_id is None or not is_inspection(key) or key.role_id == INSPECTION_ROLE:
        return (key.role_id,)
    return (INSPECTION_ROLE, key.role_id) if key.recipe == DEFAULT_RECIPE else (key.role_id, INSPECTION_ROLE)


def is_inspection(key: RoiKey) -> bool:
    """Whether this is a ROI whose role some clients turn into "Inspection"; see `roles`."""
    return key.roi_id.casefold().startswith("inspection")


def _of_recipe(root: Path, key: RoiKey, older: bool) -> Iterator[Place]:
    under_each_role = [replace(key, role_id=role_id) for role_id in roles(key)]
    for own in under_each_role:
        yield current_place(root, own)
        if key.model_key is None:
            yield from _other_model_keys(root, own)
    for own in under_each_role if older else ():
        yield from _older_of_recipe(root, own)


def _other_model_keys(root: Path, key: RoiKey) -> Iterator[Place]:
    """Models of the ROI under other model keys, newest first: some clients name the key when they fit, and then not."""
    folder = recipe_folder(root, key.recipe) / _MODELS / folder_name(key.role_id) / folder_name(key.roi_id)
    for memory in _newest_first(folder.glob(f"*/{MEMORY_FILE}")):
        owner = replace(key, model_key=unquote(memory.parent.name)).owner
        yield Place("current", owner, memory, memory.with_name(CALIBRATION_FILE))


def _older_of_recipe(root: Path, key: RoiKey) -> Iterator[Place]:
    """``recipes/<recipe>/<model_key>/<b64 role>__<b64 roi>.npz``; recipes first kept their case, and then had none."""
    try:
        folders = [folder for folder in (root / "recipes").iterdir() if canonical_recipe(folder.name) == key.recipe]
    except OSError:  # there are none
        return
    stem = _b64_stem(key)
    for folder in sorted(folders, key=lambda folder: (folder.name != key.recipe, folder.name)):
        layout = layout_of_recipe(folder.name)
        models = [model for model in folder.glob("*") if key.model_key is None or model.name == key.model]
        found = [memory for model in models for memory in model.glob("*.npz") if memory.name == f"{stem}.npz"]
        own = [memory for memory in found if memory.parent.name == key.model]
        others = [memory for memory in _newest_first(found) if memory.parent.name != key.model]
        for memory in own + others:
            model_key = memory.parent.name
            yield Place(layout, replace(key, model_key=model_key), memory, memory.with_name(f"{stem}_calib.json"))


def _older_without_recipes(root: Path, key: RoiKey) -> Iterator[Place]:
    """Where older backends kept the ROI, newest first; ids that cannot be a plain name there have no such place."""
    replaced = "_".join(re.sub(r"[^A-Za-z0-9_-]", "_", text) for text in (key.role_id, key.roi_id))
    stems: tuple[tuple[Layout, str], ...] = (("L2", _b64_stem(key)), ("L1", replaced))
    for layout, stem in stems:
        yield Place(layout, key, root / f"{stem}.npz", root / f"{stem}_calib.json")
    raw = (key.role_id, key.roi_id)
    if all(not re.search(r"[/\\:\0]", text) and text.strip(". ") for text in raw):
        folder = root / key.role_id / key.roi_id
        yield Place("L0", key, folder / MEMORY_FILE, folder / CALIBRATION_FILE)


def _b64_stem(key: RoiKey) -> str:
    return "__".join(_b64(text) for text in (key.role_id, key.roi_id))


def _b64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _text_of_b64(encoded: str) -> str | None:
    try:
        text = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
    return text if _b64(text) == encoded else None


def _newest_first(files: Iterable[Path]) -> list[Path]:
    dated = []
    for file in files:
        try:
            dated.append((file.stat().st_mtime_ns, file))
        except OSError:  # deleted since
            continue
    return [file for _, file in sorted(dated, reverse=True)]
