"""Names of folders and files in the layouts of older backends, L0 to L4. They are read and never written."""

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from backend.common.roi_key import RoiKey, canonical_recipe
from backend.disk.layout import CALIBRATION_FILE, MEMORY_FILE, Layout, ModelFiles, newest_first

_NEWEST_RECIPE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def ids_of_stem(stem: str) -> tuple[str, str] | None:
    """The role and roi of a name ``<b64 role>__<b64 roi>`` of older backends; None if it is not such a name.

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
    """The layout of a folder ``recipes/<folder>`` of an older backend: at first, recipes kept their case."""
    return "L4" if _NEWEST_RECIPE_NAME.fullmatch(folder) else "L3"


def has_older_images(root: Path) -> bool:
    """Whether there are stored images of older backends, which only a migration reads."""
    return any(True for pattern in ("datasets/*/*/[on][kg]", "recipes/*/datasets/*") for _ in root.glob(pattern))


def older_of_recipe(root: Path, key: RoiKey) -> Iterator[ModelFiles]:
    """``recipes/<recipe>/<model_key>/<b64 role>__<b64 roi>.npz``; at first, recipes kept their case."""
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
        others = [memory for memory in newest_first(found) if memory.parent.name != key.model]
        for memory in own + others:
            model_key = memory.parent.name
            yield ModelFiles(layout, replace(key, model_key=model_key), memory, memory.with_name(f"{stem}_calib.json"))


def older_without_recipes(root: Path, key: RoiKey) -> Iterator[ModelFiles]:
    """The places of the ROI in older backends, newest first; ids that cannot be a plain name there have none."""
    replaced = "_".join(re.sub(r"[^A-Za-z0-9_-]", "_", text) for text in (key.role_id, key.roi_id))
    stems: tuple[tuple[Layout, str], ...] = (("L2", _b64_stem(key)), ("L1", replaced))
    for layout, stem in stems:
        yield ModelFiles(layout, key, root / f"{stem}.npz", root / f"{stem}_calib.json")
    raw = (key.role_id, key.roi_id)
    if all(not re.search(r"[/\\:\0]", text) and text.strip(". ") for text in raw):
        folder = root / key.role_id / key.roi_id
        yield ModelFiles("L0", key, folder / MEMORY_FILE, folder / CALIBRATION_FILE)


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
