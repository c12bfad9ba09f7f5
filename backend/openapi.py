"""What ``/docs`` shows beyond the schemas: multipart bodies, and a real example for every error."""

from typing import Any

from pydantic import BaseModel

from backend.schemas import ErrorReply

_TRACE = (
    '  File "backend/app.py", line 170, in infer\n    result = await run_in_threadpool(\n'
    "MemoryNotFound: memory not found for role 'Master1', roi 'Pattern': run /fit_ok first …\n"
)

_INVALID = {
    "field": "mm_per_px: Input should be greater than 0",
    "missing": "role_id: Field required",
}
_IMAGE = {
    "damaged": "part7.png: the image cannot be decoded; it is truncated or damaged",
    "empty": "part7.png: the file is empty; send a PNG, JPEG, BMP or WebP image",
}
_NOT_FITTED = (
    "memory not found for role 'Master1', roi 'Pattern': run /fit_ok first with images of good parts "
    "(Memoria no encontrada: ejecute /fit_ok primero)"
)
_REFIT = (
    "refit needed: the memory stored for role 'Master1', roi 'Pattern' was built by another extractor "
    "(1152 numbers per embedding instead of 384); run /fit_ok again, then calibrate"
)
_TYPE = {"type": "part7.gif: this is not an accepted image; send a PNG, JPEG, BMP or WebP image"}
_SIZE = {"pixels": "part7.png: 30000x30000 pixels, at most 64000000 are accepted"}
_STORAGE = {"storage": "the model cannot be stored (No space left on device); check the models folder"}
_BUSY = {"busy": "the service is busy: 32 requests are already queued; retry in 2 s"}
_SHAPE = {"shape": "shape circle selects no pixel of the 256x256 image"}


def _error(description: str, errors: dict[str, str]) -> dict[str, Any]:
    examples = {name: {"value": {"error": error, "trace": _TRACE}} for name, error in errors.items()}
    return {"model": ErrorReply, "description": description, "content": {"application/json": {"examples": examples}}}


ERRORS: dict[str, dict[int | str, dict[str, Any]]] = {
    "/fit_ok": {
        400: _error("No usable image; nothing was replaced", _IMAGE),
        413: _error("Too large", _SIZE),
        415: _error("Not an image", _TYPE),
        422: _error("A field is missing or out of range", {**_INVALID, "images": "no images: send at least one …"}),
        500: _error("The model could not be stored", _STORAGE),
        503: _error("The queue is full; see Retry-After", _BUSY),
    },
    "/calibrate_ng": {
        413: _error("Too large", {"body": "the request is larger than 2147483648 bytes (MAX_REQUEST_MB)"}),
        422: _error(
            "A field is missing or out of range", {**_INVALID, "scores": "ok_scores: List should have at least 1 item"}
        ),
        500: _error("The calibration could not be stored", _STORAGE),
    },
    "/infer": {
        400: _error("Not fitted, or a broken image", {"not fitted": _NOT_FITTED, **_IMAGE}),
        409: _error("The memory was built by another extractor", {"refit": _REFIT}),
        413: _error("Too large", _SIZE),
        415: _error("Not an image", _TYPE),
        422: _error("A field is missing or out of range", {**_INVALID, **_SHAPE}),
        500: _error("Stored files are damaged", {"storage": "the stored memory.npz is damaged: refit this ROI"}),
        503: _error("The queue is full; see Retry-After", _BUSY),
    },
}

_INFERENCE = {
    "role_id": "Master1",
    "roi_id": "Pattern",
    "score": 0.6121,
    "heatmap_png_base64": "iVBORw0KGgoAAAANSUhEUgAAAQAAAAEACAAAAAB5Gfe6…",
    "token_shape": [32, 32],
    "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
}
_REGION = {
    "bbox": [41, 100, 23, 17],
    "x": 41,
    "y": 100,
    "w": 23,
    "h": 17,
    "area_px": 250.0,
    "area_mm2": 10.0,
    "contour": [[41, 100], [41, 116], [63, 116], [63, 100]],
}
INFER_EXAMPLES: dict[str, Any] = {
    "calibrated": {
        "value": {
            **_INFERENCE,
            "threshold": 0.565,
            "decision": "ng",
            "calibration": "applied",
            "regions": [_REGION],
        }
    },
    "before calibration": {"value": {**_INFERENCE, "calibration": "none", "regions": []}},
}


def multipart(fields: type[BaseModel], files: dict[str, str]) -> dict[str, Any]:
    """The ``requestBody`` of a multipart endpoint that reads its form itself.

    Args:
        fields: the text fields.
        files: description by name of the file fields; names in the plural take several files.
    """
    schema = fields.model_json_schema()
    binary = {"type": "string", "format": "binary"}
    for name, description in files.items():
        several = {"type": "array", "items": binary, "minItems": 1}
        schema["properties"][name] = {**(several if name.endswith("s") else binary), "description": description}
    schema["required"] = [*schema["required"], *files]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
