"""Settings of recipes in an object store: the scale, which is written once.

A request that will store something with a scale first announces it, in its own file in the manifest of the recipe. From
then on, the scale applies. If nothing was stored, the request withdraws its file, and the last one also removes the
scale. The file of a killed process stays, because it is unknown what the process stored.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from backend.common.errors import ScaleLocked, StoreUnavailable
from backend.disk.layout import recipe_folder
from backend.disk.recipes import RECIPE_FILE, read_settings, same_scale, settings_bytes
from backend.object_store.manifest import Manifest
from backend.object_store.mirror import Mirror
from backend.object_store.swap import OutcomeUnknown
from backend.object_store.units import PENDING_FOLDER, recipe_unit
from backend.object_store.uploading import Edit
from backend.utils import utc_now


class ObjectRecipeStore:
    """Settings of recipes; arguments, results and errors as for `RecipeStore`, and `StoreUnavailable`.

    Args:
        mirror: the units.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def mm_per_px(self, recipe_id: str | None) -> float | None:
        """As `RecipeStore.mm_per_px`; without a look at the store if the scale is known, because it never changes."""
        if recipe_id is None:
            return None
        settled = read_settings(self._folder(recipe_id) / RECIPE_FILE)
        if not settled:
            self._mirror.look(recipe_unit(recipe_id))
            with self._mirror.reading():
                scales = self._scales(recipe_id)
            return scales[0] if scales else None
        return float(settled["mm_per_px"])

    def check(self, recipe_id: str | None, mm_per_px: float) -> None:
        """As `RecipeStore.check`."""
        locked = self.mm_per_px(recipe_id)
        if locked is not None and not same_scale(locked, mm_per_px):
            raise _locked(recipe_id, mm_per_px, locked)

    @contextlib.contextmanager
    def locking_scale(
        self, recipe_id: str | None, mm_per_px: float | None, stored: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """As `RecipeStore.locking_scale`; others may store with the same scale meanwhile."""
        if recipe_id is None or mm_per_px is None:
            yield
            return
        unit = recipe_unit(recipe_id)
        settled = recipe_folder(Path(), recipe_id).joinpath(RECIPE_FILE).as_posix()
        own = recipe_folder(Path(), recipe_id).joinpath(PENDING_FOLDER, uuid.uuid4().hex).as_posix()
        content = settings_bytes(recipe_id, mm_per_px, utc_now().isoformat())
        if read_settings(self._mirror.root / settled):
            self.check(recipe_id, mm_per_px)
            yield
            return

        def claim(_: Manifest) -> dict[str, Edit]:
            for scale in self._scales(recipe_id):
                if not same_scale(scale, mm_per_px):
                    raise _locked(recipe_id, mm_per_px, scale)
            return {} if (self._mirror.root / settled).exists() else {own: content}

        def settle(manifest: Manifest) -> dict[str, Edit]:
            return {own: None, **({} if settled in manifest.files else {settled: content})}

        before = stored()
        self._mirror.edit(unit, claim)
        try:
            yield
        except OutcomeUnknown:
            raise
        except BaseException:
            with contextlib.suppress(StoreUnavailable):  # else it holds, as that of a killed process
                if stored() == before:
                    self._mirror.edit(unit, lambda _: {own: None})
            raise
        self._mirror.edit(unit, settle)

    def _folder(self, recipe_id: str) -> Path:
        return recipe_folder(self._mirror.root, recipe_id)

    def _scales(self, recipe_id: str) -> list[float]:
        """The locked scale, and the announced ones."""
        folder = self._folder(recipe_id)
        files = [folder / RECIPE_FILE, *sorted((folder / PENDING_FOLDER).glob("*"))]
        return [float(found["mm_per_px"]) for file in files if (found := read_settings(file))]


def _locked(recipe_id: str | None, mm_per_px: float, locked: float) -> ScaleLocked:
    return ScaleLocked(
        f"mm_per_px is {mm_per_px:g}, but recipe {recipe_id!r} is locked to mm_per_px {locked:g}, as in its first fit "
        "or upload: send that value, or use another recipe"
    )
