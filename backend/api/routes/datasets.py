"""The routes around stored images: upload and care, calibration and judgement, and what there is for a ROI."""

import contextlib
import mimetypes
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from backend.api.examples import ERRORS, METADATA_EXAMPLE, multipart
from backend.api.forms import HeaderRecipe, RequestId, Service, complete_form, images_of, metas_of, read_fields, roi_key
from backend.api.schemas.calibration import PercentileChoiceReply
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
    SampleClass,
    SampleClasses,
    SampleClassReply,
    SampleName,
    UploadReply,
)
from backend.api.schemas.inspection import region_reply
from backend.api.schemas.state import ManifestDatasets, ManifestReply, RunReply, RunsReply, StateReply
from backend.common.roi_key import RoiKey
from backend.common.telemetry import annotate
from backend.disk.datasets import Label
from backend.service.datasets import Judged, calibrate_stored, infer_stored, store_images
from backend.service.image_calibration import CalibrationOptions
from backend.service.inspection import InspectionService
from backend.service.results import InferResult

_IN_MEMORY_BYTES = 32 << 20
_PIECE_BYTES = 1 << 20

router = APIRouter()


def ids_of(key: RoiKey, request_id: str) -> dict[str, Any]:
    """The ids that every reply about a ROI carries."""
    return {
        "role_id": key.role_id,
        "roi_id": key.roi_id,
        "recipe_id": key.recipe,
        "model_key": key.model,
        "request_id": request_id,
    }


@router.get("/state", response_model_exclude_none=True, tags=["state"], responses=ERRORS["read"])
def state(ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe) -> StateReply:
    """Whether a ROI can be inferred, and by what."""
    key = roi_key(ids, recipe)
    found = service.state(key)
    calibration = found.fitted.calibration_state if found.fitted else "none"
    return StateReply(
        **ids_of(key, request_id),
        status="ok" if found.refit_reason is None else "refit_needed",
        memory_fitted=found.fitted is not None,
        calib_present=calibration == "applied",
        calibration=calibration,
        reason=found.refit_reason,
        model=model_reply(found.fitted) if found.fitted else None,
        mm_per_px=service.recipes.mm_per_px(key.recipe_id),
    )


