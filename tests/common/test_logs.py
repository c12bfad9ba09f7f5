"""Log lines: each parses, none is long, and none has a path or a client's control characters."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
import structlog

from backend.common.logs import configure_logging


@pytest.fixture
def logs(capsys):
    """Configures logging, writes, and gives back the lines; restores pytest's own logging."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def lines_of(write, *, level="info", log_format="json"):
        configure_logging(level, log_format)
        write()
        captured = capsys.readouterr()
        assert captured.out == "", "logs go to stderr"
        return captured.err.splitlines()

    yield lines_of
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


PRIVATE = "/srv/customer/models/Master1/Pattern/memory.npz"


def test_every_json_line_parses_and_says_when_what_and_how_bad(logs):
    def write():
        log = structlog.get_logger("backend.service.inspection")
        log.info("request", role_id="Línea 1", score=0.5, token_shape=[32, 32], n_images=1)
        log.warning("weights.unavailable", reason='quotes " and\nnewlines')
        logging.getLogger("uvicorn.error").info("Started server process [%d]", 42)

    lines = [json.loads(line) for line in logs(write)]
    assert [line["event"] for line in lines] == ["request", "weights.unavailable", "Started server process [42]"]
    assert [line["level"] for line in lines] == ["info", "warning", "info"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"]) for line in lines)
    assert lines[0]["role_id"] == "Línea 1"
    assert (lines[0]["score"], lines[0]["token_shape"], lines[0]["n_images"]) == (0.5, [32, 32], 1)


def test_the_console_has_one_line_per_event_without_colours(logs):
    def write():
        structlog.get_logger("x").info("request", role_id="Master1", score=0.5)
        logging.getLogger("uvicorn.error").warning("stopping")

    lines = logs(write, log_format="console")
    assert len(lines) == 2
    assert "request" in lines[0]
    assert "role_id=Master1" in lines[0]
    assert "score=0.5" in lines[0]
    assert "stopping" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_events_below_the_level_are_not_written(logs):
    def write():
        for level in ("debug", "info", "warning", "error"):
            getattr(structlog.get_logger("x"), level)(level)

    for kept, level in enumerate(["debug", "info", "warning", "error"]):
        assert len(logs(write, level=level)) == 4 - kept


def test_the_access_log_of_the_server_is_silent(logs):
    assert logs(lambda: logging.getLogger("uvicorn.access").info("GET /health")) == []


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("field", ["reason", "trace"])
def test_no_log_line_has_an_absolute_path(logs, log_format, field):
    message = f"[Errno 2] No such file or directory: '{PRIVATE}'"
    (line,) = logs(lambda: structlog.get_logger("x").info("index.lost", **{field: message}), log_format=log_format)
    assert "memory.npz" in line
    assert "customer" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_message_of_another_library_has_an_absolute_path(logs, log_format):
    def write():
        logging.getLogger("some.library").warning("cannot read %s", PRIVATE)
        logging.getLogger("uvicorn.error").error(f"cannot read {PRIVATE}")

    lines = logs(write, log_format=log_format)
    assert len(lines) == 2
    assert all("memory.npz" in line and "customer" not in line for line in lines)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_logged_exception_shows_no_absolute_paths_and_no_pixels(logs, log_format):
    # The server, asyncio and others log what escapes to them with its traceback.
    def fail():
        image = np.full((4, 4, 3), 217, np.uint8)  # noqa: F841
        customer = "part of a customer"  # noqa: F841
        Path(PRIVATE).read_bytes()

    def write():
        try:
            fail()
        except OSError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
            structlog.get_logger("x").exception("unexpected")

    # Times of the log may hold any number.
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "", "\n".join(logs(write, log_format=log_format)))
    assert "Exception in ASGI application" in text
    assert "No such file or directory" in text, "what happened is told"
    assert "in fail" in text, "and where"
    assert "217" not in text
    assert "customer" not in text
    assert str(Path(__file__).parents[2]) not in text


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_logged_exception_is_one_event_that_parses(logs, log_format):
    def write():
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("Exception in ASGI application")

    lines = logs(write, log_format=log_format)
    if log_format == "json":
        assert len(lines) == 1
        assert "ValueError: broken" in json.dumps(json.loads(lines[0]))
    else:
        assert "ValueError: broken" in "\n".join(lines)


def test_words_of_a_client_end_no_console_line_and_give_no_orders(logs):
    """Line breaks and control sequences that a client sends are written as escapes."""

    def write():
        structlog.get_logger("x").info("request", role_id="\x1b[31mred\u2028x\x85y", error="two\nlines\x1b[2J")
        logging.getLogger("some.library").warning("cannot read a\nb\x1b[2J")

    lines = logs(write, log_format="console")
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert r"role_id=\x1b[31mred\u2028x\x85y" in lines[0]
    assert r"cannot read a\nb\x1b[2J" in lines[1]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_field_makes_a_line_long(logs, log_format):
    def write():
        log = structlog.get_logger("x")
        log.info("request", recipe_id="r" * 30_000, error="e" * 200_000, images=["i" * 4000] * 100)
        logging.getLogger("some.library").warning("w" * 100_000)

    lines = logs(write, log_format=log_format)
    assert len(lines) == 2
    assert all(len(line) < 5000 for line in lines)
    assert "r" * 1000 in lines[0]


def test_a_trace_is_told_to_its_end(logs):
    trace = "  File somewhere\n" * 100 + "ValueError: the end"
    (line,) = logs(lambda: structlog.get_logger("x").error("failed", trace=trace))
    assert json.loads(line)["trace"] == trace
