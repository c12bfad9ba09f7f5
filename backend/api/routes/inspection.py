"""The routes of an inspection: fit, calibrate, infer, and why an image was judged as it was."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.forms import complete_form, images_of, only_image_of, read_fields
from backend.api.json_body import read_json
from backend.api.openapi import json_body, multipart
from backend.api.reply_examples import INFER_EXAMPLES
from backend.api.schemas.calibration import CalibrateReply, CalibrateRequest, RecommendedReply, UnusualReply
from backend.api.schemas.common import model_reply
from backend.api.schemas.inspection import (
    ExplainFields,
    ExplainReply,
    FitFields,
    FitReply,
    GoodPatchReply,
    InferFields,
    InferReply,
    ReasonReply,
    ScoredReply,
    SuspiciousReply,
    region_reply,
    told_of,
)
from backend.calib import recommended_for
from backend.common.errors import InvalidRequest
from backend.common.profiles import CONTRACT
from backend.common.program import PROGRAM
from backend.roi_mask import requested_shape
from backend.service.calibrate import calibrate
from backend.service.datasets import fit_stored
from backend.service.doubts import about_calibration, about_percentile, about_scores, joined
from backend.service.explain import explain as explain_image
from backend.service.fit import fit
from backend.service.judge import infer as infer_image
from backend.service.judgement_log import judgement_of
from backend.service.scoring import Scoring

_MAX_FILES = 8  # one is right; some more get the sentence that says so

router = APIRouter()


@router.post(
    "/fit_ok",
    summary="Learn what good parts look like from good images.",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses=ERRORS["/fit_ok"],
    openapi_extra=multipart(
        FitFields,
        {"images": "good images of the ROI; also `images[]`, `images[0]`, …, `image`, `file`; none with use_dataset"},
        files_required=False,
    ),
)
async def fit_ok(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> FitReply:
    """Learn what OK looks like from 1..N good images and replace the ROI's memory bank."""
    async with complete_form(request, max_files=service.settings.max_files) as form:
        fields = await read_fields(form, FitFields)
        key = roi_key(fields, recipe)
        images = images_of(form)
        if fields.use_dataset and images:
            raise InvalidRequest("use_dataset fits the stored images: send no files, or leave use_dataset out")
        shape, shape_doubt = requested_shape(fields.shape)
        run = partial(fit_stored, service, key)
        if not fields.use_dataset:
            run = partial(fit, service, key, images, shapes=[shape] * len(images))
        result = await run_in_threadpool(
            run,
            mm_per_px=fields.mm_per_px,
            keep_all=fields.memory_fit,
            append=fields.append,
            thumbnails=fields.thumbnails,
            group_copies=fields.group_copies,
            profile=fields.profile,
            detail=fields.detail,
            smallest_defect_mm=fields.smallest_defect_mm,
        )
    percentile = service.score_percentile_of(result.profile, result.detail)
    return FitReply(
        calibration=result.calibration_state,
        n_embeddings=result.n_embeddings,
        coreset_size=result.coreset_size,
        memory_id=result.memory_id,
        profile=result.profile if result.profile != CONTRACT else None,
        detail=result.detail if result.detail != 1 else None,
        detail_reason=result.detail_reason,
        token_shape=list(result.token_hw),
        ok_scores=result.ok_scores,
        ok_scores_sample=(
            None
            if result.ok_scores_sample is None
            else [ScoredReply(**vars(image)) for image in result.ok_scores_sample]
        ),
        suspicious=[SuspiciousReply(**vars(image)) for image in result.suspicious],
        warning=joined(
            [
                result.warning,
                result.unscored,
                about_percentile(percentile, "SCORE_PERCENTILE"),
                shape_doubt,
                fields.doubts,
            ]
        ),
        **ids_of(key, request_id),
    )