@router.get("/manifest", tags=["state"], responses=ERRORS["read"])
def manifest(
    ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> ManifestReply:
    """Everything that is stored for a ROI."""
    key = roi_key(ids, recipe)
    fitted = service.state(key).fitted
    calibration = fitted.calibration if fitted else None
    return ManifestReply(
        **ids_of(key, request_id),
        memory=fitted is not None,
        calib=calibration.as_dict() if calibration else None,
        datasets=ManifestDatasets(classes=_classes(service, key)),
    )


@router.get("/runs", response_model_exclude_none=True, tags=["state"], responses=ERRORS["/runs"])
def runs(service: Service, request_id: RequestId) -> RunsReply:
    """How far fits, calibrations and inferences over many images are, in whichever process."""
    shown = []
    for record in service.runs.running():
        with contextlib.suppress(ValidationError):  # another version of the service may show other things
            shown.append(RunReply.model_validate(record))
    return RunsReply(runs=shown, request_id=request_id)


def _add_upload(label: Label) -> None:
    what = "good" if label == "ok" else "defective"

    @router.post(
        f"/datasets/{label}/upload",
        name=f"upload_{label}",
        summary=f"Store {what} images",
        tags=["data sets"],
        responses=ERRORS["upload"],
        openapi_extra=multipart(
            RoiIds,
            {"images": f"{what} images of the ROI; also `images[]`, `images[0]`, …"},
            {"metas": "metadata of each image, a JSON object; or one part with an array of them"},
        ),
    )
    async def upload(request: Request, service: Service, request_id: RequestId, recipe: HeaderRecipe) -> UploadReply:
        """Store images of the ROI with their metadata, all of them or none; they come back byte for byte."""
        max_files = service.settings.max_files
        async with complete_form(request, max_files=max_files, also_fields=max_files) as form:
            key = roi_key(await read_fields(form, RoiIds), recipe)
            images, metas = images_of(form), await metas_of(form)
            files = await run_in_threadpool(store_images, service, key, label, images, metas)
        annotate(n_images=len(files), label=label)
        return UploadReply(**ids_of(key, request_id), label=label, files=files)


_add_upload("ok")
_add_upload("ng")


@router.get("/datasets/list", tags=["data sets"], responses=ERRORS["read"])
def list_samples(
    ids: Annotated[RoiIds, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DatasetListReply:
    """The names of a ROI's stored images."""
    key = roi_key(ids, recipe)
    return DatasetListReply(**ids_of(key, request_id), classes=_classes(service, key))


@router.get(
    "/datasets/file",
    response_class=Response,
    tags=["data sets"],
    responses={200: {"content": {"image/*": {}}, "description": "the bytes"}, **ERRORS["sample"]},
)
def read_sample(wanted: Annotated[SampleName, Query()], service: Service, recipe: HeaderRecipe) -> Response:
    """The bytes of a stored image, as they were uploaded."""
    sample = service.datasets.find(roi_key(wanted, recipe), wanted.label, wanted.filename)
    return Response(sample.read(), media_type=mimetypes.guess_type(sample.name)[0])


@router.get("/datasets/meta", tags=["data sets"], responses={**METADATA_EXAMPLE, **ERRORS["sample"]})
def read_metadata(wanted: Annotated[SampleName, Query()], service: Service, recipe: HeaderRecipe) -> Response:
    """The metadata of a stored image."""
    sample = service.datasets.find(roi_key(wanted, recipe), wanted.label, wanted.filename)
    sample.metadata()  # damaged ones are an error
    return Response(sample.metadata_bytes(), media_type="application/json")


@router.delete("/datasets/file", response_model_exclude_none=True, tags=["data sets"], responses=ERRORS["delete"])
def delete_sample(
    wanted: Annotated[SampleName, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DeleteReply:
    """Delete a stored image and its metadata."""
    key = roi_key(wanted, recipe)
    sample = service.datasets.find(key, wanted.label, wanted.filename)
    service.datasets.remove(sample)
    return DeleteReply(**ids_of(key, request_id), label=wanted.label, n_deleted=1, filename=sample.name)


@router.delete("/datasets/clear", response_model_exclude_none=True, tags=["data sets"], responses=ERRORS["clear"])
def clear_samples(
    wanted: Annotated[SampleClass, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> DeleteReply:
    """Delete all stored images of a class."""
    key = roi_key(wanted, recipe)
    n_deleted = service.datasets.clear(key, wanted.label)
    return DeleteReply(**ids_of(key, request_id), label=wanted.label, n_deleted=n_deleted)


@router.post(
    "/calibrate_dataset",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["/calibrate_dataset"],
)
def calibrate_dataset(
    body: CalibrateDatasetRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> CalibrateDatasetReply:
    """Score the stored images and choose and store the ROI's threshold; see /runs for how far it is."""
    key = roi_key(body, recipe)
    options = CalibrationOptions(
        body.score_percentile, body.area_mm2_thr, body.target_false_reject_rate, body.choose_percentile
    )
    done = calibrate_stored(service, key, options, default_mm_per_px=body.default_mm_per_px, require_ng=body.require_ng)
    values = vars(done.calibration)
    percentile = done.calibration.score_percentile
    failed = [
        FailedSampleReply(label=item.sample.label, filename=item.sample.name, error=item.error or "")
        for item in done.failed
    ]
    return CalibrateDatasetReply(
        **{**values, "score_percentile": percentile if isinstance(percentile, int) else None},
        **ids_of(key, request_id),
        model=model_reply(done.fitted),
        warning=done.warning,
        percentile_choice=PercentileChoiceReply.model_validate(done.choice) if done.choice else None,
        n_errors=len(failed),
        errors=failed,
    )


@router.post(
    "/infer_dataset",
    response_class=StreamingResponse,
    tags=["data sets"],
    responses={200: {"model": InferDatasetReply, "description": "one item per image"}, **ERRORS["/infer_dataset"]},
)
def infer_dataset(
    body: InferDatasetRequest, service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> StreamingResponse:
    """Judge the stored images as /infer would, one item each; see /runs for how far it is."""
    key = roi_key(body, recipe)
    # With heatmaps a reply may be larger than what a process should hold.
    with contextlib.ExitStack() as on_failure:
        reply = on_failure.enter_context(SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))
        n_total = n_errors = 0

        def write(judged: Judged[InferResult]) -> None:
            nonlocal n_total, n_errors
            reply.write(b"," if n_total else b"")
            reply.write(_item(judged, with_heatmap=body.include_heatmap).model_dump_json(exclude_none=True).encode())
            n_total += 1
            n_errors += judged.result is None

        reply.write(b'{"items":[')
        fitted = infer_stored(
            service,
            key,
            list(dict.fromkeys(body.labels or ("ok", "ng"))),
            default_mm_per_px=body.default_mm_per_px,
            with_heatmaps=body.include_heatmap,
            on_judged=write,
        )
        summary = InferDatasetReply(
            **ids_of(key, request_id), n_total=n_total, n_errors=n_errors, model=model_reply(fitted), items=[]
        )
        reply.write(b"]," + summary.model_dump_json(exclude={"items"}).encode()[1:])
        reply.seek(0)
        on_failure.pop_all()
    return StreamingResponse(_in_pieces(reply), media_type="application/json")


def _in_pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _classes(service: InspectionService, key: RoiKey) -> SampleClasses:
    def samples(label: Label) -> SampleClassReply:
        names = service.datasets.names(key, label)
        return SampleClassReply(count=len(names), files=list(names), meta=names)

    return SampleClasses(ok=samples("ok"), ng=samples("ng"))


def _item(judged: Judged[InferResult], *, with_heatmap: bool) -> ItemReply:
    item: dict[str, Any] = {"label": judged.sample.label, "filename": judged.sample.name, "mm_per_px": judged.mm_per_px}
    if judged.result is None:
        return ItemReply(**item, regions=[], n_regions=0, error=judged.error)
    result = judged.result
    regions = [region_reply(region) for region in result.inference.regions]
    return ItemReply(
        **item,
        score=result.inference.score,
        threshold=result.calibration.threshold if result.calibration else None,
        decision=result.decision,
        regions=regions,
        n_regions=len(regions),
        heatmap_png_base64=result.heatmap_png_base64 if with_heatmap else None,
    )
