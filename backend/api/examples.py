"""A real example of every error, for ``/docs``."""

from typing import Any

from backend.api.paths import OPEN_PATHS
from backend.api.schemas.common import ErrorReply
from backend.common import errors
from backend.common.errors import CODE_OF_STATUS, Busy, ErrorCode, MemoryNotFound, TooManyRequests
from backend.common.image_headers import ACCEPTED

_ROI = "role 'Master1', roi 'Pattern'"
_SEND = f"send a {ACCEPTED} image"

Example = tuple[str, str]
"""Class of the error, and its sentence."""

_FIELD: Example = ("InvalidRequest", "mm_per_px: must be at least 0.000001")
_MISSING: Example = ("InvalidRequest", "role_id: it is missing")
_NO_IMAGE: Example = ("InvalidRequest", "no images: send at least one good image in the file field 'images'")
_SHAPE: Example = ("InvalidShape", "shape circle selects no pixel of the 256x256 image")
_DAMAGED: Example = ("InvalidImage", f"part7.png: the image cannot be decoded; it is truncated or damaged; {_SEND}")
_EMPTY: Example = ("InvalidImage", f"part7.png: the file is empty; {_SEND}")
_KIND_OF_BODY: Example = (
    "WrongBody",
    "a body of application/json was received; send multipart/form-data with role_id, roi_id, mm_per_px and …",
)
_KIND_OF_JSON: Example = (
    "WrongBody",
    "a body of multipart/form-data was received; send a JSON object in UTF-8, not compressed, …",
)
_COMPRESSED: Example = ("HTTPException", "the body is compressed (Content-Encoding: gzip); send it uncompressed")
_TYPE: Example = ("UnsupportedImage", f"part7.gif: a GIF is not an accepted image; {_SEND}")
_PIXELS: Example = ("TooLarge", "part7.png: 30000x30000 pixels, at most 64000000 are accepted")
_BODY: Example = (
    "HTTPException",
    "the request is larger than 2147483648 bytes; send fewer images, or raise MAX_REQUEST_MB",
)
_BODY_OF_JSON: Example = (
    "MalformedRequest",
    "the request is larger than 1048576 bytes; send less, and images as multipart/form-data",
)
_BODY_OF_SCORES: Example = (
    "HTTPException",
    "the request is larger than 67108864 bytes; send fewer scores, or raise MAX_JSON_MB",
)
_MANY_VALUES: Example = ("TooLarge", "the JSON holds more than 2001000 values; send fewer scores")
_FILE_BYTES: Example = ("TooLarge", "part7.png: at most 67108864 bytes are accepted in a file (MAX_FILE_MB)")
_SLOW: Example = (
    "HTTPException",
    "the body is too slow: 65536 bytes arrived in 30 s (BODY_TIMEOUT_S) plus one second for every 1024 bytes; send "
    "it faster",
)
_CUT: Example = (
    "MalformedRequest",
    "The upload is incomplete: its closing boundary is missing; send multipart/form-data with …",
)
_JSON: Example = (
    "MalformedRequest",
    "There was an error parsing the body; send a JSON object in UTF-8, not compressed, …",
)
_SCORES: Example = ("InvalidRequest", "ok_scores: must not be empty")
_NOT_FITTED: Example = ("MemoryNotFound", str(MemoryNotFound(_ROI)))
_REFIT: Example = (
    "IncompatibleMemory",
    f"refit needed: the memory stored for {_ROI} was built by another extractor (1152 numbers per embedding instead of "
    "384); run /fit_ok again, then calibrate",
)
_NOT_UNIT: Example = (
    "IncompatibleMemory",
    "refit needed: the stored memory.npz holds embeddings that are not L2-normalised",
)
_LAST: Example = ("ReservedRecipe", "recipe 'last' is reserved: save the layout under another name")
_LOCKED: Example = (
    "ScaleLocked",
    "mm_per_px is 0.3, but recipe 'line 1' is locked to mm_per_px 0.2, as in its first fit or upload: send that value, "
    "or use another recipe",
)
_APPEND: Example = (
    "Conflict",
    f"{_ROI} was fitted by an earlier version and cannot be appended to: fit it anew on all images",
)
_NO_SCORES: Example = (
    "Conflict",
    f"the scores of the calibration of {_ROI} are not stored: an earlier version made it, or it has more than 10000 "
    "scores, or its file is damaged; calibrate once more (/calibrate_ng, /calibrate_dataset or `roi-anomaly "
    "calibrate`), then send the feedback again",
)
_NOT_CALIBRATED: Example = (
    "Conflict",
    f"{_ROI} has no calibration: calibrate first, because feedback repeats the rule of the last calibration",
)
_MEANWHILE: Example = (
    "StaleModel",
    f"{_ROI} was calibrated anew meanwhile; nothing was stored: send it again",
)
_CANCELLED: Example = (
    "RunCancelled",
    "the run was cancelled (POST /runs/cancel) at step extract, 17 of 34: no model or calibration was stored, and "
    "the earlier ones are unchanged",
)
_NO_RUN: Example = (
    "RunNotFound",
    "run '5f0c1d2e3b4a59687766554433221100' is not under way: it has ended, or never existed; /runs lists all runs",
)
_RUN_STORES: Example = (
    "RunStoring",
    f"the fit of {_ROI} is storing its result and can no longer be cancelled; /rollback undoes a fit or a calibration",
)
_NO_RUN_ID: Example = ("InvalidRequest", "run_id: it is missing")
_VERDICT: Example = ("InvalidRequest", "verdict: must be 'good' or 'bad'")
_MANY: Example = (
    "Conflict",
    "2 ok images of role 'Master1', roi 'Pattern' were uploaded as 'part7.png': name one of …",
)
_ANEW: Example = (
    "StaleModel",
    f"{_ROI} was fitted anew since it was scored; nothing was stored: score and calibrate again",
)
_NO_VERSION: Example = ("VersionNotFound", f"{_ROI} has no version 7; its versions are 1, 2, 3")
_NO_CHANGE: Example = (
    "VersionNotFound",
    f"no earlier model of {_ROI} is kept: the model was not replaced yet, or KEEP_VERSIONS is 0",
)
_OTHERS_MODEL: Example = (
    "Conflict",
    f"{_ROI}, recipe 'line 1' has no model of its own to roll back: it uses that of {_ROI}, layout current; ask for "
    "the versions of that model by its ids",
)
_NO_OK_SCORES: Example = (
    "Conflict",
    "the OK scores are unknown, or come from images of the fit: calibrate with good parts that were not in the fit, "
    "or send reference=production",
)
_OTHER_EXTRACTOR: Example = (
    "IncompatibleMemory",
    f"version 3 of {_ROI} was built by another extractor (input_size 518 instead of 448) and cannot be served; nothing "
    "was changed: roll back to another version, or refit",
)
_OTHER_SCALE: Example = (
    "ScaleLocked",
    f"version 3 of {_ROI}, recipe 'line 1' was fitted at mm_per_px 0.3, but its recipe is locked to 0.2; nothing was "
    "changed: roll back to another version, or refit",
)
_NO_NUMBER: Example = ("InvalidRequest", "version: must be at least 1")
_NO_SAMPLE: Example = ("SampleNotFound", f"{_ROI} has no ok image 'part7.png'; /datasets/list lists the stored images")
_NAME_TAKEN: Example = ("Conflict", "the ng images include another part7.png; nothing was moved: delete one of the two")
_NO_JUDGEMENT: Example = ("JudgementNotFound", f"judgement 7 of {_ROI} is not kept; /history lists those that are")
_NO_LAYOUT: Example = ("LayoutNotFound", "no layout is stored for recipe 'line 1': PUT one with If-None-Match: *")
_NO_PICTURE: Example = (
    "PictureNotFound",
    "recipe 'line 1' has no picture 'anchor 1'; /layout/pictures lists its pictures",
)
_OTHER_LAYOUT: Example = (
    "LayoutChanged",
    "the layout of recipe 'line 1' was replaced since it was read; nothing was stored: GET it again, and send its ETag "
    "in the header If-Match",
)
_NO_CONDITION: Example = (
    "ConditionMissing",
    "the request does not say which layout it replaces: send the header If-Match with the ETag of GET /layout, or "
    "If-None-Match: * for the first layout",
)
_LAYOUT_BYTES: Example = ("HTTPException", "the request is larger than 1048576 bytes; send less")
_PICTURE_BYTES: Example = ("HTTPException", "the request is larger than 4194304 bytes; send a smaller picture")
_MANY_PICTURES: Example = ("TooLarge", "recipe 'line 1' has 256 pictures, which is the maximum: delete some")
_PICTURE_TYPE: Example = ("UnsupportedImage", "the picture of a layout must be a PNG or JPEG")
_NO_OBJECT: Example = ("InvalidRequest", "the body must be a JSON object; send a JSON object in UTF-8, …")
_KIND_OF_PICTURE: Example = (
    "WrongBody",
    "a body of multipart/form-data was received; send the bytes of a PNG or JPEG with Content-Type: image/png or …",
)
_FEW_SAMPLES: Example = (
    "InvalidRequest",
    f"3 OK images are stored for {_ROI}, but a fit needs 10 (MIN_OK_SAMPLES): upload more",
)
_NO_NG: Example = ("InvalidRequest", f"no NG images are stored for {_ROI}: upload some, or set require_ng to false")
_METAS: Example = ("InvalidRequest", "1 metas for 2 images: send one for each, or none")
_QUERY: Example = ("InvalidRequest", "roi_id: it is missing")
_DISK: Example = ("StorageError", "the model cannot be stored (No space left on device); check the models folder")
_FILE: Example = ("StorageError", "the stored memory.npz is damaged: refit this ROI")
_STARTING: Example = ("NotReady", "the service is starting; retry")
_BUSY: Example = ("Busy", str(Busy("32 inferences", 2)))
_NO_KEY: Example = ("Unauthorized", "a valid API key is needed: send X-API-Key: KEY, or Authorization: Bearer KEY")
_WRONG_KEY: Example = ("Forbidden", "POST /fit_ok needs a full API key; this key may only read and infer")
_FOREIGN: Example = (
    "ForeignOrigin",
    "a web page of 'https://other.example' may not change anything here: add its origin to CORS_ORIGINS; a proxy in "
    "front of the service must forward the Host header",
)
_TOO_MANY: Example = ("TooManyRequests", str(TooManyRequests(2, 1)))
_UNEXPECTED: Example = (
    "RuntimeError",
    "unexpected RuntimeError; report request id 0f8fad5b-d9cb-469f-a165-70867728950e with the log around it",
)


