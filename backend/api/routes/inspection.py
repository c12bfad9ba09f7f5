"""The routes around a memory bank: why an image was judged as it was, and what the bank was built from."""

from functools import partial
from itertools import zip_longest
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from backend.api.examples import ERRORS, multipart
from backend.api.forms import HeaderRecipe, RequestId, Service, complete_form, only_image_of, read_fields, roi_key
from backend.api.routes.datasets import ids_of
from backend.api.schemas.common import RoiIds, model_reply
from backend.api.schemas.inspection import ExplainFields, ExplainReply, GoodPatchReply, ReasonReply
from backend.api.schemas.state import BankEntryReply, BankReply
from backend.roi_mask import parse_shape
from backend.service.explain import explain as explain_image
from backend.service.explain import look

_MAX_FILES = 8  # one is right; some more get the sentence that says so

router = APIRouter()


@router.post(
    "/explain",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses=ERRORS["/infer"],
    openapi_extra=multipart(ExplainFields, {"image": "the canonical ROI image; also `file`"}),
)
async def explain(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> ExplainReply:
    """Judge an image as `/infer` does, and show the good patches that come nearest to its worst places."""
    async with complete_form(request, max_files=_MAX_FILES) as form:
        fields = await read_fields(form, ExplainFields)
        key = roi_key(fields, recipe)
        image = only_image_of(form)
        found = await run_in_threadpool(
            partial(
                explain_image,
                service,
                key,
                image,
                mm_per_px=fields.mm_per_px,
                shape=parse_shape(fields.shape),
                place=fields.place,
                with_pictures=fields.pictures,
            )
        )
    reasons = [
        ReasonReply(
            x=reason.x,
            y=reason.y,
            region=reason.region,
            box=list(reason.box),
            distance=reason.distance,
            good=GoodPatchReply(index=reason.image_index, filename=reason.image.name, box=list(reason.image_box))
            if reason.image_index is not None and reason.image and reason.image_box
            else None,
            picture_png_base64=picture,
        )
        for reason, picture in zip_longest(found.reasons, found.pictures)
    ]
    return ExplainReply(
        score=found.result.inference.score,
        threshold=found.result.calibration.threshold if found.result.calibration else None,
        decision=found.result.decision,
        calibration=found.result.calibration_state,
        reasons=reasons,
        model=model_reply(found.result.fitted),
        **ids_of(key, request_id),
    )


@router.get("/bank", response_model_exclude_none=True, tags=["state"], responses=ERRORS["bank"])
def bank(ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe) -> BankReply:
    """The images that the memory bank was built from: which may be defective, and which it hardly needs."""
    key = roi_key(ids, recipe)
    report = look(service, key)
    percentile = service.settings.score_percentile
    return BankReply(
        coreset_size=len(report.fitted.memory.embeddings),
        covering_radius=report.covering_radius,
        images=[
            BankEntryReply(
                filename=entry.image.name,
                n_kept=entry.n_kept,
                n_unique=entry.image.n_unique,
                score=entry.image.score(percentile),
                suspicious=entry.suspicious,
            )
            for entry in report.entries
        ],
        model=model_reply(report.fitted),
        **ids_of(key, request_id),
    )
