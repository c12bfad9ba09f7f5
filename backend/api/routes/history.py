"""The routes of stored judgements, which are kept if ``HISTORY`` is set."""

from datetime import datetime, timezone
from typing import Annotated

from fastapi import APIRouter, Query, Response

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.schemas.history import HistoryQuery, HistoryReply, JudgementNumber, JudgementReply

router = APIRouter()


@router.get(
    "/history",
    summary="List the last judgements of a ROI.",
    response_model_exclude_none=True,
    tags=["state"],
    responses=ERRORS["history"],
)
def history(
    wanted: Annotated[HistoryQuery, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> HistoryReply:
    """The kept judgements of `/infer`, the newest first; each appears at most two seconds after it was made."""
    key = roi_key(wanted, recipe)
    since, until = (None if time is None else time.timestamp() for time in (wanted.since_utc, wanted.until_utc))
    found = service.history.list(
        key, decision=wanted.decision, before=wanted.before, since=since, until=until, limit=wanted.limit + 1
    )
    shown = found[: wanted.limit]
    return HistoryReply(
        **ids_of(key, request_id),
        keeps=service.history.most,
        judgements=[
            JudgementReply(
                number=one.number,
                at_utc=datetime.fromtimestamp(one.at, timezone.utc).isoformat(timespec="microseconds"),
                score=one.score,
                threshold=one.threshold,
                decision=one.decision,
                decide_by=one.decide_by,
                pixel_threshold=one.pixel_threshold,
                mm_per_px=one.mm_per_px,
                memory_id=one.memory_id,
                request_id=one.request_id,
            )
            for one in shown
        ],
        next=shown[-1].number if len(found) > len(shown) else None,
    )


@router.get(
    "/history/thumbnail",
    summary="Show the part of a stored judgement.",
    response_class=Response,
    tags=["state"],
    responses={200: {"content": {"image/jpeg": {}}, "description": "a small JPEG"}, **ERRORS["judgement"]},
)
def thumbnail(wanted: Annotated[JudgementNumber, Query()], service: Service, recipe: HeaderRecipe) -> Response:
    """A picture of the part, with at most 256 pixels."""
    return Response(service.history.thumbnail(roi_key(wanted, recipe), wanted.number), media_type="image/jpeg")
