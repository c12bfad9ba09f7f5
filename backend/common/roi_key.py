"""The name of a ROI: its role, roi, recipe and model key, as clients send them."""

import unicodedata
from dataclasses import dataclass, replace

from backend.common.errors import InvalidRequest, ReservedRecipe

DEFAULT_RECIPE = "default"
INSPECTION_ROLE = "Inspection"
MAX_RECIPE_CHARACTERS = 1000
_RESERVED_RECIPE = "last"
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class RoiKey:
    """Names one ROI, with role, roi and model key exactly as the client sends them.

    Attributes:
        role_id, roi_id: the ROI.
        recipe_id: as `canonical_recipe` gives it; None, the default recipe, if the client named none.
        model_key: model of the ROI; None is the ROI's own, named by `roi_id`. Has no effect without a recipe.
    """

    role_id: str
    roi_id: str
    recipe_id: str | None = None
    model_key: str | None = None

    @property
    def recipe(self) -> str:
        """The recipe, with its default."""
        return DEFAULT_RECIPE if self.recipe_id is None else self.recipe_id

    @property
    def model(self) -> str:
        """The model key, with its default."""
        return self.roi_id if self.recipe_id is None or self.model_key is None else self.model_key

    @property
    def owner(self) -> "RoiKey":
        """The canonical one of the keys for the same model."""
        if self.recipe == DEFAULT_RECIPE and self.model == self.roi_id:
            return RoiKey(self.role_id, self.roi_id)
        return replace(self, model_key=self.model)

    def __str__(self) -> str:
        model = f", model_key {self.model!r}" if self.model != self.roi_id else ""
        recipe = "" if self.recipe_id is None else f", recipe {self.recipe_id!r}"
        return f"role {self.role_id!r}, roi {self.roi_id!r}{model}{recipe}"


def unseen_in(text: str) -> str | None:
    r"""An invisible character in an id, with which it would name another ROI than it seems to; None if there is none.

    >>> unseen_in("Master1"), unseen_in("\ufeffMaster1"), unseen_in("Master1\r\n")
    (None, 'a byte order mark (U+FEFF)', 'a line break')
    """
    if _BYTE_ORDER_MARK in text:
        return "a byte order mark (U+FEFF)"
    return "a line break" if text.splitlines() not in ([text], []) else None


def canonical_recipe(text: str) -> str | None:
    """The recipe of a layout name of a client: without outer blanks, in lower case.

    >>> canonical_recipe(" My Layout 1"), canonical_recipe("DEFAULT"), canonical_recipe(" ")
    ('my layout 1', 'default', None)
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).strip() or None


def check_recipe(recipe_id: str | None) -> None:
    """Refuse a reserved or invalid recipe.

    Raises:
        ReservedRecipe: it is "last".
        InvalidRequest: its name is too long, or it contains an invisible character.
    """
    if recipe_id is not None and len(recipe_id) > MAX_RECIPE_CHARACTERS:
        raise InvalidRequest(f"recipe_id: at most {MAX_RECIPE_CHARACTERS} characters are accepted")
    if recipe_id is not None and (unseen := unseen_in(recipe_id)):
        raise InvalidRequest(f"recipe_id: contains {unseen}; send it without")
    if recipe_id == _RESERVED_RECIPE:
        raise ReservedRecipe(f"recipe {_RESERVED_RECIPE!r} is reserved: save the layout under another name")


def roles(key: RoiKey) -> tuple[str, ...]:
    """The roles that the model of a ROI may be stored under.

    Clients that name recipes change the role of every roi called "inspection…" to "Inspection" when they fit and infer,
    but not when they ask for the state or send images. A model under the other role in the default recipe was fitted by
    clients that name no recipe.
    """
    if key.recipe_id is None or not is_inspection(key) or key.role_id == INSPECTION_ROLE:
        return (key.role_id,)
    return (INSPECTION_ROLE, key.role_id) if key.recipe == DEFAULT_RECIPE else (key.role_id, INSPECTION_ROLE)


def is_inspection(key: RoiKey) -> bool:
    """Whether some clients change the role of this ROI to "Inspection"; see `roles`."""
    return key.roi_id.casefold().startswith("inspection")
