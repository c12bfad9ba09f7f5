"""Requests and replies about the layout of a recipe."""

from typing import Literal

from pydantic import Field

from backend.api.schemas.common import Identifier, RecipeName, Reply


class PictureName(RecipeName):
    """Query of requests about one picture of a layout."""

    name: Identifier = Field(description="name of the picture; any text", examples=["anchor 1"])


class _RecipeReply(Reply):
    status: Literal["ok"] = Field(default="ok", examples=["ok"])
    recipe_id: str = Field(description="recipe of the request", examples=["default"])
    request_id: str = Field(examples=["0f8fad5b-d9cb-469f-a165-70867728950e"])


class LayoutReply(_RecipeReply):
    """A layout that was stored."""

    etag: str = Field(
        description="ETag of the layout, as in the header but without quotes",
        examples=["9f86d081884c7d659a2feaa0c55ad015"],
    )


class PictureReply(_RecipeReply):
    """A picture that was stored or deleted."""

    name: str = Field(examples=["anchor 1"])


class StoredPictureReply(Reply):
    """A picture of a layout."""

    name: str = Field(examples=["anchor 1"])
    bytes: int = Field(description="size of the file in bytes", examples=[20480])


class PicturesReply(_RecipeReply):
    """The pictures of a layout, sorted by name."""

    pictures: list[StoredPictureReply]
