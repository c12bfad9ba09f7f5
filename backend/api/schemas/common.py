"""Parts of requests and replies that several routers share, as pydantic models, with the examples of ``/docs``."""

from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PrivateAttr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from backend.common.error_text import MOST_NAMES, about_unknown, nearest, quoted
from backend.common.errors import ErrorCode
from backend.common.profiles import CONTRACT, ProfileName
from backend.common.roi_key import MAX_RECIPE_CHARACTERS, RoiKey, canonical_recipe, unseen_in
from backend.disk.fitted import FittedRoi
from backend.utils import MAX_MM_PER_PX, MIN_MM_PER_PX

# What existing clients send where it has no effect, such as the metadata of an image beside it: no reason to warn.
SENT_BY_CLIENTS = frozenset(
    {
        *("request_id", "recipe_id", "model_key", "memory_fit", "use_dataset"),
        *("label", "filename", "angle", "timestamp", "shape_json", "created_at_utc", "source_path"),
    }
)

DETAIL = "number of tiles along each side of the ROI; left out for 1"
MEMORY_ID = Field(
    description="identity of the memory bank: hash of its embeddings", examples=["9f86d081884c7d659a2feaa0c55ad015"]
)


def _without_unseen(text: str) -> str:
    if unseen := unseen_in(text):
        raise PydanticCustomError("unseen", "contains {unseen}; send it without", {"unseen": unseen})
    return text


# As `unseen_in` has it, for clients that make requests from the document.
_ONE_LINE = {"pattern": r"^[^\ufeff\n\v\f\r\u001c-\u001e\u0085\u2028\u2029]*$"}
_Seen = AfterValidator(_without_unseen)
Identifier = Annotated[str, Field(min_length=1, max_length=128, json_schema_extra=_ONE_LINE), _Seen]
_RecipeName = Annotated[str, Field(max_length=MAX_RECIPE_CHARACTERS, json_schema_extra=_ONE_LINE), _Seen]
_ModelKey = Annotated[str, Field(max_length=128, json_schema_extra=_ONE_LINE), _Seen]
MillimetresPerPixel = Annotated[
    FiniteFloat,
    Field(
        ge=MIN_MM_PER_PX, le=MAX_MM_PER_PX, description="millimetres per pixel of the uploaded image", examples=[0.2]
    ),
]


class RequestFields(BaseModel):
    """Unknown fields are ignored: newer clients send more."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def zero_is_none(value: Any) -> Any:
    """None for 0, which some clients send for an unknown value."""
    return None if isinstance(value, int | float) and value == 0 else value


def or_zero(schema: dict[str, Any]) -> None:
    """Make the schema of a number also accept 0."""
    schema["anyOf"].append({"type": "number", "const": 0})


def json_number(value: Any) -> Any:
    """In JSON, a text or a boolean is not a number, as in the OpenAPI document. In a form, everything is text."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "must be a number")
    return value


JsonNumber = BeforeValidator(json_number)


def empty_is_none(value: Any) -> Any:
    """None for an empty text."""
    return None if isinstance(value, str) and not value.strip() else value


class RoiIds(RequestFields):
    """The ids of every request."""

    role_id: Identifier = Field(description="inspection role, as the GUI names it", examples=["Master1"])
    roi_id: Identifier = Field(description="region of interest within the role", examples=["Pattern"])
    recipe_id: Annotated[_RecipeName | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="recipe (the layout of the GUI), case-insensitive; default: the header X-Recipe-Id, else none",
        examples=[None],
    )
    model_key: Annotated[_ModelKey | None, BeforeValidator(empty_is_none)] = Field(
        None,
        description="model of the ROI; default: roi_id; has no effect without a recipe",
        examples=[None],
    )

    def roi_key(self, other_recipe: str | None = None) -> RoiKey:
        """The ROI of the request.

        Args:
            other_recipe: recipe if the request names none.
        """
        return RoiKey(self.role_id, self.roi_id, canonical_recipe(self.recipe_id or "") or other_recipe, self.model_key)


class RecipeName(RequestFields):
    """Query of requests about a recipe."""

    recipe_id: Annotated[_RecipeName | None, BeforeValidator(empty_is_none)] = Field(
        None, description="recipe, case-insensitive; default: the header X-Recipe-Id, else default", examples=[None]
    )


