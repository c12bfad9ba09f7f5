"""The data of a GUI for a recipe: its layout, a JSON object that only the GUI understands, and small pictures.

::

    @recipes/<recipe>/layout/layout.json     as it was sent, byte for byte
    @recipes/<recipe>/layout/pictures/<name> as they were sent
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from backend.common.errors import LayoutNotFound, PictureNotFound, StorageError, TooLarge
from backend.common.files import delete, read_small, write_atomic
from backend.disk.known_rois import NAME_FILE
from backend.disk.layout import folder_name, is_hashed, recipe_folder
from backend.disk.locking import writing
from backend.disk.name_clashes import refuse_clashes
from backend.disk.path_lengths import refuse_long_paths

MAX_LAYOUT_BYTES = 1 << 20
MAX_PICTURE_BYTES = 4 << 20
MAX_PICTURES = 256
LAYOUT_FOLDER = "layout"  # in that of a recipe
LAYOUT_FILE = "layout.json"


class GuiLayoutStore:
    """Reads and writes the layouts below one models folder. Several processes may share it.

    Args:
        root: the models folder; created at the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, recipe_id: str) -> bytes:
        """The layout of a recipe, as it was sent.

        Raises:
            InvalidRequest: the file system confuses the recipe with another one.
            LayoutNotFound: none is stored.
            StorageError: it cannot be read.
        """
        content = self._stored(recipe_id)
        if content is None:
            raise LayoutNotFound(f"no layout is stored for recipe {recipe_id!r}: PUT one with If-None-Match: *")
        return content

    def write(self, recipe_id: str, content: bytes, accept: Callable[[str | None], None]) -> str:
        """Replace the layout of a recipe; nobody else replaces it meanwhile.

        Args:
            recipe_id: the recipe.
            content: an object of JSON in UTF-8, at most `MAX_LAYOUT_BYTES`.
            accept: called with the `etag_of` the stored layout, or None; may raise.

        Returns:
            The `etag_of` of the new one.

        Raises:
            InvalidRequest: the recipe's path is too long, or the file system confuses the recipe with another one.
            StorageError: it cannot be written; the previous one stays.
        """
        folder = self._folder(recipe_id)
        refuse_long_paths(folder)
        with writing(folder, "layout"):
            self._check(folder)  # again: another may have made it
            stored = self._stored(recipe_id)
            accept(None if stored is None else etag_of(stored))
            self._keep_name(recipe_id)
            write_atomic({folder / LAYOUT_FILE: content})
        return etag_of(content)

    def pictures(self, recipe_id: str) -> dict[str, int]:
        """Names of the pictures of a recipe, sorted, and their bytes.

        Raises:
            InvalidRequest: as `read`.
            StorageError: they cannot be listed.
        """
        folder = self._pictures(recipe_id)
        self._check(folder)
        try:
            files = [path for path in folder.iterdir() if _is_picture(path)]
            return dict(sorted((unquote(path.name), path.stat().st_size) for path in files))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as exc:
            raise StorageError(f"the pictures cannot be listed ({exc.strerror}); check the models folder") from exc

    def read_picture(self, recipe_id: str, name: str) -> bytes:
        """A picture, as it was sent.

        Raises:
            InvalidRequest: as `read`, or the name is too long.
            PictureNotFound: there is none of this name.
            StorageError: it cannot be read.
        """
        path = self._picture(recipe_id, name)
        try:
            return read_small(path, MAX_PICTURE_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            raise _no_picture(recipe_id, name) from None
        except OSError as exc:
            raise StorageError(f"the picture cannot be read ({exc.strerror}); check the models folder") from exc
        except ValueError as exc:
            raise StorageError(f"the stored picture {name!r} is damaged: send it again") from exc

    def write_picture(self, recipe_id: str, name: str, content: bytes) -> None:
        """Store a picture under a name; a picture with this name is replaced.

        Args:
            recipe_id: the recipe.
            name: any text that is a possible file name when encoded.
            content: of the file, at most `MAX_PICTURE_BYTES`.

        Raises:
            InvalidRequest: as `write`, or the name is too long, or the file system confuses it with another one.
            TooLarge: the recipe has `MAX_PICTURES` others.
            StorageError: it cannot be written; the previous one stays.
        """
        folder = self._pictures(recipe_id)
        path = self._picture(recipe_id, name)
        refuse_long_paths(folder)
        with writing(folder, "picture"):
            self._check(path)  # again: another may have made it
            others = self.pictures(recipe_id).keys() - {name}
            if len(others) >= MAX_PICTURES:
                raise TooLarge(f"recipe {recipe_id!r} has {MAX_PICTURES} pictures, which is the maximum: delete some")
            self._keep_name(recipe_id)
            write_atomic({path: content})

    def delete_picture(self, recipe_id: str, name: str) -> None:
        """Delete a picture.

        Raises:
            InvalidRequest, PictureNotFound: as `read_picture`.
            StorageError: it cannot be deleted.
        """
        path = self._picture(recipe_id, name)
        if not path.is_file():
            raise _no_picture(recipe_id, name)
        with writing(path.parent, "picture"):
            delete(path)

    def _folder(self, recipe_id: str) -> Path:
        folder = recipe_folder(self._root, recipe_id) / LAYOUT_FOLDER
        self._check(folder)
        return folder

    def _pictures(self, recipe_id: str) -> Path:
        return self._folder(recipe_id) / "pictures"

    def _picture(self, recipe_id: str, name: str) -> Path:
        path = self._pictures(recipe_id) / folder_name(name)
        self._check(path)
        return path

    def _check(self, path: Path) -> None:
        refuse_clashes(self._root, path)

    def _stored(self, recipe_id: str) -> bytes | None:
        try:
            return read_small(self._folder(recipe_id) / LAYOUT_FILE, MAX_LAYOUT_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise StorageError(f"the layout cannot be read ({exc.strerror}); check the models folder") from exc
        except ValueError as exc:
            raise StorageError(
                f"the stored {LAYOUT_FILE} is larger than {MAX_LAYOUT_BYTES} bytes, which this service never writes: "
                "restore or remove it"
            ) from exc

    def _keep_name(self, recipe_id: str) -> None:
        """Store the name of a recipe whose folder does not state it, so that it can be listed."""
        folder = recipe_folder(self._root, recipe_id)
        if is_hashed(folder) and not (folder / NAME_FILE).exists():
            write_atomic({folder / NAME_FILE: json.dumps({"recipe_id": recipe_id}).encode()})


def etag_of(content: bytes) -> str:
    """The tag of a layout: the first 32 hexadecimal digits of its sha256."""
    return hashlib.sha256(content).hexdigest()[:32]


def _is_picture(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()  # the lock, and what is being written


def _no_picture(recipe_id: str, name: str) -> PictureNotFound:
    return PictureNotFound(f"recipe {recipe_id!r} has no picture {name!r}; /layout/pictures lists its pictures")
