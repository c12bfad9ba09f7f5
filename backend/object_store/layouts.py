"""Layouts of recipes in an object store: the layout and the pictures of a recipe change in one swap."""

from collections.abc import Callable
from pathlib import Path

from backend.disk.gui_layouts import LAYOUT_FILE, GuiLayoutStore, etag_of
from backend.disk.layout import folder_name
from backend.object_store.mirror import Mirror, everything
from backend.object_store.units import recipe_unit

_LOST = etag_of(b"")
"""Of the empty file that stands for a layout whose bytes the store has lost: none that was sent is empty."""


class ObjectLayoutStore:
    """Layouts of recipes; arguments, results and errors as for `GuiLayoutStore`, and `StoreUnavailable`.

    Args:
        mirror: the units.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._local = GuiLayoutStore(mirror.root)

    def read(self, recipe_id: str) -> bytes:
        """As `GuiLayoutStore.read`."""
        self._mirror.look(recipe_unit(recipe_id), lambda path: path.endswith(f"/{LAYOUT_FILE}"))
        with self._mirror.reading():
            return self._local.read(recipe_id)

    def write(self, recipe_id: str, content: bytes, accept: Callable[[str | None], None]) -> str:
        """As `GuiLayoutStore.write`; `accept` is called again if somebody else was faster.

        A layout whose bytes the store has lost counts as missing.
        """

        def write(folder: Path) -> str:
            return GuiLayoutStore(folder).write(
                recipe_id, content, lambda etag: accept(None if etag == _LOST else etag)
            )

        return self._mirror.change(recipe_unit(recipe_id), write)

    def pictures(self, recipe_id: str) -> dict[str, int]:
        """As `GuiLayoutStore.pictures`."""
        self._mirror.look(recipe_unit(recipe_id), everything, allow_lost=True)
        with self._mirror.reading():
            return self._local.pictures(recipe_id)

    def read_picture(self, recipe_id: str, name: str) -> bytes:
        """As `GuiLayoutStore.read_picture`."""
        self._mirror.look(recipe_unit(recipe_id), lambda path: path.endswith(f"/{folder_name(name)}"))
        with self._mirror.reading():
            return self._local.read_picture(recipe_id, name)

    def write_picture(self, recipe_id: str, name: str, content: bytes) -> None:
        """As `GuiLayoutStore.write_picture`."""
        self._mirror.change(
            recipe_unit(recipe_id), lambda folder: GuiLayoutStore(folder).write_picture(recipe_id, name, content)
        )

    def delete_picture(self, recipe_id: str, name: str) -> None:
        """As `GuiLayoutStore.delete_picture`."""
        self._mirror.change(
            recipe_unit(recipe_id), lambda folder: GuiLayoutStore(folder).delete_picture(recipe_id, name)
        )
