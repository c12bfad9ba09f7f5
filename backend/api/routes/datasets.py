"""The routes of stored images: upload and management, calibration and judgement."""

import contextlib
import mimetypes
from collections.abc import Iterator
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.forms import complete_form, images_of, metas_of, read_fields
from backend.api.openapi import multipart
from backend.api.reply_examples import METADATA_EXAMPLE
from backend.api.schemas.calibration import PercentileChoiceReply, UnusualReply, threshold_options
from backend.api.schemas.common import RoiIds, model_reply
from backend.api.schemas.datasets import (
    CalibrateDatasetReply,
    CalibrateDatasetRequest,
    DatasetListReply,
    DeleteReply,
    FailedSampleReply,
    InferDatasetReply,
    InferDatasetRequest,
    ItemReply,
    Label,
    MoveReply,
    MoveRequest,
    SampleClass,
    SampleFile,
    SampleName,
    UploadedReply,
    UploadFields,
    UploadReply,
    sample_classes,
)
from backend.api.schemas.inspection import UPLOADED_AS, region_reply, told_of
from backend.common.telemetry import annotate
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import Judged, about_metas, calibrate_stored, infer_stored
from backend.service.doubts import joined
from backend.service.results import InferResult
from backend.service.thumbnails import thumbnail_identity, thumbnail_of
from backend.service.uploads import store_images

_IN_MEMORY_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20
_METADATA = f'{{"filename":"{UPLOADED_AS}","mm_per_px":0.2}}'

router = APIRouter()


