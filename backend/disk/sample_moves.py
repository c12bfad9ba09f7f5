"""Moving a stored image to the other class. It is always in exactly one of the two, whatever stops the move.

Its metadata is written to the new place before the move, and deleted from the old place after it. The next upload
deletes metadata without an image.
"""

import contextlib
import json
from pathlib import Path

from backend.common.errors import Conflict, InvalidImage, StorageError
from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, replace, sync_folder, write_atomic
from backend.disk.locking import writing
from backend.disk.sample_facts import METADATA_SUFFIX, FactsCache, parse_metadata


def move_image(image: Path, folder: Path, label: str, facts: FactsCache) -> None:
    """Move an image and its metadata to another folder, under the same name.

    Args:
        image: its file.
        folder: of the other class.
        label: new label in its metadata, if they have one.
        facts: what is known of images.

    Raises:
        Conflict: the other folder has an image of this name; nothing was changed.
        InvalidImage: the image was deleted since.
        StorageError: its metadata are damaged, or it cannot be moved; it stays where it is.
    """
    target = folder / image.name
    with contextlib.ExitStack() as held:
        for place in sorted((image.parent, folder), key=str):  # in one order, or two moves could wait for each other
            held.enter_context(writing(place, "image"))
        if target.exists():
            raise Conflict(f"the {label} images include another {image.name}; nothing was moved: delete one of the two")
        if not image.exists():
            raise InvalidImage(f"{image.name}: the stored image was deleted meanwhile")
        pixels = facts.known_pixels(str(image))
        metadata = _metadata_for(image, label)
        if metadata is not None:
            write_atomic({_metadata_path(target): metadata})
        try:
            replace(image, target)
        except OSError:
            if metadata is not None:
                delete(_metadata_path(target))
            raise
        sync_folder(folder)
        sync_folder(image.parent)
        delete(_metadata_path(image))
    if pixels is not None:
        facts.learn_pixels(str(target), pixels)


def _metadata_for(image: Path, label: str) -> bytes | None:
    """The metadata of an image with another label; None for an image that somebody copied into the folder."""
    try:
        content = read_small(_metadata_path(image), MAX_JSON_FILE_BYTES)
    except FileNotFoundError:
        return None
    except ValueError as exc:
        raise StorageError(f"the metadata of {image.name} is damaged: delete the image and upload it again") from exc
    return relabelled(content, image.name, label)


def relabelled(content: bytes, name: str, label: str) -> bytes:
    """The metadata of an image after the change of its class.

    Args:
        content: of the file.
        name: of the image, for messages.
        label: the class; metadata without a class stay unchanged.

    Raises:
        StorageError: they are damaged.
    """
    metadata = parse_metadata(content, name)
    if "label" not in metadata:
        return content
    return json.dumps({**metadata, "label": label}, allow_nan=False).encode()


def _metadata_path(image: Path) -> Path:
    return image.with_name(image.name + METADATA_SUFFIX)
