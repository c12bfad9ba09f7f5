"""Images that clients store beside the models: good and defective samples of a ROI, each with its metadata.

An image is there when its file is; its metadata is written before it and removed after it, so no image is ever without.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from backend.common.errors import Conflict, InvalidImage, SampleNotFound, StorageError
from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, read_whole, write_atomic
from backend.common.image_headers import SUFFIXES
from backend.common.roi_key import RoiKey, is_inspection
from backend.disk.duplicates import Compared, HashPixels, Stored, compare
from backend.disk.layout import dataset_folder, folder_name
from backend.disk.locking import writing
from backend.disk.name_clashes import refuse_clashes
from backend.disk.path_lengths import refuse_long_paths
from backend.disk.sample_facts import (
    METADATA_SUFFIX,
    PIXELS,
    FactsCache,
    SampleFacts,
    facts_of,
    parse_metadata,
    path_of,
)
from backend.disk.sample_moves import move_image
from backend.utils import named_with, utc_now

Label = Literal["ok", "ng"]
LABELS: tuple[Label, ...] = ("ok", "ng")

_PLAIN_NAME = re.compile(r"[^/\\:\0]+")  # of a file in the folder itself, on any system


@dataclass(frozen=True)
class NewSample:
    """An image that is to be stored.

    Attributes:
        read: gives its bytes.
        suffix: its extension, ``.png``.
        metadata: JSON values; ``filename`` is the name that the client knows it by, ``pixels_sha256`` its identity.
    """

    read: Callable[[], bytes]
    suffix: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """A stored image.

    Attributes:
        label: its class.
        name: its name in the data set.
        path: its file.
        facts: what is known of its metadata.
    """

    label: Label
    name: str
    path: Path
    facts: SampleFacts = field(default=SampleFacts(), compare=False)

    @property
    def uploaded_as(self) -> str | None:
        """The name that it came with; None if unknown."""
        return self.facts.uploaded_as

    @property
    def title(self) -> str:
        """Its names, for messages."""
        return named_with(self.name, self.uploaded_as)

    def read(self) -> bytes:
        """Its bytes, as they were uploaded.

        Raises:
            InvalidImage: it was deleted since, is empty, or cannot be read.
        """
        try:
            content = read_whole(self.path)
        except OSError as exc:
            raise InvalidImage(f"{self.title}: the stored image cannot be read ({exc.strerror})") from exc
        if not content:
            raise InvalidImage(f"{self.title}: the bytes of the stored image are lost: delete it and upload it again")
        return content

    def metadata_bytes(self) -> bytes:
        """The JSON that was stored with it; an empty object for an image that somebody put into the folder.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return read_small(_metadata_path(self.path), MAX_JSON_FILE_BYTES)
        except FileNotFoundError:
            return b"{}"
        except OSError as exc:
            raise StorageError(f"the metadata of {self.name} cannot be read ({exc.strerror})") from exc
        except ValueError as exc:
            raise StorageError(f"the metadata of {self.name} is damaged: delete the image and upload it again") from exc

    def sent_metadata(self) -> bytes:
        """The JSON that its client sent, without what this service found out about the image.

        Raises:
            StorageError: it is damaged or cannot be read.
        """
        content = self.metadata_bytes()
        metadata = parse_metadata(content, self.name)
        if metadata.pop(PIXELS, None) is None:
            return content
        return json.dumps(metadata).encode()

    def metadata(self) -> dict[str, Any]:
        """What `metadata_bytes` says.

        Raises:
            StorageError: it is damaged or cannot be read.
        """
        return parse_metadata(self.metadata_bytes(), self.name)

    def all_facts(self) -> SampleFacts:
        """The facts in its metadata, which is read only if `facts` are not all.

        Raises:
            StorageError: it is damaged or cannot be read.
        """
        return self.facts if self.facts.are_all else facts_of(self.metadata())