def _add_upload(label: Label) -> None:
    what = "good" if label == "ok" else "defective"

    @router.post(
        f"/datasets/{label}/upload",
        name=f"upload_{label}",
        summary=f"Store {what} images of a ROI.",
        tags=["data sets"],
        response_model_exclude_none=True,
        responses=ERRORS["upload"],
        openapi_extra=multipart(
            UploadFields,
            {"images": f"{what} images of the ROI; also `images[]`, `images[0]`, …, `image`, `file`"},
            {"metas": ("metadata of each image, a JSON object; or one part with an array of them", _METADATA)},
        ),
    )
    async def upload(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> UploadReply:
        """Store images of the ROI with their metadata, either all or none; they are kept byte for byte."""
        max_files = service.settings.max_files
        async with complete_form(request, max_files=max_files, also_fields=max_files) as form:
            fields = await read_fields(form, UploadFields)
            key = roi_key(fields, recipe)
            images, metas = images_of(form), await metas_of(form)
            doubt = about_metas(images, metas)
            store = partial(store_images, service, key, label, images, metas, skip_duplicates=fields.skip_duplicates)
            done = await run_in_threadpool(store)
        files = [image.name for image in done.images if image.name is not None]
        annotate(n_images=len(files), label=label)
        return UploadReply(
            **ids_of(key, request_id),
            label=label,
            files=files,
            images=[
                UploadedReply(
                    filename=image.name,
                    uploaded_as=image.uploaded_as,
                    duplicate_of=image.duplicate_of,
                    duplicate_uploaded_as=image.duplicate_uploaded_as,
                    skipped=True if image.name is None else None,
                )
                for image in done.images
            ],
            n_not_compared=done.n_not_compared or None,
            warning=joined([done.warning, doubt, fields.doubts]),
        )


_add_upload("ok")
_add_upload("ng")


@router.get("/datasets/list", summary="List the stored images of a ROI.", tags=["data sets"], responses=ERRORS["read"])
def list_samples(
    ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DatasetListReply:
    """The names of a ROI's stored images."""
    key = roi_key(ids, recipe)
    return DatasetListReply(**ids_of(key, request_id), classes=sample_classes(service.datasets, key))


@router.get(
    "/datasets/meta",
    summary="Read the metadata of a stored image.",
    tags=["data sets"],
    responses={**METADATA_EXAMPLE, **ERRORS["sample"]},
)
def read_metadata(wanted: Annotated[SampleName, Query()], service: Service, recipe: HeaderRecipe) -> Response:
    """The metadata of a stored image."""
    sample = service.datasets.find(roi_key(wanted, recipe), wanted.label, wanted.filename)
    return Response(sample.sent_metadata(), media_type="application/json")


@router.post(
    "/calibrate_dataset",
    summary="Choose the threshold from the stored images.",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["/calibrate_dataset"],
)
def calibrate_dataset(
    body: CalibrateDatasetRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> CalibrateDatasetReply:
    """Score the stored images, and choose and store the threshold of the ROI; /runs shows the progress."""
    key = roi_key(body, recipe)
    options = CalibrationOptions(
        body.score_percentile,
        body.area_mm2_thr,
        threshold_options(body),
        body.choose_percentile,
        tuple(body.keep),
        tuple(body.not_good),
        body.decide_by,
        body.pixel_threshold,
    )
    done = calibrate_stored(service, key, options, default_mm_per_px=body.default_mm_per_px, require_ng=body.require_ng)
    percentile = done.calibration.score_percentile
    values = {
        **vars(done.calibration),
        "score_percentile": percentile if isinstance(percentile, int) else None,
        "unusual": [UnusualReply(**vars(image)) for image in done.unusual] or None,
        "lowered_by": [UnusualReply(**vars(image)) for image in done.lowered_by] or None,
        "pixel_unusual": [UnusualReply(**vars(image)) for image in done.pixel_unusual] or None,
    }
    failed = [
        FailedSampleReply(
            label=item.sample.label,
            filename=item.sample.name,
            uploaded_as=item.sample.uploaded_as,
            error=item.error or "",
            code=item.code,
        )
        for item in done.failed
    ]
    return CalibrateDatasetReply(
        **values,
        **ids_of(key, request_id),
        model=model_reply(done.fitted),
        warning=joined([done.warning, body.doubts]),
        percentile_choice=PercentileChoiceReply.model_validate(done.choice) if done.choice else None,
        n_errors=len(failed),
        errors=failed,
    )


@router.post(
    "/infer_dataset",
    summary="Score the stored images, with one item for each.",
    response_class=StreamingResponse,
    tags=["data sets"],
    responses={200: {"model": InferDatasetReply, "description": "one item per image"}, **ERRORS["/infer_dataset"]},
)
def infer_dataset(
    body: InferDatasetRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> StreamingResponse:
    """Judge the stored images as /infer would, one item each; /runs shows the progress."""
    key = roi_key(body, recipe)
    # With heatmaps a reply may be larger than what a process should hold.
    with contextlib.ExitStack() as on_failure:
        reply = on_failure.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))
        n_total = n_errors = 0

        def write(judged: Judged[InferResult]) -> None:
            nonlocal n_total, n_errors
            reply.write(b"," if n_total else b"")
            reply.write(_item(judged).model_dump_json(exclude_none=True).encode())
            n_total += 1
            n_errors += judged.result is None

        reply.write(b'{"items":[')
        fitted = infer_stored(
            service,
            key,
            list(dict.fromkeys(body.labels or ("ok", "ng"))),
            default_mm_per_px=body.default_mm_per_px,
            wanted=body.wanted,
            on_judged=write,
            with_why=body.why,
        )
        summary = InferDatasetReply(
            **ids_of(key, request_id),
            n_total=n_total,
            n_errors=n_errors,
            warning=joined([body.doubts, body.about_heatmap]),
            model=model_reply(fitted),
            items=[],
        )
        reply.write(b"]," + summary.model_dump_json(exclude={"items"}, exclude_none=True).encode()[1:])
        reply.seek(0)
        on_failure.pop_all()
    return StreamingResponse(_in_pieces(reply), media_type="application/json")


@router.get(
    "/datasets/file",
    summary="Read a stored image.",
    response_class=Response,
    tags=["data sets"],
    responses={
        200: {"content": {"image/*": {}}, "description": "the bytes; with size a JPEG, with an ETag"},
        304: {"description": "with size: If-None-Match names the ETag of the same picture"},
        **ERRORS["sample"],
    },
)
def read_sample(
    wanted: Annotated[SampleFile, Query()],
    service: Service,
    recipe: HeaderRecipe,
    if_none_match: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """The bytes of a stored image, as they were uploaded; with `size` a small picture of it."""
    sample = service.datasets.find(roi_key(wanted, recipe), wanted.label, wanted.filename)
    if wanted.size is None:
        return Response(sample.read(), media_type=mimetypes.guess_type(sample.name)[0])
    tag = f'"{thumbnail_identity(sample, wanted.size)}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}  # kept, and asked about each time
    if {known.strip().removeprefix("W/") for known in if_none_match.split(",")} & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(thumbnail_of(service, sample, wanted.size), media_type="image/jpeg", headers=headers)


@router.delete(
    "/datasets/file",
    summary="Delete a stored image.",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["delete"],
)
def delete_sample(
    wanted: Annotated[SampleName, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DeleteReply:
    """Delete a stored image and its metadata."""
    key = roi_key(wanted, recipe)
    sample = service.datasets.find(key, wanted.label, wanted.filename)
    service.datasets.remove(sample)
    return DeleteReply(
        **ids_of(key, request_id),
        label=wanted.label,
        n_deleted=1,
        filename=sample.name,
        uploaded_as=sample.uploaded_as,
    )


@router.delete(
    "/datasets/clear",
    summary="Delete all stored images of a class.",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["clear"],
)
def clear_samples(
    wanted: Annotated[SampleClass, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DeleteReply:
    """Delete all stored images of a class."""
    key = roi_key(wanted, recipe)
    n_deleted = service.datasets.clear(key, wanted.label)
    return DeleteReply(**ids_of(key, request_id), label=wanted.label, n_deleted=n_deleted)


@router.post(
    "/datasets/move",
    summary="Move a stored image to the other class.",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["move"],
)
def move_sample(body: MoveRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> MoveReply:
    """Move a stored image and its metadata from one class to the other; it keeps its name."""
    key = roi_key(body, recipe)
    sample = service.datasets.find(key, body.label, body.filename)
    doubt = f"label and to are both {body.to}: nothing was moved" if body.to == body.label else None
    if doubt is None:
        sample = service.datasets.move(sample, body.to)
    return MoveReply(
        **ids_of(key, request_id),
        label=body.to,
        filename=sample.name,
        uploaded_as=sample.uploaded_as,
        warning=joined([doubt, body.doubts]),
    )


def _in_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _item(judged: Judged[InferResult]) -> ItemReply:
    sample = judged.sample
    item: dict[str, Any] = {
        "label": sample.label,
        "filename": sample.name,
        "uploaded_as": sample.uploaded_as,
        "mm_per_px": judged.mm_per_px,
    }
    if judged.result is None:
        return ItemReply(**item, regions=[], n_regions=0, error=judged.error, code=judged.code)
    result = judged.result
    regions = [region_reply(region) for region in result.inference.regions]
    return ItemReply(
        **item,
        score=result.inference.score,
        threshold=result.calibration.threshold if result.calibration else None,
        decision=result.decision,
        **told_of(result),
        regions=regions,
        n_regions=len(regions),
        heatmap_png_base64=result.heatmap_png_base64 or None,
        overlay_png_base64=result.overlay_png_base64,
        warning=result.warning,
    )
