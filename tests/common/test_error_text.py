"""Errors as clients read them: a message, a trace without paths, and no words that a GUI misreads."""

import json
import re
from pathlib import Path

import pytest

from backend.common import errors
from backend.common.error_text import error_reply, format_trace, strip_paths
from backend.common.errors import InvalidShape, StorageError

MISREAD = ["already trained", "already exists", "ya entrenad", "memoria existente"]


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_reply_is_a_message_and_a_trace_of_where_it_happened():
    reply = error_reply("what to do", raised(InvalidShape("what to do")), code="internal_error", with_trace=True)
    assert reply.keys() == {"error", "trace", "code"}
    assert reply["error"] == "what to do"
    assert re.search(r'File "tests/common/test_error_text.py", line \d+, in raised\n    raise error\n', reply["trace"])
    assert reply["trace"].endswith("InvalidShape: what to do\n")
    assert json.loads(json.dumps(reply)) == reply


def test_the_trace_is_empty_where_it_is_turned_off_or_there_is_none():
    assert error_reply("x", raised(ValueError("secret")), code="internal_error", with_trace=False) == {
        "error": "x",
        "trace": "",
        "code": "internal_error",
    }
    assert error_reply("x", None, code="internal_error", with_trace=True) == {
        "error": "x",
        "trace": "",
        "code": "internal_error",
    }


def test_the_trace_shows_causes_and_contexts_oldest_first():
    try:
        try:
            try:
                raise KeyError("first")
            except KeyError:
                raise OSError("second")  # noqa: B904
        except OSError as cause:
            raise StorageError("third") from cause
    except StorageError as error:
        trace = format_trace(error)
    places = [trace.index(text) for text in ("KeyError: 'first'", "OSError: second", "StorageError: third")]
    assert places == sorted(places)
    try:
        try:
            raise KeyError("hidden")
        except KeyError:
            raise StorageError("shown") from None
    except StorageError as error:
        trace = format_trace(error)
    assert "shown" in trace
    assert "hidden" not in trace


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert format_trace(first).count("ValueError") == 2


@pytest.mark.parametrize(
    "path",
    [
        "/srv/models/Master1/Pattern/memory.npz",
        "/home/user/models",
        "C:\\models\\Master1\\memory.npz",
        "C:/models/Master1/memory.npz",
        "\\\\server\\share\\models\\memory.npz",
        "/srv/modèles/日本/x.npz",
    ],
)
@pytest.mark.parametrize(
    "wrap", ["cannot read {}", "cannot read '{}': denied", "[Errno 2] No such file: {!r}", "models={}"]
)
def test_absolute_paths_are_cut_down_to_their_last_component(path, wrap):
    told = wrap.format(path)
    last = re.split(r"[/\\]", path)[-1]
    for text in (
        strip_paths(told),
        error_reply("x", raised(ValueError(told)), code="internal_error", with_trace=True)["trace"],
    ):
        assert last in text
        assert not re.search(r"(srv|home|user|server|share|Program|ROI|modèles|日本|Master1|[CD]:)[/\\ ]", text)
        assert not re.search(r"(?<![\w.])[/\\]", text.replace("tests/common/test_error_text.py", ""))


def test_a_path_in_quotes_is_cut_down_though_it_has_spaces():
    for path in ("/srv/roi anomaly/models/memory.npz", "C:\\Program Files\\roi\\models\\memory.npz"):
        for text in (f"cannot read '{path}': denied", str(OSError(13, "Permission denied", path))):
            stripped = strip_paths(text)
            assert "memory.npz" in stripped
            assert not re.search(r"srv|roi|anomaly|Program|models|[/\\]", stripped)


def test_the_path_in_an_oserror_is_not_told(tmp_path):
    folder = tmp_path / "customer" / "models"
    try:
        (folder / "memory.npz").read_bytes()
    except OSError as error:
        trace = error_reply("the memory cannot be read", error, code="internal_error", with_trace=True)["trace"]
    assert "memory.npz" in trace
    assert str(tmp_path) not in trace
    assert "customer" not in trace


def test_the_clients_own_words_come_back_as_they_were():
    for text in (
        "unknown path /models/Master1/Pattern; see /docs",
        "memory not found for role '/a/b/c', roi 'C:\\x\\y'",
    ):
        assert error_reply(text, None, code="internal_error", with_trace=True)["error"] == text


def test_no_frame_tells_where_the_project_or_its_packages_lie():
    try:
        json.loads("{")
    except ValueError as error:
        here = format_trace(error)
    try:
        import numpy as np

        np.zeros(3).reshape(2)
        np.percentile([1.0], 200)
    except ValueError as error:
        here += format_trace(error)
    assert 'File "tests/common/test_error_text.py"' in here
    assert 'File "decoder.py"' in here
    for private in (
        str(Path(errors.__file__).parents[2]),
        json.__file__,
        str(Path(json.__file__).parent),
        str(Path.home()),
    ):
        assert private not in here
    assert not re.search(r'File "(/|[A-Za-z]:)', here)


@pytest.mark.parametrize(
    "text",
    [
        "run /fit_ok first",
        "see /docs",
        "GET is not allowed on /infer; use POST",
        "see https://example.com/a/b/c for more",
        "1/2 and 3/4",
        "image/png or image/jpeg",
        "role 'A/B', roi 'C'",
        'the pair {"error", "trace"}',
    ],
)
def test_what_is_no_absolute_path_stays(text):
    assert strip_paths(text) == text


def test_what_a_client_sent_makes_no_reply_long():
    try:
        raise InvalidShape(f"shape: {'k' * 200_000} is no shape") from ValueError("v" * 200_000)
    except InvalidShape as error:
        reply = error_reply(str(error), error, code="internal_error", with_trace=True)
    assert len(reply["error"]) < 2100
    assert len(reply["trace"]) < 5000
    for text in (reply["error"], reply["trace"]):
        assert "shape: kkk" in text
        assert "kkk is no shape" in text
    assert error_reply("e" * 2000, None, code="internal_error", with_trace=True)["error"] == "e" * 2000


@pytest.mark.parametrize("phrase", MISREAD)
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_no_reply_contains_what_a_gui_misreads_as_success(phrase, spelling):
    text = f"memory of Master1 {spelling(phrase)}a!"
    reply = error_reply(text, raised(ValueError(text)), code="internal_error", with_trace=True)
    for value in (reply["error"], reply["trace"]):
        assert "memory of Master1" in value
        assert not any(misread in value.lower() for misread in MISREAD)


def test_not_even_a_line_of_source_in_the_trace_is_misread():
    try:
        raise ValueError("Already Exists: memoria existente; ya entrenada; ALREADY TRAINED")
    except ValueError as error:
        trace = error_reply("x", error, code="internal_error", with_trace=True)["trace"]
    assert "raise ValueError(" in trace
    assert not any(misread in trace.lower() for misread in MISREAD)


def test_cutting_a_path_makes_no_misread_phrase():
    trace = error_reply("x", raised(ValueError("already /srv/models/exists")), code="internal_error", with_trace=True)[
        "trace"
    ]
    assert "exists" not in trace
    assert not any(misread in trace.lower() for misread in MISREAD)


@pytest.mark.parametrize("text", ["already exi\u017fts", "memor\u0130a existente", "ALREADY EX\u0130STS"])
def test_letters_that_fold_to_a_misread_phrase_cause_no_error(text):
    """Letters such as a long s match a misread phrase only after case folding; a reply is made of them all the same."""
    assert error_reply(text, None, code="internal_error", with_trace=True)["error"]