class DatasetStore:
    """Reads and writes the stored images below one models folder. Several processes may share it.

    Args:
        root: the models folder; created at the first upload.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._facts = FactsCache()

    def add(self, key: RoiKey, label: Label, samples: Sequence[NewSample]) -> list[str]:
        """Store images under new names, which sort by the time they came.

        Returns:
            Their names.

        Raises:
            InvalidRequest: the ids are too long for a file name or a path, or the file system takes them for another
                ROI's.
            StorageError: an image could not be written; none is stored then.
        """
        stored = self.add_compared(key, label, samples, None, skip_duplicates=False)
        return [image.name for image in stored if image.name is not None]

    def add_compared(
        self,
        key: RoiKey,
        label: Label,
        samples: Sequence[NewSample],
        compared: Compared | None,
        *,
        skip_duplicates: bool,
    ) -> list[Stored]:
        """As `add`, and report which images are already stored, by this upload or before.

        Args:
            key, label, samples: as for `add`.
            compared: the recent result of `compare`, to which newer images are added; None compares only the images of
                the upload.
            skip_duplicates: do not store those.

        Raises:
            InvalidRequest, StorageError: as `add`.
        """
        stored: list[Stored] = []
        with self._adding(key, label) as folder:
            files = _clear_orphans(folder)
            names = set(filter(is_image, files))
            by_pixels = compared.with_newer(folder, names, self._facts) if compared else {}
            start = utc_now()
            try:
                for number, sample in enumerate(samples):
                    pixels = str(sample.metadata.get(PIXELS))
                    duplicate_of = by_pixels.get(pixels) if PIXELS in sample.metadata else None
                    if duplicate_of is not None and skip_duplicates:
                        stored.append(Stored(None, duplicate_of))
                        continue
                    name = new_name(start + timedelta(microseconds=number), sample.suffix)
                    stored.append(Stored(name, duplicate_of))
                    _write(folder / name, sample)
                    by_pixels.setdefault(pixels, name)
                    if PIXELS in sample.metadata:
                        self._facts.learn_pixels(path_of(folder, name), pixels)
            except BaseException:
                for name in (image.name for image in stored if image.name is not None):
                    _remove(folder / name)
                raise
        return stored

    def compare(
        self, key: RoiKey, label: Label, wanted: Collection[str], hash_pixels: HashPixels, until: float
    ) -> Compared:
        """The stored images of a class with the given pixels: see `duplicates.compare`.

        Raises:
            InvalidRequest, StorageError: as `add`, and where the folder cannot be read.
        """
        folder = dataset_folder(self._root, key) / label
        refuse_clashes(self._root, folder)
        return compare(folder, list(_names(folder)), self._facts, wanted, hash_pixels, until)

    def copy(self, key: RoiKey, label: Label, name: str, sample: NewSample) -> None:
        """Store an image under its earlier name, unless the name is in use.

        Raises:
            InvalidRequest, StorageError: as `add`.
        """
        with self._adding(key, label) as folder:
            if not (folder / name).exists():
                _write(folder / name, sample)

    def names(self, key: RoiKey, label: Label) -> dict[str, bool]:
        """Names of the stored images, sorted, and whether they have metadata.

        Raises:
            InvalidRequest: as `add`.
            Conflict: see `folder`.
            StorageError: the folder cannot be read.
        """
        return _names(self.folder(key) / label)

    def uploaded_as(self, key: RoiKey, label: Label, names: Iterable[str]) -> dict[str, str]:
        """The original names of stored images, if known.

        Args:
            key, label: of the images.
            names: their stored names, in the order of the result.

        Raises:
            InvalidRequest, Conflict: as `names`.
        """
        folder = self.folder(key) / label
        known = ((name, self._facts.of(path_of(folder, name)).uploaded_as) for name in names)
        return {name: uploaded_as for name, uploaded_as in known if uploaded_as is not None}

    def samples(self, key: RoiKey, label: Label) -> list[Sample]:
        """The stored images, sorted by name.

        Raises:
            InvalidRequest, Conflict, StorageError: as `names`.
        """
        folder = self.folder(key) / label
        return [self._sample(folder, label, name) for name in _names(folder)]

    def stored(self, key: RoiKey, label: Label, name: str) -> Sample | None:
        """The stored image with exactly this name; None if there is none.

        Raises:
            InvalidRequest, Conflict: as `names`.
        """
        folder = self.folder(key) / label
        if is_image(name) and _PLAIN_NAME.fullmatch(name) and _has_file(folder, name):
            return self._sample(folder, label, name)
        return None

    def find(self, key: RoiKey, label: Label, filename: str) -> Sample:
        """The stored image of a name: its stored name, or else the name in its metadata.

        Raises:
            SampleNotFound: there is none.
            Conflict: the metadata of several images have this name.
            InvalidRequest, StorageError: as `names`.
        """
        own = self.stored(key, label, filename)
        if own is not None:
            return own
        found = [sample for sample in self.samples(key, label) if sample.uploaded_as == filename]
        if not found:
            raise SampleNotFound(f"{key} has no {label} image {filename!r}; /datasets/list lists the stored images")
        if len(found) > 1:
            names = ", ".join(sample.name for sample in found[:3]) + (", …" if len(found) > 3 else "")
            raise Conflict(f"{len(found)} {label} images of {key} were uploaded as {filename!r}: name one of {names}")
        return found[0]

    def remove(self, sample: Sample) -> None:
        """Delete a stored image and its metadata.

        Raises:
            StorageError: it cannot be deleted.
        """
        with writing(sample.path.parent, "image"):
            _remove(sample.path)

    def move(self, sample: Sample, to: Label) -> Sample:
        """Move a stored image to the other class, and return it from there; arguments and errors as `move_image`."""
        folder = sample.path.parent.parent / to
        move_image(sample.path, folder, to, self._facts)
        return replace(sample, label=to, path=folder / sample.name)

    def clear(self, key: RoiKey, label: Label) -> int:
        """Delete all stored images of a class that are stored under exactly this role; returns their number.

        Raises:
            InvalidRequest: as `add`.
            StorageError: an image cannot be deleted; those before it were.
        """
        folder = dataset_folder(self._root, key) / label
        refuse_clashes(self._root, folder)
        if not _names(folder) and not folder.is_dir():
            return 0
        with writing(folder, "image"):
            names = _names(folder)
            for name in names:
                _remove(folder / name)
            for left in folder.glob(f"*{METADATA_SUFFIX}"):  # of an image that was never completed
                delete(left)
        return len(names)

    def folder(self, key: RoiKey) -> Path:
        """The folder of the images of a ROI: under its role, or under the role before clients changed it.

        Raises:
            InvalidRequest: as `add`.
            Conflict: several roles have images of this ROI.
        """
        folder = self._folder_of_images(key)
        refuse_clashes(self._root, folder)
        return folder

    def _folder_of_images(self, key: RoiKey) -> Path:
        own = dataset_folder(self._root, key)
        if key.recipe_id is None or not is_inspection(key) or _has_images(own):
            return own
        others = own.parent.parent.glob(f"*/{folder_name(key.roi_id)}")
        found = [other for other in others if _has_images(other)]
        if len(found) > 1:
            roles = ", ".join(repr(unquote(folder.parent.name)) for folder in found)
            raise Conflict(f"roi {key.roi_id!r} has images under the roles {roles}, but none under {key.role_id!r}")
        return found[0] if found else own

    def _sample(self, folder: Path, label: Label, name: str) -> Sample:
        return Sample(label, name, folder / name, self._facts.of(path_of(folder, name)))

    @contextlib.contextmanager
    def _adding(self, key: RoiKey, label: Label) -> Iterator[Path]:
        folder = dataset_folder(self._root, key) / label
        refuse_long_paths(folder)
        refuse_clashes(self._root, folder)
        with writing(folder, "image"):
            refuse_clashes(self._root, folder)  # again: another may have made it
            yield folder


def _write(path: Path, sample: NewSample) -> None:
    metadata = json.dumps(sample.metadata, allow_nan=False).encode()  # indented, deep lists would fill the disk
    write_atomic({_metadata_path(path): metadata, path: sample.read()})


def _clear_orphans(folder: Path) -> set[str]:
    """Delete metadata without an image, which a killed writer left; returns the names of the other files."""
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries}
    for name in names:
        image = name.removesuffix(METADATA_SUFFIX)
        if image not in names and is_image(image):
            delete(folder / name)
    return names


def new_name(time: datetime, suffix: str) -> str:
    """A unique name: the time, for people and for the order, and a random part."""
    return f"{time:%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:8]}{suffix}"


def _names(folder: Path) -> dict[str, bool]:
    try:
        with os.scandir(folder) as entries:
            files = {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise StorageError(f"the stored images cannot be listed ({exc.strerror}); check the models folder") from exc
    return {name: f"{name}{METADATA_SUFFIX}" in files for name in sorted(filter(is_image, files))}


def is_image(name: str) -> bool:
    """Whether a file of a data set is an image, by its name."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _has_file(folder: Path, name: str) -> bool:
    """Whether there is a file with exactly this name: Windows also opens it by another case or a short name."""
    try:
        return (folder / name).is_file() and any(path.name == name for path in folder.iterdir())
    except OSError:  # no file can have such a name
        return False


def _has_images(folder: Path) -> bool:
    return any(is_image(path.name) for label in LABELS for path in (folder / label).glob("*"))


def _remove(image: Path) -> None:
    delete(image)
    delete(_metadata_path(image))


def _metadata_path(image: Path) -> Path:
    return image.with_name(image.name + METADATA_SUFFIX)
