"""What routes need from a request besides its body: the service, ids, the recipe of the header."""

from typing import Annotated, Any

from fastapi import Depends, Request

from backend.api.api_keys import Right
from backend.api.lifecycle import Lifecycle
from backend.api.paths import OPEN_PATHS, route_path
from backend.api.schemas.common import RoiIds
from backend.api.schemas.datasets import SampleFile
from backend.api.schemas.gui_layouts import PictureName
from backend.api.schemas.history import HistoryQuery, JudgementNumber
from backend.api.schemas.rois import RoisQuery
from backend.api.schemas.stored_scores import ScoresQuery
from backend.common.config import Settings
from backend.common.error_text import quoted
from backend.common.errors import InvalidRequest
from backend.common.json_members import refuse_repeated
from backend.common.roi_key import RoiKey, canonical_recipe, check_recipe
from backend.common.telemetry import annotate
from backend.service.inspection import InspectionService


# All async, so that /health needs no thread: they may all be taken by requests that wait.
async def lifecycle_of(request: Request) -> Lifecycle:
    """The state of the running application."""
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


async def settings_of(request: Request) -> Settings:
    """The configuration of the running application."""
    settings: Settings = request.app.state.settings
    return settings


async def service_of(request: Request) -> InspectionService:
    """The service of the running application."""
    service: InspectionService = request.app.state.lifecycle.service  # which `Admission` has seen to
    return service


async def request_id_of(request: Request) -> str:
    """The id of the request, which `RequestTelemetry` took from it or made."""
    request_id: str = request.state.request_id
    return request_id


async def is_known(request: Request) -> bool:
    """Whether the client may see everything, according to `Gate`."""
    known: bool = request.state.known
    return known


async def access_of(request: Request) -> Right:
    """What the client may do, if it is known."""
    right: Right = request.state.right
    return right


async def recipe_of_header(request: Request) -> str | None:
    """The recipe of ``X-Recipe-Id``: the name of a layout in any script, unchanged."""
    raw = dict(request.scope["headers"]).get(b"x-recipe-id", b"")
    try:
        return canonical_recipe(raw.decode())
    except UnicodeDecodeError:
        return canonical_recipe(raw.decode("latin-1"))


Running = Annotated[Lifecycle, Depends(lifecycle_of)]
Configuration = Annotated[Settings, Depends(settings_of)]
Service = Annotated[InspectionService, Depends(service_of)]
RequestId = Annotated[str, Depends(request_id_of)]
Known = Annotated[bool, Depends(is_known)]
Access = Annotated[Right, Depends(access_of)]
HeaderRecipe = Annotated[str | None, Depends(recipe_of_header)]


_QUERY_NAMES = dict.fromkeys(
    name
    for query in (SampleFile, PictureName, RoisQuery, ScoresQuery, HistoryQuery, JudgementNumber)
    for name in query.model_fields
)


async def refuse_ambiguous(request: Request) -> None:
    """Refuse a query or a small JSON body in which a name has several values, because only the last one would count.

    Raises:
        InvalidRequest: a name has several values; the message says which.
    """
    if route_path(request.scope) in OPEN_PATHS:  # which are never an error
        return
    for name in _QUERY_NAMES:
        values = dict.fromkeys(request.query_params.getlist(name))
        if len(values) > 1:
            told = ", ".join(map(quoted, values))
            raise InvalidRequest(f"{name} was sent several times with different values ({told}); send it once")
    if request.scope["route"].body_field is not None:  # that FastAPI read and parsed
        refuse_repeated(await request.body())


def roi_key(ids: RoiIds, header_recipe: str | None) -> RoiKey:
    """The ROI of a request; its own recipe takes precedence over that of the header.

    Raises:
        ReservedRecipe, InvalidRequest: see `check_recipe`.
    """
    key = ids.roi_key(header_recipe)
    annotate(role_id=key.role_id, roi_id=key.roi_id)
    if key.recipe_id is not None:
        annotate(recipe_id=key.recipe_id, model_key=key.model)
    check_recipe(key.recipe_id)
    return key


def named_recipe(recipe_id: str | None, header_recipe: str | None) -> str | None:
    """The recipe in the query of a request, else in its header; None if neither names one.

    Raises:
        ReservedRecipe, InvalidRequest: see `check_recipe`.
    """
    recipe = canonical_recipe(recipe_id or "") or header_recipe
    if recipe is not None:
        annotate(recipe_id=recipe)
    check_recipe(recipe)
    return recipe


def ids_of(key: RoiKey, request_id: str) -> dict[str, Any]:
    """The ids that every reply about a ROI carries."""
    return {
        "role_id": key.role_id,
        "roi_id": key.roi_id,
        "recipe_id": key.recipe,
        "model_key": key.model,
        "request_id": request_id,
    }