class RoiFields(RoiIds):
    """The ids and the scale of every request with images."""

    mm_per_px: MillimetresPerPixel


def _as_if_ignored(schema: dict[str, Any]) -> None:
    schema.pop("additionalProperties")


class TellsUnknown(RequestFields):
    """A request whose reply names its unknown members; these have no effect."""

    # Kept instead of ignored only to be named; the document says nothing of it.
    model_config = ConfigDict(extra="allow", json_schema_extra=_as_if_ignored)
    _doubts: tuple[str, ...] = PrivateAttr(())

    def also_tell(self, *doubts: str) -> None:
        """Keep further remarks about how the members were sent."""
        self._doubts += doubts

    @property
    def doubts(self) -> str | None:
        """Remarks about the members: which have no effect, and what `also_tell` kept.

        Members that known clients send needlessly are not named.
        """
        names = [name for name in self.model_extra or {} if name not in SENT_BY_CLIENTS]
        members = [about_unknown(names, list(type(self).model_fields))] if names else []
        return "; ".join((*members, *self._doubts)) or None


_MOST_COMPARED = 50
UNKNOWN_MEMBERS = "unknown_members"
"""Type of the error of a request with misspelt members."""


class KnownOnly(TellsUnknown):
    """A request that is refused if the name of a member is probably misspelt."""

    @model_validator(mode="after")
    def _known_only(self) -> "KnownOnly":
        known = list(type(self).model_fields)
        names = islice((name for name in self.model_extra or {} if name not in SENT_BY_CLIENTS), _MOST_COMPARED)
        misspelt = [name for name in names if nearest(name, known)]
        if misspelt:
            raise PydanticCustomError(UNKNOWN_MEMBERS, "{unknown}", {"unknown": about_unknown(misspelt, known)})
        return self


def about_unused_files(numbers: Mapping[str, int]) -> str:
    """A remark about files that are not used.

    >>> about_unused_files({"pictures": 2, "photo": 1})
    "3 files are not used: 2 in the field 'pictures', 1 in the field 'photo'; send images in the field 'images'"

    Args:
        numbers: numbers of files by field; at least one.
    """
    told = [f"{number} in the field {quoted(name)}" for name, number in islice(numbers.items(), MOST_NAMES)]
    more = len(numbers) - len(told)
    total = sum(numbers.values())
    return (
        f"{total} {'file is' if total == 1 else 'files are'} not used: {', '.join(told)}"
        f"{f' and {more} more fields' if more else ''}; send images in the field 'images'"
    )


class Reply(BaseModel):
    """A body; its fields may begin with ``model_``."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorReply(Reply):
    """The body of every error."""

    error: str = Field(description="what went wrong and what to do about it")
    trace: str = Field(description="where it went wrong, without absolute paths; empty with TRACE=false")
    code: ErrorCode = Field(description="what went wrong, for programs; each is explained in docs/api.md")


class RoiReply(Reply):
    """The ids in every reply about a ROI."""

    role_id: str = Field(examples=["Master1"])
    roi_id: str = Field(examples=["Pattern"])
    recipe_id: str = Field(description="recipe of the request", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class ModelReply(Reply):
    """The stored model that was used."""

    role_id: str = Field(examples=["Master1"])
    recipe_id: str = Field(description="default if the recipe has no model of its own", examples=["default"])
    model_key: str = Field(examples=["Pattern"])
    layout: Literal["current", "L4", "L3", "L2", "L1", "L0"] = Field(
        description="current, or the layout of the older backend that stored it", examples=["current"]
    )
    memory_id: str = MEMORY_ID
    profile: ProfileName | None = Field(
        None, description="profile of its memory bank; left out for the profile of the contract", examples=[None]
    )
    detail: int | None = Field(None, description=DETAIL, examples=[None])


def model_reply(fitted: FittedRoi) -> ModelReply:
    """Which stored model was used."""
    key = fitted.key
    return ModelReply(
        role_id=key.role_id,
        recipe_id=key.recipe,
        model_key=key.model,
        layout=fitted.layout,
        memory_id=fitted.memory_id,
        profile=fitted.profile if fitted.profile != CONTRACT else None,
        detail=fitted.detail if fitted.detail != 1 else None,
    )
