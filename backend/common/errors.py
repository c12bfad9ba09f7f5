"""Every error that the backend raises on purpose. `error_text` makes the replies for clients.

::

    BackendError                    500  internal_error          anything below; never raised itself
    ├── ConfigError                      internal_error          a setting that cannot be used: the start stops
    │   └── WeightsError                 internal_error          no verified weights: the start stops
    ├── InvalidRequest              422  invalid_request         a missing, malformed or out-of-range field
    │   ├── InvalidShape            422  invalid_shape           a ROI shape that is malformed or selects no pixel
    │   ├── ReservedRecipe          400  reserved_recipe         a recipe that no client may name
    │   └── WrongBody               422  unsupported_media_type  no body, or one of another kind than is expected
    ├── MalformedRequest            400  malformed_request       a form or JSON that cannot be read
    ├── InvalidImage                400  bad_image               empty, truncated or damaged image bytes
    │   └── UnsupportedImage        415  unsupported_image       not one of the accepted image formats
    ├── Unauthorized                401  unauthorized            no API key, or one that is not known
    ├── Forbidden                   403  forbidden               the API key may not do that
    ├── ForeignOrigin               403  origin_not_allowed      a page of another origin asks for a change
    ├── TooManyRequests             429  too_many_requests       the client sends more than its share: retry
    ├── TooLarge                    413  too_large               a file, request or image beyond its limit
    ├── MemoryNotFound              400  not_fitted              the ROI was never fitted
    ├── SampleNotFound              404  image_not_found         no such image is stored
    ├── VersionNotFound             404  version_not_found       no such earlier model is kept
    ├── JudgementNotFound           404  judgement_not_found     no such judgement is kept
    ├── LayoutNotFound              404  layout_not_found        the recipe has no layout
    ├── PictureNotFound             404  picture_not_found       the recipe has no such picture
    ├── RunNotFound                 404  run_not_found           no such run is under way
    ├── Conflict                    409  conflict                what is asked for contradicts what is stored
    │   ├── ScaleLocked             409  scale_locked            another mm_per_px than the recipe is locked to
    │   └── StaleModel              409  stale_model             the model was replaced meanwhile: do it again
    ├── RunCancelled                409  run_cancelled           somebody cancelled it: no result was stored
    ├── RunStoring                  409  run_storing             it stores its result: too late to cancel it
    ├── LayoutChanged               412  layout_changed          the layout is another than the one that was read
    ├── ConditionMissing            428  condition_missing       the request does not say which layout it replaces
    ├── IncompatibleMemory          409  refit_needed            the memory bank holds features of another kind
    ├── NonFiniteEmbeddings         500  network_overflow        the network overflowed
    ├── Busy                        503  busy                    the compute queue is full: retry
    ├── NotReady                    503  not_ready               the service is starting, could not load, or will stop
    └── StorageError                500  storage_failed          files cannot be read or written
        ├── StoreUnavailable        503  store_unavailable       the object store does not answer: retry
        ├── DamagedMemory           500  damaged_memory          the stored memory bank is damaged: refit
        └── DamagedCalibration      500  damaged_calibration     the stored calibration is damaged: calibrate again
"""

from typing import ClassVar, Literal

ErrorCode = Literal[
    "bad_image",
    "busy",
    "condition_missing",
    "conflict",
    "damaged_calibration",
    "damaged_memory",
    "forbidden",
    "image_not_found",
    "internal_error",
    "invalid_request",
    "invalid_shape",
    "judgement_not_found",
    "layout_changed",
    "layout_not_found",
    "malformed_request",
    "method_not_allowed",
    "network_overflow",
    "not_fitted",
    "not_found",
    "not_ready",
    "origin_not_allowed",
    "picture_not_found",
    "refit_needed",
    "reserved_recipe",
    "run_cancelled",
    "run_not_found",
    "run_storing",
    "scale_locked",
    "stale_model",
    "storage_failed",
    "store_unavailable",
    "too_large",
    "too_many_requests",
    "too_slow",
    "unauthorized",
    "unsupported_image",
    "unsupported_media_type",
    "version_not_found",
    "wrong_host",
]
"""What every error reply carries for programs. None is ever renamed or reused; docs/api.md says what each means."""

CODE_OF_STATUS: dict[int, ErrorCode] = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_media_type",
    431: "too_large",
    503: "not_ready",
}
"""Of refusals that are no `BackendError`: those of HTTP itself."""


class BackendError(Exception):
    """Base of the tree. ``str(error)`` is a sentence that says what the user can do."""

    status: ClassVar[int] = 500
    code: ClassVar[ErrorCode] = "internal_error"


class ConfigError(BackendError):
    """A setting that cannot be used; the message names it."""


class WeightsError(ConfigError):
    """No source gave weights whose hash matches."""


class InvalidRequest(BackendError):
    """A request field is missing, malformed or out of range."""

    status = 422
    code: ClassVar[ErrorCode] = "invalid_request"


class InvalidShape(InvalidRequest):
    """The ROI shape is malformed or selects no pixel of the image."""

    code = "invalid_shape"


