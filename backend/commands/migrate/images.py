"""Copies the images of older backends, and knows the data sets after the copy, also in a dry run."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from backend.commands.image_files import read_image
from backend.commands.migrate.older import OlderImage
from backend.common.config import Settings
from backend.common.errors import Conflict, InvalidImage, InvalidRequest, StorageError, TooLarge
from backend.common.image_headers import SUFFIXES, image_suffix
from backend.common.roi_key import RoiKey, is_inspection
from backend.disk.datasets import LABELS, DatasetStore, Label, NewSample, Sample
from backend.disk.layout import dataset_folder, folder_name
from backend.utils import ImageLimits, decode_image

Outcome = Literal["copied", "there", "not copied"]


@dataclass(frozen=True)
class StoredImage:
    """An image in a data set, or one that a dry run would have copied there.

    Attributes:
        name: its name in the data set.
        path: a file with its bytes.
        planned: the metadata that this run has given it.
    """

    name: str
    path: Path
    planned: dict[str, Any] | None = None

    def metadata(self) -> dict[str, Any]:
        """Its metadata; empty if damaged, because a fit does not need it."""
        if self.planned is not None:
            return self.planned
        try:
            return Sample("ok", self.name, self.path).metadata()
        except StorageError:
            return {}


class ImageCopies:
    """Copies images into the data sets below the models folder.

    Args:
        settings: the configuration.
        note: called with messages about unusual files.
        dry_run: write nothing, but remember what would have been written.
    """

    def __init__(self, settings: Settings, note: Callable[[Path, str], None], *, dry_run: bool) -> None:
        self._root = settings.models_dir
        self._datasets = DatasetStore(self._root)
        self._limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
        self._note = note
        self._dry_run = dry_run
        self._images: dict[Path, dict[str, StoredImage]] = {}

    def take(self, key: RoiKey, label: Label, image: OlderImage) -> Outcome:
        """Copy an image with its metadata, unless it is not accepted or already exists.

        Raises:
            StorageError: the data set cannot be read or written.
        """
        path = str(image.path)
        try:
            content = read_image(path, self._limits.max_bytes)
            decode_image(content, path, self._limits)
        except (InvalidImage, TooLarge) as exc:
            self._note(image.path, f"not copied: {str(exc).removeprefix(f'{path}: ')}")
            return "not copied"
        folder = dataset_folder(self._root, key) / label
        name = self._free_name(folder, image.path.name, content)
        if name is None:
            return "there"
        metadata = self._metadata(image, key, label)
        if name != image.path.name:
            metadata.setdefault("filename", _as_text(image.path.name))
        if not self._dry_run:
            self._datasets.copy(key, label, name, NewSample(lambda: content, PurePath(name).suffix, metadata))
        self._stored(folder)[name.casefold()] = StoredImage(name, image.path, metadata)
        return "copied"

    def _free_name(self, folder: Path, old_name: str, content: bytes) -> str | None:
        """The name for an image: its own, or one made from its content; None if it already exists."""
        digest = hashlib.sha256(content).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(old_name).stem)[:100]
        suffix = PurePath(old_name).suffix
        suffix = suffix if suffix.lower() in SUFFIXES else image_suffix(content)
        names = [old_name] if _is_safe(old_name) else []
        for name in [*names, f"{stem}-{digest[:8]}{suffix}", f"{stem}-{digest}{suffix}"]:
            stored = self._stored(folder).get(name.casefold())  # some file systems do not tell a.png from A.png
            if stored is None:
                return name
            if _content(stored.path) == content:
                return None
        raise Conflict(f"{_as_text(old_name)}: all possible names are taken by other images")

    def _metadata(self, image: OlderImage, key: RoiKey, label: Label) -> dict[str, Any]:
        known = {
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            "label": label,
            "filename": _as_text(image.path.name),
        }
        if image.metadata is None:
            return known
        try:
            # Older backends wrote NaN into numbers they did not have, which is no JSON.
            metadata = json.loads(image.metadata.read_bytes(), parse_constant=lambda _: None)
            json.dumps(metadata, allow_nan=False)  # as it will be stored
        except (OSError, ValueError, RecursionError):
            metadata = None
        if isinstance(metadata, dict):
            return metadata
        self._note(image.metadata, "not a JSON object: its image gets default metadata")
        return known

    def _stored(self, folder: Path) -> dict[str, StoredImage]:
        """The images in a folder of one class, including those of a dry run, by casefolded name.

        Raises:
            StorageError: the folder cannot be read.
        """
        if folder not in self._images:
            try:
                files = sorted(folder.iterdir())
            except FileNotFoundError:
                files = []
            except OSError as exc:
                raise StorageError(f"the stored images cannot be listed ({exc.strerror})") from exc
            images = [file for file in files if file.name.lower().endswith(SUFFIXES) and file.name[0] != "."]
            self._images[folder] = {image.name.casefold(): StoredImage(image.name, image) for image in images}
        return self._images[folder]

    def ok_images(self, key: RoiKey) -> list[StoredImage]:
        """The good images for a fit of the ROI.

        Raises:
            Conflict, StorageError: as `DatasetStore.samples`.
        """
        return list(self._stored(self._image_folder(key) / "ok").values())

    def _image_folder(self, key: RoiKey) -> Path:
        """The folder of images of a ROI, as in `DatasetStore`, but including those of a dry run.

        Raises:
            Conflict: several roles have images of this ROI.
        """
        own = dataset_folder(self._root, key)
        if key.recipe_id is None or not is_inspection(key) or self._has_images(own):
            return own
        roles = own.parent.parent
        folders = {*roles.glob(f"*/{own.name}"), *(folder.parent for folder in self._images)}
        others = [folder for folder in folders if folder.parent.parent == roles and folder.name == own.name]
        found = [folder for folder in others if self._has_images(folder)]
        if len(found) > 1:
            raise Conflict(f"several roles have images of roi {key.roi_id!r}, but {key.role_id!r} has none")
        return found[0] if found else own

    def _has_images(self, folder: Path) -> bool:
        return any(self._stored(folder / label) for label in LABELS)


def _as_text(name: str) -> str:
    """A file name as valid UTF-8 text."""
    return name.encode("utf-8", "replace").decode()


def _is_safe(name: str) -> bool:
    try:
        return name.lower().endswith(SUFFIXES) and folder_name(name) == name
    except (InvalidRequest, UnicodeEncodeError):
        return False


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StorageError(f"a stored image cannot be read ({exc.strerror})") from exc
