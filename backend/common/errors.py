"""Every error the backend raises on purpose. `error_text` has what clients get to read of them.

::

    BackendError                    500  anything below; never raised itself
    ├── ConfigError                      a setting that cannot be used: the start stops
    │   └── WeightsError                 no verified weights: the start stops
    ├── InvalidRequest              422  a missing, malformed or out-of-range field
    │   ├── InvalidShape            422  a ROI shape that is malformed or selects no pixel
    │   └── ReservedRecipe          400  a recipe that no client may name
    ├── InvalidImage                400  empty, truncated or damaged image bytes
    │   └── UnsupportedImage        415  not one of the accepted image formats
    ├── Unauthorized                401  no API key, or one that is not known
    ├── Forbidden                   403  the API key may not do that
    ├── TooManyRequests             429  the client sends more than its share: retry
    ├── TooLarge                    413  a file, request or image beyond its limit
    ├── MemoryNotFound              400  the ROI was never fitted
    ├── SampleNotFound              404  no such image is stored
    ├── VersionNotFound             404  no such earlier model is kept
    ├── Conflict                    409  what is asked for contradicts what is stored
    ├── IncompatibleMemory          409  the memory bank holds features of another kind: refit
    ├── NonFiniteEmbeddings         500  the network overflowed
    ├── Busy                        503  the compute queue is full: retry
    ├── NotReady                    503  the service is starting, could not load, or is about to stop
    └── StorageError                500  files cannot be read or written, or stored ones are damaged
        ├── DamagedMemory           500  the stored memory bank is damaged: refit
        └── DamagedCalibration      500  the stored calibration is damaged: calibrate again
"""

from typing import ClassVar


class BackendError(Exception):
    """Base of the tree. ``str(error)`` is a sentence that tells the user what to do."""

    status: ClassVar[int] = 500


class ConfigError(BackendError):
    """A setting that cannot be used; the message names it."""


class WeightsError(ConfigError):
    """No source gave weights whose hash matches."""


class InvalidRequest(BackendError):
    """A request field is missing, malformed or out of range."""

    status = 422


class InvalidShape(InvalidRequest):
    """The ROI shape is malformed or selects no pixel of the image."""


class ReservedRecipe(InvalidRequest):
    """A recipe that no client may name."""

    status = 400


class InvalidImage(BackendError):
    """The bytes are empty, truncated or damaged."""

    status = 400


class UnsupportedImage(InvalidImage):
    """The bytes are not one of the accepted image formats."""

    status = 415


class Unauthorized(BackendError):
    """The service has API keys, and the request carries none of them."""

    status = 401


class Forbidden(BackendError):
    """The request's API key may not do that."""

    status = 403


class TooManyRequests(BackendError):
    """The client sends more requests than its share."""

    status = 429

    def __init__(self, per_s: float, retry_after_s: int) -> None:
        super().__init__(
            f"too many requests: a client may send {per_s:g} per second (RATE_LIMIT_PER_S); retry in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class TooLarge(BackendError):
    """A file, a request or an image is beyond its configured limit."""

    status = 413


class MemoryNotFound(BackendError):
    """No memory bank is stored for the ROI."""

    status = 400

    def __init__(self, roi: str) -> None:
        # GUI generations in the field search for these phrases, in both languages.
        super().__init__(
            f"memory not found for {roi}: run /fit_ok first with images of good parts "
            "(Memoria no encontrada: ejecute /fit_ok primero)"
        )


class SampleNotFound(BackendError):
    """No such image is stored for the ROI."""

    status = 404


class VersionNotFound(BackendError):
    """No such earlier model of the ROI is kept."""

    status = 404


class Conflict(BackendError):
    """What is asked for contradicts what is stored."""

    status = 409


class IncompatibleMemory(BackendError):
    """The stored memory bank was built from features that the running extractor does not produce."""

    status = 409


class NonFiniteEmbeddings(BackendError):
    """The network gave NaN or infinity, which nothing can be compared with."""


class Busy(BackendError):
    """More requests wait for the network than the queue admits."""

    status = 503

    def __init__(self, queued: str, retry_after_s: int) -> None:
        super().__init__(f"the service is busy: {queued} are already queued; retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class NotReady(BackendError):
    """The service is starting, could not load, or is about to stop."""

    status = 503

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageError(BackendError):
    """Models or results cannot be read or written, or a stored file is damaged."""


class DamagedMemory(StorageError):
    """The stored memory bank is damaged; a refit mends it."""


class DamagedCalibration(StorageError):
    """The stored calibration is damaged; another one mends it."""
