"""The routes of what a GUI stores for a recipe: ``/layout``, which only the GUI understands, and its pictures."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from backend.api.dependencies import HeaderRecipe, RequestId, Service, named_recipe
from backend.api.examples import ERRORS
from backend.api.forms import IMAGE_TYPE
from backend.api.json_body import max_layout_bytes, read_json_object
from backend.api.middleware.bodies import MostBytes, received
from backend.api.schemas.common import RecipeName
from backend.api.schemas.gui_layouts import (
    LayoutReply,
    PictureName,
    PictureReply,
    PicturesReply,
    StoredPictureReply,
)
from backend.common.errors import ConditionMissing, LayoutChanged, WrongBody
from backend.common.roi_key import DEFAULT_RECIPE
from backend.service.gui_layouts import MAX_PICTURE_BYTES, etag_of, media_type, store_picture

_ETAG = re.compile(r'\s*(?:W/)?"([^"]*)"\s*')  # proxies that compress replies make strong tags weak
_ETAG_HEADER = {"ETag": {"description": "of the layout", "schema": {"type": "string"}}}
_LAYOUT_EXAMPLE = {"inspections": [{"roi_id": "Pattern", "x": 120, "y": 80}]}
_LAYOUT_REPLY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "as it was sent",
        "headers": _ETAG_HEADER,
        "content": {"application/json": {"example": _LAYOUT_EXAMPLE}},
    }
}
_LAYOUT_BODY = {"schema": {"type": "object", "additionalProperties": True}, "example": _LAYOUT_EXAMPLE}
_BYTES = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter()


@router.put(
    "/layout",
    summary="Store the layout of a recipe for a GUI.",
    tags=["layouts"],
    responses={200: {"headers": _ETAG_HEADER}, **ERRORS["put layout"]},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": _LAYOUT_BODY}}},
)
async def write_layout(
    request: Request,
    response: Response,
    wanted: Annotated[RecipeName, Query()],
    service: Service,
    request_id: RequestId,
    recipe: HeaderRecipe,
    if_match: Annotated[str | None, Header(description="ETag of the layout that is replaced")] = None,
    if_none_match: Annotated[str | None, Header(description="`*`: no layout is stored yet", examples=["*"])] = None,
) -> LayoutReply:
    """Replace the layout of a recipe with a JSON object, if the stored layout is the one that the client has read."""
    named = named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE
    condition = _condition(named, if_match, if_none_match)
    content = await read_json_object(request, max_layout_bytes(service.settings))
    tag = await run_in_threadpool(service.layouts.write, named, content, condition)
    response.headers["ETag"] = f'"{tag}"'
    return LayoutReply(recipe_id=named, request_id=request_id, etag=tag)


@router.get(
    "/layout",
    summary="Read the layout of a recipe for a GUI.",
    response_class=Response,
    tags=["layouts"],
    responses={**_LAYOUT_REPLY, **ERRORS["layout"]},
)
def read_layout(
    wanted: Annotated[RecipeName, Query()],
    service: Service,
    recipe: HeaderRecipe,
    if_none_match: Annotated[
        str | None, Header(description="ETag of the layout that the client has: 304 if it is still the stored one")
    ] = None,
) -> Response:
    """The layout of a recipe, byte for byte as it was sent."""
    content = service.layouts.read(named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE)
    tag = etag_of(content)
    headers = {"ETag": f'"{tag}"'}
    if if_none_match is not None and _names(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/json", headers=headers)


@router.put(
    "/layout/picture",
    summary="Store a picture beside the layout of a recipe.",
    tags=["layouts"],
    responses=ERRORS["put picture"],
    openapi_extra={"requestBody": {"required": True, "content": {"image/png": _BYTES, "image/jpeg": _BYTES}}},
)
async def write_picture(
    request: Request,
    wanted: Annotated[PictureName, Query()],
    service: Service,
    request_id: RequestId,
    recipe: HeaderRecipe,
) -> PictureReply:
    """Store a PNG or JPEG under a name; a picture with this name is replaced."""
    named = named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE
    if not IMAGE_TYPE.fullmatch(request.headers.get("content-type", "")):
        raise WrongBody(received(request.scope))
    request.state.most_bytes = MostBytes(MAX_PICTURE_BYTES, "send a smaller picture")
    content = await request.body()
    await run_in_threadpool(store_picture, service, named, wanted.name, content)
    return PictureReply(recipe_id=named, request_id=request_id, name=wanted.name)


@router.get(
    "/layout/pictures",
    summary="List the pictures beside the layout of a recipe.",
    tags=["layouts"],
    responses=ERRORS["read"],
)
def list_pictures(
    wanted: Annotated[RecipeName, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> PicturesReply:
    """The names and sizes of the pictures of a recipe."""
    named = named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE
    pictures = service.layouts.pictures(named)
    listed = [StoredPictureReply(name=name, bytes=size) for name, size in pictures.items()]
    return PicturesReply(recipe_id=named, request_id=request_id, pictures=listed)


@router.get(
    "/layout/picture",
    summary="Read a picture beside the layout of a recipe.",
    response_class=Response,
    tags=["layouts"],
    responses={200: {"content": {"image/*": {}}, "description": "the bytes"}, **ERRORS["picture"]},
)
def read_picture(wanted: Annotated[PictureName, Query()], service: Service, recipe: HeaderRecipe) -> Response:
    """The bytes of a picture, as they were sent."""
    named = named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE
    content = service.layouts.read_picture(named, wanted.name)
    return Response(content, media_type=media_type(content))


@router.delete(
    "/layout/picture",
    summary="Delete a picture beside the layout of a recipe.",
    tags=["layouts"],
    responses=ERRORS["delete picture"],
)
def delete_picture(
    wanted: Annotated[PictureName, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> PictureReply:
    """Delete a picture."""
    named = named_recipe(wanted.recipe_id, recipe) or DEFAULT_RECIPE
    service.layouts.delete_picture(named, wanted.name)
    return PictureReply(recipe_id=named, request_id=request_id, name=wanted.name)


def _condition(recipe_id: str, if_match: str | None, if_none_match: str | None) -> Callable[[str | None], None]:
    """Refuses to replace a layout, depending on its tag and the headers; the tag is None if there is no layout.

    Raises:
        ConditionMissing: the headers have no condition.
    """
    is_first = if_none_match is not None and if_none_match.strip() == "*"
    if if_match is None and not is_first:
        raise ConditionMissing(
            "the request does not say which layout it replaces: send the header If-Match with the ETag of GET /layout, "
            "or If-None-Match: * for the first layout"
        )

    def check(tag: str | None) -> None:
        if is_first and tag is not None:
            raise LayoutChanged(
                f"recipe {recipe_id!r} has a layout: GET it, and send its ETag in the header If-Match", tag
            )
        if if_match is not None and (tag is None or not _names(if_match, tag)):
            if tag is None:
                raise LayoutChanged(f"recipe {recipe_id!r} has no layout: send If-None-Match: * for the first layout")
            raise LayoutChanged(
                f"the layout of recipe {recipe_id!r} was replaced since it was read; nothing was stored: GET it again, "
                "and send its ETag in the header If-Match",
                tag,
            )

    return check


def _names(header: str, tag: str) -> bool:
    """Whether a header with tags names this tag."""
    return header.strip() == "*" or tag in _ETAG.findall(header)