def _code(kind: str, error: str) -> ErrorCode:
    refused_by_http = {_SLOW: CODE_OF_STATUS[408], _COMPRESSED: CODE_OF_STATUS[415]} | dict.fromkeys(
        (_BODY, _BODY_OF_JSON, _BODY_OF_SCORES, _LAYOUT_BYTES, _PICTURE_BYTES), CODE_OF_STATUS[413]
    )
    own: type[errors.BackendError] = getattr(errors, kind, errors.BackendError)
    return refused_by_http.get((kind, error), own.code)


def _error(description: str, *told: Example) -> dict[str, Any]:
    examples: dict[str, Any] = {}
    for kind, error in told:
        trace = f'  File "backend/service/judge.py", line 123, in infer\n    …\n{kind}: {error}\n'
        value = {"error": error, "trace": trace, "code": _code(kind, error)}
        examples[f"{len(examples) + 1}: {kind}"] = {"value": value}
    return {"model": ErrorReply, "description": description, "content": {"application/json": {"examples": examples}}}


_COMPRESSED_BODY = _error("A compressed body", _COMPRESSED)
_TOO_SLOW = _error("The body arrives too slowly; the connection is closed", _SLOW)

Responses = dict[int | str, dict[str, Any]]
_ANY_KEY: Responses = {
    401: _error("The API key is missing or unknown", _NO_KEY),
    429: _error("The client sends too many requests; see Retry-After", _TOO_MANY),
}
_FULL_KEY: Responses = {
    **_ANY_KEY,
    403: _error(
        "The API key may only read and infer, or a web page of another origin sent the request", _WRONG_KEY, _FOREIGN
    ),
}
_INFER_KEY: Responses = {**_ANY_KEY, 403: _error("A web page of another origin sent the request", _FOREIGN)}
_ERRORS: dict[str, Responses] = {
    "/health": {500: _error("Unexpected error", _UNEXPECTED)},
    "/ready": {500: _error("Unexpected error", _UNEXPECTED), 503: _error("Not ready; see Retry-After", _STARTING)},
    "read": {
        400: _error("A reserved recipe name", _LAST),
        422: _error("A field is missing or out of range", _QUERY),
        500: _error("Stored files cannot be read, or an unexpected error", _FILE, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "bank": {
        400: _error("Not fitted", _NOT_FITTED, _LAST),
        409: _error("The stored memory bank needs a refit", _REFIT),
        422: _error("A field is missing or out of range", _QUERY),
        500: _error("Stored files cannot be read, or an unexpected error", _FILE, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "sample": {
        400: _error("A reserved recipe name", _LAST),
        404: _error("No such image", _NO_SAMPLE),
        409: _error("Several images were uploaded under that name", _MANY),
        422: _error("A field is missing or out of range", _QUERY),
        500: _error("Stored files cannot be read, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "upload": {
        400: _error("A broken image or an incomplete upload; nothing was stored", _DAMAGED, _EMPTY, _CUT, _LAST),
        409: _error("The recipe is locked to another scale", _LOCKED),
        408: _TOO_SLOW,
        413: _error("Too large", _PIXELS, _FILE_BYTES, _BODY),
        415: _error("Not an image, or a compressed body", _TYPE, _COMPRESSED),
        422: _error("A field is missing or out of range", _MISSING, _KIND_OF_BODY, _METAS, _NO_IMAGE),
        500: _error("The images could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "/fit_ok": {
        400: _error(
            "A broken image or an incomplete upload, or nothing to append to; nothing was replaced",
            _DAMAGED,
            _EMPTY,
            _CUT,
            _LAST,
            _NOT_FITTED,
        ),
        409: _error(
            "The recipe is locked to another scale, the model cannot be appended to, or the run was cancelled",
            _LOCKED,
            _APPEND,
            _CANCELLED,
        ),
        408: _TOO_SLOW,
        413: _error("Too large", _PIXELS, _FILE_BYTES, _BODY),
        415: _error("Not an image, or a compressed body", _TYPE, _COMPRESSED),
        422: _error(
            "A field is missing or out of range", _FIELD, _MISSING, _KIND_OF_BODY, _NO_IMAGE, _FEW_SAMPLES, _SHAPE
        ),
        500: _error("The model could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("The queue is full, or not ready; see Retry-After", _BUSY, _STARTING),
    },
    "/feedback": {
        400: _error("Not fitted, a broken image or an incomplete upload", _NOT_FITTED, _DAMAGED, _EMPTY, _CUT, _LAST),
        409: _error(
            "No calibration can be repeated, the model or calibration changed meanwhile, or the run was cancelled; "
            "nothing was changed",
            _NO_SCORES,
            _NOT_CALIBRATED,
            _MEANWHILE,
            _LOCKED,
            _CANCELLED,
        ),
        408: _TOO_SLOW,
        413: _error("Too large", _PIXELS, _FILE_BYTES, _BODY),
        415: _error("Not an image, or a compressed body", _TYPE, _COMPRESSED),
        422: _error("A field is missing or out of range", _VERDICT, _MISSING, _KIND_OF_BODY, _SHAPE),
        500: _error("The model could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("The queue is full, or not ready; see Retry-After", _BUSY, _STARTING),
    },
    "/calibrate_ng": {
        400: _error("The body cannot be parsed", _JSON, _LAST),
        409: _error(
            "The stored memory bank needs a refit or was replaced meanwhile, or the recipe is locked to another scale",
            _NOT_UNIT,
            _ANEW,
            _LOCKED,
        ),
        408: _TOO_SLOW,
        413: _error("Too large", _BODY_OF_SCORES, _MANY_VALUES),
        415: _COMPRESSED_BODY,
        422: _error("A field is missing or out of range", _FIELD, _MISSING, _KIND_OF_JSON, _SCORES),
        500: _error("The calibration could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "/infer": {
        400: _error("Not fitted, a broken image or an incomplete upload", _NOT_FITTED, _DAMAGED, _EMPTY, _CUT, _LAST),
        409: _error("The stored memory bank needs a refit, or the recipe is locked to another scale", _REFIT, _LOCKED),
        408: _TOO_SLOW,
        413: _error("Too large", _PIXELS, _FILE_BYTES, _BODY),
        415: _error("Not an image, or a compressed body", _TYPE, _COMPRESSED),
        422: _error("A field is missing or out of range", _FIELD, _MISSING, _KIND_OF_BODY, _SHAPE),
        500: _error("Stored files are damaged, or an unexpected error", _FILE, _UNEXPECTED),
        503: _error("The queue is full, or not ready; see Retry-After", _BUSY, _STARTING),
    },
    "/calibrate_dataset": {
        400: _error("Not fitted, or the body cannot be parsed", _NOT_FITTED, _JSON, _LAST),
        409: _error(
            "The stored memory bank needs a refit, was replaced meanwhile, or the run was cancelled",
            _REFIT,
            _ANEW,
            _CANCELLED,
        ),
        408: _TOO_SLOW,
        413: _error("Too large", _BODY_OF_JSON),
        415: _COMPRESSED_BODY,
        422: _error("A field is missing or out of range, or images are missing", _MISSING, _KIND_OF_JSON, _NO_NG),
        500: _error("The calibration could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("The queue is full, or not ready; see Retry-After", _BUSY, _STARTING),
    },
    "/rollback": {
        400: _error("The body cannot be parsed", _JSON, _LAST),
        404: _error("No such version", _NO_VERSION, _NO_CHANGE),
        409: _error(
            "The version cannot be served, or the ROI uses the model of another ROI; nothing was changed",
            _OTHER_EXTRACTOR,
            _OTHER_SCALE,
            _OTHERS_MODEL,
        ),
        408: _TOO_SLOW,
        413: _error("Too large", _BODY_OF_JSON),
        415: _COMPRESSED_BODY,
        422: _error("A field is missing or out of range", _MISSING, _KIND_OF_JSON, _NO_NUMBER),
        500: _error("The model could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
        503: _error("Not ready; see Retry-After", _STARTING),
    },
    "/infer_dataset": {
        400: _error("Not fitted, or the body cannot be parsed", _NOT_FITTED, _JSON, _LAST),
        409: _error("The stored memory bank needs a refit, or the run was cancelled", _REFIT, _CANCELLED),
        408: _TOO_SLOW,
        413: _error("Too large", _BODY_OF_JSON),
        415: _COMPRESSED_BODY,
        422: _error("A field is missing or out of range", _MISSING, _KIND_OF_JSON),
        500: _error("Stored files are damaged, or an unexpected error", _FILE, _UNEXPECTED),
        503: _error("The queue is full, or not ready; see Retry-After", _BUSY, _STARTING),
    },
}
_ERRORS["/runs/cancel"] = {
    400: _error("The body cannot be parsed", _JSON),
    404: _error("No such run is under way", _NO_RUN),
    408: _TOO_SLOW,
    409: _error("The run is storing its result", _RUN_STORES),
    413: _error("Too large", _BODY_OF_JSON),
    415: _COMPRESSED_BODY,
    422: _error("A field is missing", _NO_RUN_ID, _KIND_OF_JSON),
    500: _error("Stored files cannot be written, or an unexpected error", _UNEXPECTED),
    503: _error("Not ready; see Retry-After", _STARTING),
}
_ERRORS["/drift/reset"] = {
    400: _error("Not fitted, or the body cannot be parsed", _NOT_FITTED, _JSON, _LAST),
    409: _error("The stored memory bank needs a refit, or the OK scores are unknown", _REFIT, _NO_OK_SCORES),
    408: _TOO_SLOW,
    413: _error("Too large", _BODY_OF_JSON),
    415: _COMPRESSED_BODY,
    422: _error("A field is missing or out of range", _MISSING, _KIND_OF_JSON),
    500: _error("The statistics could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
    503: _error("Not ready; see Retry-After", _STARTING),
}
_ERRORS |= {"state": _ERRORS["/health"], "/runs": _ERRORS["/ready"]}
_ERRORS |= {"delete": _ERRORS["sample"], "clear": _ERRORS["read"]}
_ERRORS["scores"] = {
    **_ERRORS["bank"],
    409: _error("The stored memory bank needs a refit, or several roles have images of this ROI", _REFIT),
}
_ERRORS["history"] = _ERRORS["read"]
_ERRORS["judgement"] = {
    **_ERRORS["read"],
    404: _error("The judgement was not kept, or is no longer kept", _NO_JUDGEMENT),
}
_ERRORS["move"] = {
    **_ERRORS["sample"],
    400: _error("The body cannot be parsed", _JSON, _LAST),
    408: _TOO_SLOW,
    409: _error("Several images have that name", _MANY, _NAME_TAKEN),
    413: _error("Too large", _BODY_OF_JSON),
    415: _COMPRESSED_BODY,
    422: _error("A field is missing or out of range", _MISSING, _KIND_OF_JSON),
}
_ERRORS["layout"] = {**_ERRORS["read"], 404: _error("The recipe has no layout", _NO_LAYOUT)}
_ERRORS["put layout"] = {
    **_ERRORS["read"],
    400: _error("The body cannot be parsed", _JSON, _LAST),
    408: _TOO_SLOW,
    412: _error("The layout was replaced; ETag names the stored one", _OTHER_LAYOUT),
    413: _error("Too large", _LAYOUT_BYTES),
    415: _COMPRESSED_BODY,
    422: _error("The body is not a JSON object", _NO_OBJECT, _KIND_OF_JSON),
    428: _error("The request does not say which layout it replaces", _NO_CONDITION),
    500: _error("The layout could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
}
_ERRORS["picture"] = {**_ERRORS["read"], 404: _error("The recipe has no such picture", _NO_PICTURE)}
_ERRORS["delete picture"] = _ERRORS["picture"]
_ERRORS["put picture"] = {
    **_ERRORS["read"],
    400: _error("A damaged picture", _DAMAGED, _EMPTY, _LAST),
    408: _TOO_SLOW,
    413: _error("Too large, or too many", _PICTURE_BYTES, _PIXELS, _MANY_PICTURES),
    415: _error("Neither PNG nor JPEG, or a compressed body", _TYPE, _PICTURE_TYPE, _COMPRESSED),
    422: _error("The name is missing or too long, or no picture was sent", _QUERY, _KIND_OF_PICTURE),
    500: _error("The picture could not be stored, or an unexpected error", _DISK, _UNEXPECTED),
}
_RIGHTS: dict[str, Responses] = {
    **{path: {} for path in OPEN_PATHS},
    **dict.fromkeys(("state", "/runs", "read", "bank", "sample", "scores", "layout", "picture"), _ANY_KEY),
    **dict.fromkeys(("/infer", "/infer_dataset"), _INFER_KEY),
}
ERRORS: dict[str, Responses] = {
    name: dict(sorted({**of_name, **_RIGHTS.get(name, _FULL_KEY)}.items())) for name, of_name in _ERRORS.items()
}
