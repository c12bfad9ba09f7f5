"""What GUIs keep of recipes, in an object store: the layout and the pictures of a recipe change in one swap."""

from collections.abc import Callable

from backend.disk.gui_layouts import GuiLayoutStore
from backend.object_store.mirror import Mirror
from backend.object_store.units import recipe_unit


class ObjectLayoutStore:
    """Layouts of recipes; arguments, results and errors as of `GuiLayoutStore`, and `StoreUnavailable`.

    Args:
        mirror: the units.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._local = GuiLayoutStore(mirror.root)

    def read(self, recipe_id: str) -> bytes:
        """As `GuiLayoutStore.read`."""
        self._look(recipe_id)
        with self._mirror.reading():
            return self._local.read(recipe_id)

    def write(self, recipe_id: str, content: bytes, accept: Callable[[str | None], None]) -> str:
        """As `GuiLayoutStore.write`; `accept` is called again where somebody else was faster."""
        return self._mirror.change(
            recipe_unit(recipe_id), lambda folder: GuiLayoutStore(folder).write(recipe_id, content, accept)
        )

    def pictures(self, recipe_id: str) -> dict[str, int]:
        """As `GuiLayoutStore.pictures`."""
        self._look(recipe_id)
        with self._mirror.reading():
            return self._local.pictures(recipe_id)

    def read_picture(self, recipe_id: str, name: str) -> bytes:
        """As `GuiLayoutStore.read_picture`."""
        self._look(recipe_id)
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

    def _look(self, recipe_id: str) -> None:
        self._mirror.look(recipe_unit(recipe_id), lambda _: True)
