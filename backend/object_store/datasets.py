"""Stored images in an object store: a blob for each, and a manifest that has their names and metadata.

Images are fetched only if their bytes are needed; their names and original names are in the manifest.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from backend.common.errors import Conflict, InvalidImage, SampleNotFound
from backend.common.roi_key import RoiKey, is_inspection
from backend.disk.datasets import Label, NewSample, Sample, is_image, new_name
from backend.disk.duplicates import Compared, HashPixels, Stored, compare
from backend.disk.layout import dataset_folder, folder_name
from backend.disk.sample_facts import METADATA_SUFFIX, PIXELS, FactsCache, path_of
from backend.disk.sample_moves import relabelled
from backend.object_store.catalog import Catalog
from backend.object_store.manifest import Manifest
from backend.object_store.mirror import Mirror
from backend.object_store.units import Unit, dataset_unit, unit_of
from backend.object_store.uploading import Edit
from backend.utils import utc_now


class ObjectDatasetStore:
    """Stored images; arguments, results and errors as for `DatasetStore`, and `StoreUnavailable`.

    Args:
        mirror: the units.
        catalog: lists them.
    """

    def __init__(self, mirror: Mirror, catalog: Catalog) -> None:
        self._mirror = mirror
        self._catalog = catalog
        self._facts = FactsCache()

    def add_compared(
        self,
        key: RoiKey,
        label: Label,
        samples: Sequence[NewSample],
        compared: Compared | None,
        *,
        skip_duplicates: bool,
    ) -> list[Stored]:
        """As `DatasetStore.add_compared`; all images are stored in one swap."""
        folder = dataset_folder(Path(), key) / label
        start = utc_now()
        names = [new_name(start + timedelta(microseconds=n), sample.suffix) for n, sample in enumerate(samples)]
        stored: list[Stored] = []

        def add(manifest: Manifest) -> dict[str, Edit]:
            stored.clear()
            there = set(_names(manifest, folder))
            by_pixels = compared.with_newer(self._mirror.root / folder, there, self._facts) if compared else {}
            files: dict[str, Edit] = {}
            for name, sample in zip(names, samples, strict=True):
                pixels = str(sample.metadata.get(PIXELS))
                duplicate_of = by_pixels.get(pixels) if PIXELS in sample.metadata else None
                if duplicate_of is not None and skip_duplicates:
                    stored.append(Stored(None, duplicate_of))
                    continue
                stored.append(Stored(name, duplicate_of))
                by_pixels.setdefault(pixels, name)
                files[(folder / name).as_posix()] = sample.read
                files[_metadata(folder / name)] = json.dumps(sample.metadata, allow_nan=False).encode()
            return files

        self._mirror.edit(dataset_unit(key), add)
        for image, sample in zip(stored, samples, strict=True):
            if image.name is not None and PIXELS in sample.metadata:
                path = path_of(self._mirror.root / folder, image.name)
                self._facts.learn_pixels(path, str(sample.metadata[PIXELS]))
        return stored

    def compare(
        self, key: RoiKey, label: Label, wanted: Collection[str], hash_pixels: HashPixels, until: float
    ) -> Compared:
        """As `DatasetStore.compare`; only images that may have the given pixels are fetched."""
        unit, folder = dataset_unit(key), dataset_folder(Path(), key) / label
        names = list(_names(self._mirror.look(unit), folder))

        def fetched_and_hashed(image: Path) -> str:
            self._fetch(unit, [image.relative_to(self._mirror.root).as_posix()])
            return hash_pixels(image)

        for name in names:
            self._facts.of(path_of(self._mirror.root / folder, name))
        return compare(self._mirror.root / folder, names, self._facts, wanted, fetched_and_hashed, until)

    def names(self, key: RoiKey, label: Label) -> dict[str, bool]:
        """As `DatasetStore.names`."""
        unit, folder = self._found(key)
        return _names(self._mirror.manifest(unit), folder / label)

    def uploaded_as(self, key: RoiKey, label: Label, names: Iterable[str]) -> dict[str, str]:
        """As `DatasetStore.uploaded_as`."""
        folder = self._mirror.root / self._found(key)[1] / label
        known = ((name, self._facts.of(path_of(folder, name)).uploaded_as) for name in names)
        return {name: uploaded_as for name, uploaded_as in known if uploaded_as is not None}

    def samples(self, key: RoiKey, label: Label) -> list[Sample]:
        """As `DatasetStore.samples`; their bytes are fetched."""
        unit, folder = self._found(key)
        names = _names(self._mirror.manifest(unit), folder / label)
        self._fetch(unit, [(folder / label / name).as_posix() for name in names])
        return [self._sample(folder / label, label, name) for name in names]

    def stored(self, key: RoiKey, label: Label, name: str) -> Sample | None:
        """As `DatasetStore.stored`."""
        unit, folder = self._found(key)
        if name not in _names(self._mirror.manifest(unit), folder / label):
            return None
        self._fetch(unit, [(folder / label / name).as_posix()], allow_lost=True)  # it may be asked for to be deleted
        return self._sample(folder / label, label, name)

    def find(self, key: RoiKey, label: Label, filename: str) -> Sample:
        """As `DatasetStore.find`."""
        own = self.stored(key, label, filename)
        if own is not None:
            return own
        names = list(self.names(key, label))
        named = [name for name, sent in self.uploaded_as(key, label, names).items() if sent == filename]
        if len(named) > 1:
            some = ", ".join(named[:3]) + (", …" if len(named) > 3 else "")
            raise Conflict(f"{len(named)} {label} images of {key} were uploaded as {filename!r}: name one of {some}")
        found = self.stored(key, label, named[0]) if named else None
        if found is None:
            raise SampleNotFound(f"{key} has no {label} image {filename!r}; /datasets/list lists the stored images")
        return found

    def remove(self, sample: Sample) -> None:
        """As `DatasetStore.remove`."""
        unit, image = self._whose(sample)
        self._mirror.edit(unit, lambda _: {image.as_posix(): None, _metadata(image): None})

    def move(self, sample: Sample, to: Label) -> Sample:
        """As `DatasetStore.move`."""
        unit, image = self._whose(sample)
        target = image.parent.parent / to / image.name

        def move(manifest: Manifest) -> dict[str, Edit]:
            if target.as_posix() in manifest.files:
                raise Conflict(
                    f"the {to} images include another {image.name}; nothing was moved: delete one of the two"
                )
            entry = manifest.files.get(image.as_posix())
            if entry is None:
                raise InvalidImage(f"{image.name}: the stored image was deleted meanwhile")
            files: dict[str, Edit] = {image.as_posix(): None, target.as_posix(): entry}
            if _metadata(image) in manifest.files:
                content = (self._mirror.root / _metadata(image)).read_bytes()
                files |= {_metadata(image): None, _metadata(target): relabelled(content, image.name, to)}
            return files

        pixels = self._facts.known_pixels(str(sample.path))
        self._mirror.edit(unit, move, lambda path: path == _metadata(image))
        moved = replace(sample, label=to, path=self._mirror.root / target)
        if pixels is not None:
            self._facts.learn_pixels(str(moved.path), pixels)
        self._fetch(unit, [target.as_posix()], allow_lost=True)
        return moved

    def clear(self, key: RoiKey, label: Label) -> int:
        """As `DatasetStore.clear`."""
        folder = dataset_folder(Path(), key) / label
        count = 0

        def clear(manifest: Manifest) -> dict[str, Edit]:
            nonlocal count
            count = len(_names(manifest, folder))
            return {path: None for path in manifest.files if PurePosixPath(path).parent == PurePosixPath(folder)}

        self._mirror.edit(dataset_unit(key), clear)
        return count

    def folder(self, key: RoiKey) -> Path:
        """As `DatasetStore.folder`, in the local copy: for files that can be made again."""
        folder = self._mirror.root / self._found(key)[1]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _found(self, key: RoiKey) -> tuple[Unit, Path]:
        """The ROI whose images a ROI uses, after a look at the store, and their folder below the models folder."""
        own = dataset_unit(key)
        manifest = self._mirror.look(own, _is_metadata, allow_lost=True)
        folder = dataset_folder(Path(), key)
        if key.recipe_id is None or not is_inspection(key) or _has_images(manifest):
            return own, folder
        recipe, _, roi = own.names
        others = [unit for unit in self._catalog.units("datasets") if unit.names[::2] == (recipe, roi) and unit != own]
        self._mirror.look_at_all(others, _is_metadata, allow_lost=True) if others else None
        found = [unit for unit in others if _has_images(self._mirror.manifest(unit))]
        if len(found) > 1:
            roles = ", ".join(repr(unquote(unit.names[1])) for unit in found)
            raise Conflict(f"roi {key.roi_id!r} has images under the roles {roles}, but none under {key.role_id!r}")
        return (
            (found[0], folder.parent.parent / found[0].names[1] / folder_name(key.roi_id)) if found else (own, folder)
        )

    def _whose(self, sample: Sample) -> tuple[Unit, Path]:
        """The unit of a stored image, and its path below the models folder."""
        image = sample.path.relative_to(self._mirror.root)
        unit = unit_of(image.as_posix())
        assert unit is not None, "samples come from here"
        return unit, image

    def _fetch(self, unit: Unit, paths: Collection[str], *, allow_lost: bool = False) -> None:
        needed = set(paths)
        self._mirror.look(unit, lambda path: path in needed or _is_metadata(path), allow_lost=allow_lost)

    def _sample(self, folder: Path, label: Label, name: str) -> Sample:
        path = self._mirror.root / folder / name
        return Sample(label, name, path, self._facts.of(str(path)))


def _names(manifest: Manifest, folder: Path) -> dict[str, bool]:
    parent = folder.as_posix() + "/"
    files = {path[len(parent) :] for path in manifest.files if path.startswith(parent)}
    return {name: f"{name}{METADATA_SUFFIX}" in files for name in sorted(filter(is_image, files)) if "/" not in name}


def _has_images(manifest: Manifest) -> bool:
    return any(is_image(PurePosixPath(path).name) for path in manifest.files)


def _is_metadata(path: str) -> bool:
    return path.endswith(METADATA_SUFFIX)


def _metadata(image: Path) -> str:
    return f"{image.as_posix()}{METADATA_SUFFIX}"
