"""Facts about stored images, in memory, because data sets have thousands of images and lists and uploads need all."""

import json
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from backend.common.errors import StorageError
from backend.common.files import MAX_JSON_FILE_BYTES, read_small
from backend.disk.memory_cache import FileIdentity, identity_of

METADATA_SUFFIX = ".json"
PIXELS = "pixels_sha256"
"""Member of the metadata of an image, beside those that its client sent."""
_MAX_KEPT = 50_000  # some 25 MB, if the images of a ROI share their mask
_LONGEST_NAME = 1000  # what requests may name
_LONGEST_SHAPE = 1000  # that is kept: a mask needs some 100 characters
_SHA256 = re.compile("[0-9a-f]{64}")

log: Any = structlog.get_logger(__name__)


class SampleFacts(NamedTuple):
    """The facts in the metadata of a stored image.

    Attributes:
        uploaded_as: original name; None if unknown.
        pixels_sha256: see `bit_depth.whole_pixels_sha256`; None in metadata of earlier versions.
        shape_json: mask of the image, as JSON; None if it has none.
        are_all: False if the metadata may say more than these facts: it is missing, damaged, or its mask is too long
            to be kept.
    """

    uploaded_as: str | None = None
    pixels_sha256: str | None = None
    shape_json: str | None = None
    are_all: bool = False


_NOTHING = SampleFacts()


class FactsCache:
    """Facts about stored images; changed metadata files are read again. Safe for many threads.

    Paths are texts here, because making a `Path` of each would take longer than everything else.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[FileIdentity, SampleFacts]] = OrderedDict()
        self._pixels: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, image: str) -> SampleFacts:
        """The facts of an image; empty if its metadata is missing or cannot be read."""
        path = f"{image}{METADATA_SUFFIX}"
        try:
            identity = identity_of(os.stat(path))  # noqa: PTH116 - a third of the time of Path(path).stat
        except OSError:
            return _NOTHING
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept[0] == identity:
                self._kept.move_to_end(path)
                return kept[1]
        try:
            found = facts_of(parse_metadata(read_small(Path(path), MAX_JSON_FILE_BYTES), Path(image).name))
            facts = _as_kept(found)
        except (OSError, ValueError, StorageError) as exc:
            log.warning("metadata.not_read", reason=str(exc))
            facts = _NOTHING
        with self._lock:
            self._kept[path] = identity, facts
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        if facts.pixels_sha256 is not None:
            self.learn_pixels(image, facts.pixels_sha256)
        return facts

    def learn_pixels(self, image: str, pixels_sha256: str) -> None:
        """Keep the hash of the pixels of an image whose metadata does not have it."""
        with self._lock:
            self._pixels[image] = pixels_sha256
            while len(self._pixels) > _MAX_KEPT:
                self._pixels.popitem(last=False)

    def known_pixels(self, image: str) -> str | None:
        """The last known hash of the pixels of an image, without reading the disk; None if there was none."""
        with self._lock:
            return self._pixels.get(image)


def path_of(folder: Path, name: str) -> str:
    """The path of an image, in the form for `FactsCache`."""
    return f"{folder}{os.sep}{name}"


def facts_of(metadata: Mapping[str, Any]) -> SampleFacts:
    """The facts in the metadata of an image."""
    name = metadata.get("filename")
    pixels = metadata.get(PIXELS)
    return SampleFacts(
        name if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and _is_text(name) else None,
        pixels if isinstance(pixels, str) and _SHA256.fullmatch(pixels) else None,
        shape_text(metadata),
        are_all=True,
    )


def shape_text(metadata: Mapping[str, Any]) -> str | None:
    """The mask in the metadata of an image, as JSON; None if there is none. Clients send a text or a value."""
    shape = metadata.get("shape_json")
    return shape if shape is None or isinstance(shape, str) else json.dumps(shape)


def _as_kept(facts: SampleFacts) -> SampleFacts:
    """Facts that take little memory."""
    if facts.shape_json is None:
        return facts
    if len(facts.shape_json) > _LONGEST_SHAPE:
        return facts._replace(shape_json=None, are_all=False)
    return facts._replace(shape_json=sys.intern(facts.shape_json))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a character, which no reply can hold
        return False
    return True


def parse_metadata(content: bytes, name: str) -> dict[str, Any]:
    """The metadata of an image.

    Args:
        content: of the file.
        name: of the image, for messages.

    Raises:
        StorageError: it is not a JSON object.
    """
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise StorageError(f"the metadata of {name} is damaged: delete the image and upload it again") from exc
    if not isinstance(metadata, dict):
        raise StorageError(f"the metadata of {name} is damaged: delete the image and upload it again")
    return metadata
