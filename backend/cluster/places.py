"""The places of images and results: a folder that all machines see, or a prefix in an object store."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backend.common.errors import ConfigError, InvalidImage, StorageError, TooLarge
from backend.common.files import make_folder, read_whole, write_atomic
from backend.common.image_headers import SUFFIXES

_S3 = "s3://"


class Place(Protocol):
    """Named contents. Another process can open the same place by its address."""

    def names(self) -> Mapping[str, int]:
        """Sizes of all contents in bytes, by name."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a name; None if there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a content atomically; an earlier one of that name is replaced."""
        ...


def is_url(address: str) -> bool:
    """Whether an address is that of an object store."""
    return address.startswith(_S3)


def open_place(address: str, *, insecure: bool) -> Place:
    """The place that an address names.

    Args:
        address: a folder, or ``s3://BUCKET/PREFIX``.
        insecure: allow a store without TLS that is not on this machine.

    Raises:
        ConfigError: the URL cannot be used, or the client of object stores is not installed.
    """
    if not is_url(address):
        return FolderPlace(Path(address))
    try:
        from backend.object_store.address import read_address  # here alone: others need no client of object stores
        from backend.object_store.bucket import Bucket
    except ModuleNotFoundError as exc:
        if exc.name != "obstore":
            raise
        raise ConfigError(
            "object stores need their client; install it: pip install -r requirements/cluster.txt"
        ) from exc
    return ObjectPlace(Bucket(read_address(address, insecure=insecure)))


@dataclass(frozen=True)
class FolderPlace:
    """A folder.

    Attributes:
        folder: its path; the first write makes the folder.
    """

    folder: Path

    def names(self) -> dict[str, int]:
        """See `Place`. Hidden files and folders are left out.

        Raises:
            StorageError: a folder cannot be read.
        """
        found = {}

        def refuse(exc: OSError) -> None:
            raise StorageError(f"{exc.filename}: the folder cannot be read ({exc.strerror})") from exc

        if not self.folder.exists():
            return {}
        for parent, folders, files in os.walk(self.folder, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if not name.startswith("."):
                    path = Path(parent, name)
                    try:
                        size = path.stat().st_size
                    except OSError:  # a broken link, or deleted meanwhile: reading it gives the error
                        size = 0
                    found[path.relative_to(self.folder).as_posix()] = size
        return found

    def read(self, name: str, max_bytes: int | None = None) -> bytes | None:
        """See `Place`.

        Args:
            name: of the content.
            max_bytes: largest accepted size; None is any.

        Raises:
            StorageError: it cannot be read.
            TooLarge: it has more than `max_bytes`, and is not read.
        """
        path = self.folder / name
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                raise StorageError(f"{path}: the file cannot be read (it is not a regular file)")
            if max_bytes is not None and found.st_size > max_bytes:
                raise _too_large(name, found.st_size, max_bytes)
            return read_whole(path)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise StorageError(f"{path}: the file cannot be read ({exc.strerror})") from exc

    def write(self, name: str, content: bytes) -> None:
        """See `Place`.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.folder / name
        try:
            make_folder(path.parent)
            write_atomic({path: content})
        except OSError as exc:
            raise StorageError(f"{path}: the file cannot be written ({exc.strerror})") from exc


@dataclass(frozen=True)
class ObjectPlace:
    """A prefix of a bucket.

    Attributes:
        bucket: ``backend.object_store.bucket.Bucket``.
    """

    bucket: Any

    def names(self) -> dict[str, int]:
        """See `Place`.

        Raises:
            StoreUnavailable: the store does not answer, or refuses; likewise for the other methods.
        """
        return {found.key: found.size for found in self.bucket.list("")}

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        content: bytes | None = self.bucket.get_large(name)
        return content

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        self.bucket.put(name, content)


def image_names(names: Mapping[str, int]) -> list[str]:
    """The names with the extension of an image format, sorted."""
    return sorted(name for name in names if name.lower().endswith(SUFFIXES))


def read_image(place: Place, name: str, max_bytes: int) -> bytes:
    """The file content of an image.

    Args:
        place: that has the image.
        name: of the image.
        max_bytes: largest accepted size.

    Raises:
        InvalidImage: the image does not exist any more, or its file cannot be read.
        TooLarge: it has more than `max_bytes`.
        StoreUnavailable: the object store does not answer, or refuses.
    """
    if isinstance(place, FolderPlace):
        try:
            content = place.read(name, max_bytes)
        except StorageError as exc:
            raise InvalidImage(str(exc)) from exc
    else:
        content = place.read(name)
    if content is None:
        raise InvalidImage(f"{name}: the image does not exist any more")
    if len(content) > max_bytes:
        raise _too_large(name, len(content), max_bytes)
    return content


def _too_large(name: str, n_bytes: int, max_bytes: int) -> TooLarge:
    return TooLarge(f"{name}: {n_bytes} bytes, at most {max_bytes} are accepted")
