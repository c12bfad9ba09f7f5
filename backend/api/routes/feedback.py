"""The route of a person's verdict: ``/feedback`` counts one image as good or as defective."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.forms import complete_form, only_image_of, read_fields
from backend.api.openapi import multipart
from backend.api.schemas.calibration import PromiseReply
from backend.api.schemas.common import model_reply
from backend.api.schemas.feedback import FeedbackFields, FeedbackReply, known_reply
from backend.roi_mask import requested_shape
from backend.service.doubts import joined
from backend.service.feedback import give_feedback

_MAX_FILES = 8  # one is right; some more get the sentence that says so

router = APIRouter()


@router.post(
    "/feedback",
    summary="Say that a rejected part was good, or an accepted one bad.",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses=ERRORS["/feedback"],
    openapi_extra=multipart(FeedbackFields, {"image": "the canonical ROI image; also `file`, `images`"}),
)
async def feedback(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> FeedbackReply:
    """Count an image as good or as defective: memory bank and calibration change in one step, or not at all."""
    async with complete_form(request, max_files=_MAX_FILES) as form:
        fields = await read_fields(form, FeedbackFields)
        key = roi_key(fields, recipe)
        image = only_image_of(form)
        shape, shape_doubt = requested_shape(fields.shape)
        told = await run_in_threadpool(
            partial(
                give_feedback,
                service,
                key,
                image,
                fields.verdict,
                mm_per_px=fields.mm_per_px,
                shape=shape,
                dry_run=fields.dry_run,
            )
        )
    promise = told.calibration.promise
    return FeedbackReply(
        verdict=told.verdict,
        dry_run=told.dry_run,
        changed=told.changed,
        text=told.text,
        score=told.score,
        decision=told.decision,
        score_after=told.score_after,
        before=known_reply(told.before),
        after=known_reply(told.after),
        n_rejected_if_caught=told.n_rejected_if_caught,
        n_added=told.n_added,
        coreset_size=len(told.fitted.memory.embeddings),
        memory_id=told.fitted.memory_id,
        rule=told.calibration.rule,
        why=told.calibration.why,
        promise=PromiseReply.model_validate(promise) if promise else None,
        model=model_reply(told.fitted),
        warning=joined([told.warning, shape_doubt, fields.doubts]),
        **ids_of(key, request_id),
    )
