"""The tree of errors, their statuses and what they say."""

import inspect
import re

import pytest

from backend.common import errors
from backend.common.error_text import error_reply
from backend.common.errors import (
    BackendError,
    Busy,
    ConfigError,
    Conflict,
    DamagedCalibration,
    DamagedMemory,
    Forbidden,
    ForeignOrigin,
    IncompatibleMemory,
    InvalidImage,
    InvalidRequest,
    InvalidShape,
    MalformedRequest,
    MemoryNotFound,
    NonFiniteEmbeddings,
    NotReady,
    ReservedRecipe,
    SampleNotFound,
    ScaleLocked,
    StaleModel,
    StorageError,
    TooLarge,
    TooManyRequests,
    Unauthorized,
    UnsupportedImage,
    VersionNotFound,
    WeightsError,
    WrongBody,
)


@pytest.mark.parametrize(
    ("error", "parent", "status"),
    [
        (ConfigError, BackendError, 500),
        (WeightsError, ConfigError, 500),
        (InvalidRequest, BackendError, 422),
        (InvalidShape, InvalidRequest, 422),
        (ReservedRecipe, InvalidRequest, 400),
        (WrongBody, InvalidRequest, 422),
        (MalformedRequest, BackendError, 400),
        (SampleNotFound, BackendError, 404),
        (Conflict, BackendError, 409),
        (ScaleLocked, Conflict, 409),
        (StaleModel, Conflict, 409),
        (InvalidImage, BackendError, 400),
        (UnsupportedImage, InvalidImage, 415),
        (Unauthorized, BackendError, 401),
        (Forbidden, BackendError, 403),
        (ForeignOrigin, BackendError, 403),
        (TooManyRequests, BackendError, 429),
        (TooLarge, BackendError, 413),
        (MemoryNotFound, BackendError, 400),
        (IncompatibleMemory, BackendError, 409),
        (NonFiniteEmbeddings, BackendError, 500),
        (Busy, BackendError, 503),
        (NotReady, BackendError, 503),
        (VersionNotFound, BackendError, 404),
        (StorageError, BackendError, 500),
        (DamagedMemory, StorageError, 500),
        (DamagedCalibration, StorageError, 500),
    ],
)
def test_every_error_has_its_place_in_the_tree_and_its_status(error, parent, status):
    assert error.__bases__ == (parent,)
    assert error.status == status


def test_the_tree_that_is_drawn_is_the_tree_that_is():
    drawn = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"([ │├└─]{4,})(\w+) *(\d{3})? *(\w+)", line)
        if entry is None:
            continue
        above = [(indent, name) for indent, name in above if indent < len(entry[1])]
        drawn[entry[2]] = (above[-1][1] if above else "Exception", entry[3], entry[4])
        above.append((len(entry[1]), entry[2]))
    real = {
        name: (error.__base__.__name__, error.status, error.code)
        for name, error in vars(errors).items()
        if inspect.isclass(error) and issubclass(error, BackendError)
    }
    assert drawn.keys() == real.keys()
    for name, (parent, status, code) in drawn.items():
        assert (parent, code) == (real[name][0], real[name][2])
        assert status is None or int(status) == real[name][1]
    assert len(drawn) == 37


def test_memory_not_found_says_what_every_gui_generation_looks_for():
    error = MemoryNotFound("role 'Master1', roi 'Pattern'")
    text = error_reply(str(error), error, code=error.code, with_trace=False)["error"]
    for phrase in ("memory not found", "run /fit_ok first", "Memoria no encontrada"):
        assert phrase in text
    assert "role 'Master1', roi 'Pattern'" in text


def test_busy_says_how_long_to_wait():
    error = Busy("32 inferences", 2)
    assert error.retry_after_s == 2
    assert "32 inferences" in str(error)
    assert "retry in 2 s" in str(error)