class ReservedRecipe(InvalidRequest):
    """A recipe that no client may name."""

    status = 400
    code = "reserved_recipe"


class WrongBody(InvalidRequest):
    """The body is missing, or of another kind than the endpoint accepts."""

    code = "unsupported_media_type"


class MalformedRequest(BackendError):
    """A form or a JSON cannot be read."""

    status = 400
    code = "malformed_request"


class InvalidImage(BackendError):
    """The bytes are empty, truncated or damaged."""

    status = 400
    code: ClassVar[ErrorCode] = "bad_image"


class UnsupportedImage(InvalidImage):
    """The bytes are not one of the accepted image formats."""

    status = 415
    code = "unsupported_image"


class Unauthorized(BackendError):
    """The service has API keys, and the request carries none of them."""

    status = 401
    code = "unauthorized"


class Forbidden(BackendError):
    """The request's API key may not do that."""

    status = 403
    code = "forbidden"


class ForeignOrigin(BackendError):
    """A web page of another origin makes a browser send a request that may change something."""

    status = 403
    code = "origin_not_allowed"


class TooManyRequests(BackendError):
    """The client sends more requests than allowed."""

    status = 429
    code = "too_many_requests"

    def __init__(self, per_s: float, retry_after_s: int) -> None:
        super().__init__(
            f"too many requests: a client may send {per_s:g} per second (RATE_LIMIT_PER_S); retry in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class TooLarge(BackendError):
    """A file, a request or an image is beyond its configured limit."""

    status = 413
    code = "too_large"


class MemoryNotFound(BackendError):
    """No memory bank is stored for the ROI."""

    status = 400
    code = "not_fitted"

    def __init__(self, roi: str) -> None:
        # GUI generations in the field search for these phrases, in both languages.
        super().__init__(
            f"memory not found for {roi}: run /fit_ok first with images of good parts (Memoria no encontrada)"
        )


class SampleNotFound(BackendError):
    """No such image is stored for the ROI."""

    status = 404
    code = "image_not_found"


class VersionNotFound(BackendError):
    """No such earlier model of the ROI is kept."""

    status = 404
    code = "version_not_found"


class JudgementNotFound(BackendError):
    """No such judgement of the ROI is kept."""

    status = 404
    code = "judgement_not_found"


class LayoutNotFound(BackendError):
    """The recipe has no layout."""

    status = 404
    code = "layout_not_found"


class PictureNotFound(BackendError):
    """The recipe has no such picture."""

    status = 404
    code = "picture_not_found"


class RunNotFound(BackendError):
    """The run does not exist, or has ended."""

    status = 404
    code = "run_not_found"


class RunCancelled(BackendError):
    """Somebody cancelled the run; no model and no calibration was stored."""

    status = 409
    code = "run_cancelled"


class RunStoring(BackendError):
    """The run is storing its result, so it can no longer be cancelled."""

    status = 409
    code = "run_storing"


class LayoutChanged(BackendError):
    """The stored layout is not the one that the client wants to replace.

    Attributes:
        etag: of the stored layout; None if there is none.
    """

    status = 412
    code = "layout_changed"

    def __init__(self, message: str, etag: str | None = None) -> None:
        super().__init__(message)
        self.etag = etag


class ConditionMissing(BackendError):
    """The request does not say which layout it replaces."""

    status = 428
    code = "condition_missing"


class Conflict(BackendError):
    """The request contradicts the stored data."""

    status = 409
    code: ClassVar[ErrorCode] = "conflict"


class ScaleLocked(Conflict):
    """The mm_per_px differs from that of the locked recipe."""

    code = "scale_locked"


class StaleModel(Conflict):
    """The model was replaced after the numbers of the request were made, or during the work."""

    code = "stale_model"


class IncompatibleMemory(BackendError):
    """The stored memory bank was built from features that the running extractor does not produce."""

    status = 409
    code = "refit_needed"


class NonFiniteEmbeddings(BackendError):
    """The network gave NaN or infinity, which cannot be compared."""

    code = "network_overflow"


class Busy(BackendError):
    """More requests wait for the network than the queue accepts."""

    status = 503
    code = "busy"

    def __init__(self, queued: str, retry_after_s: int) -> None:
        super().__init__(f"the service is busy: {queued} are already queued; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotReady(BackendError):
    """The service is starting, could not load, or is stopping."""

    status = 503
    code = "not_ready"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageError(BackendError):
    """Models or results cannot be read or written, or a stored file is damaged."""

    code: ClassVar[ErrorCode] = "storage_failed"


class StoreUnavailable(StorageError):
    """The object store that keeps the models does not answer, or refuses."""

    status = 503
    code = "store_unavailable"
    retry_after_s: ClassVar[int] = 5


class DamagedMemory(StorageError):
    """The stored memory bank is damaged; a refit repairs it."""

    code = "damaged_memory"


class DamagedCalibration(StorageError):
    """The stored calibration is damaged; a new one repairs it."""

    code = "damaged_calibration"