@router.post(
    "/calibrate_ng",
    summary="Choose the threshold from scores of good and defective parts.",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses=ERRORS["/calibrate_ng"],
    openapi_extra=json_body(CalibrateRequest),
)
async def calibrate_ng(
    request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> CalibrateReply:
    """Choose and store the threshold of the ROI from scores of `/infer`."""
    body = await read_json(request, CalibrateRequest)
    key = roi_key(body, recipe)
    _check_decided_by_scores(body)
    ok_scores, ng_scores = body.ok_scores, body.ng_scores or []
    options = replace(body.threshold_options(), keep=tuple(body.keep), not_good=tuple(body.not_good))
    calibration = await run_in_threadpool(
        calibrate,
        service,
        key,
        ok_scores,
        ng_scores,
        mm_per_px=body.mm_per_px,
        area_mm2_thr=body.area_mm2_thr,
        score_percentile=body.score_percentile,
        memory_id=body.memory_id,
        options=options,
    )
    recommended = await run_in_threadpool(recommended_for, ok_scores, ng_scores, options)
    fitted = (await run_in_threadpool(service.state, key)).fitted
    sent_area = body.area_mm2_thr is not None
    doubts = about_calibration(
        key, calibration, fitted, service.settings, sent_area=sent_area, sent_percentile=body.score_percentile
    )
    values = {
        **vars(calibration),
        "unusual": _named_by_position(calibration.unusual, ok_scores),
        "lowered_by": _named_by_position(calibration.lowered_by, ng_scores),
    }
    return CalibrateReply(
        **values,
        recommended=RecommendedReply(
            threshold=recommended.threshold,
            why=recommended.why,
            positions=list(recommended.unusual),
            threshold_with_unusual=recommended.threshold_with_unusual if recommended.unusual else None,
        ),
        warning=joined([calibration.warning, about_scores(ok_scores, ng_scores), doubts, body.doubts]),
        model=model_reply(fitted) if fitted else None,
        **ids_of(key, request_id),
    )


def _check_decided_by_scores(body: CalibrateRequest) -> None:
    if body.decide_by != "score" or body.pixel_threshold is not None:
        asked = f"decide_by={body.decide_by}" if body.decide_by != "score" else "pixel_threshold"
        raise InvalidRequest(
            f"{asked} needs images, but /calibrate_ng receives only scores: use /calibrate_dataset, or in a shell "
            f"`{PROGRAM} calibrate` with --decide-by"
        )


def _named_by_position(positions: Sequence[int] | None, scores: Sequence[float]) -> list[UnusualReply] | None:
    named = [
        UnusualReply(position=position, score=scores[position], filename=None, uploaded_as=None)
        for position in positions or ()
    ]
    return named or None


@router.post(
    "/infer",
    summary="Score one image and decide whether the part is good.",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses={200: {"content": {"application/json": {"examples": INFER_EXAMPLES}}}, **ERRORS["/infer"]},
    openapi_extra=multipart(InferFields, {"image": "the canonical ROI image; also `file`, `images`"}),
)
async def infer(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> InferReply:
    """Score one image against the ROI's memory bank, by the ROI's stored calibration."""
    async with complete_form(request, max_files=_MAX_FILES) as form:
        fields = await read_fields(form, InferFields)
        key = roi_key(fields, recipe)
        image = only_image_of(form)
        shape, shape_doubt = requested_shape(fields.shape)
        scoring = Scoring(fields.mm_per_px, shape, with_why=fields.why)
        is_kept = service.history.most > 0 and not fields.trial
        judged = partial(infer_image, service, key, image, scoring, wanted=fields.wanted, with_thumbnail=is_kept)
        result = await run_in_threadpool(judged)
    if not fields.trial:
        service.drift.record(key, result.fitted, result.inference.score, fields.part_id)
    if result.thumbnail is not None:
        judgement = judgement_of(result, fields.mm_per_px, request_id)
        service.history.record(key, judgement, result.thumbnail, fields.part_id)
    return InferReply(
        score=result.inference.score,
        threshold=result.calibration.threshold if result.calibration else None,
        decision=result.decision,
        **told_of(result),
        calibration=result.calibration_state,
        heatmap_png_base64=result.heatmap_png_base64 or None,
        overlay_png_base64=result.overlay_png_base64,
        regions=[region_reply(region) for region in result.inference.regions],
        token_shape=list(result.fitted.memory.token_hw),
        warning=joined([result.warning, shape_doubt, fields.doubts]),
        model=model_reply(result.fitted),
        **ids_of(key, request_id),
    )


@router.post(
    "/explain",
    summary="Show the good patches that are nearest to the worst places of an image.",
    response_model_exclude_none=True,
    tags=["inspection"],
    responses=ERRORS["/infer"],
    openapi_extra=multipart(ExplainFields, {"image": "the canonical ROI image; also `file`, `images`"}),
)
async def explain(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> ExplainReply:
    """Judge an image as `/infer` does, and show the good patches that are nearest to its worst places."""
    async with complete_form(request, max_files=_MAX_FILES) as form:
        fields = await read_fields(form, ExplainFields)
        key = roi_key(fields, recipe)
        image = only_image_of(form)
        shape, shape_doubt = requested_shape(fields.shape)
        found = await run_in_threadpool(
            partial(
                explain_image,
                service,
                key,
                image,
                mm_per_px=fields.mm_per_px,
                shape=shape,
                point=fields.point,
                with_pictures=fields.pictures,
                wanted=fields.wanted,
                with_why=fields.why,
            )
        )
    reasons = [
        ReasonReply(
            x=reason.x,
            y=reason.y,
            region=reason.region,
            box=list(reason.box),
            distance=reason.distance,
            good=GoodPatchReply(
                index=reason.image_index,
                filename=reason.image.name,
                uploaded_as=reason.image.uploaded_as,
                box=list(reason.image_box),
            )
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
        **told_of(found.result),
        calibration=found.result.calibration_state,
        heatmap_png_base64=found.result.heatmap_png_base64 or None,
        overlay_png_base64=found.result.overlay_png_base64,
        reasons=reasons,
        model=model_reply(found.result.fitted),
        warning=joined([found.result.warning, shape_doubt, fields.doubts]),
        **ids_of(key, request_id),
    )
