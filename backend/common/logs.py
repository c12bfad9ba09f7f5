"""Logs: to stderr, one line for each event, for people or as JSON. Never image content or paths."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from backend.common.config import misspelt_settings
from backend.common.error_text import format_trace, strip_paths

# Of each field of a line: ids and errors are the client's words. Traces are longer, and in bounds by themselves.
_MOST_CHARACTERS = 1000


def configure_logging(level: str, log_format: str) -> None:
    """Send every log of this process, uvicorn's included, to stderr: one line per event, for people or as JSON."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
        _without_paths,
        _in_bounds,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer(sort_keys=False)]
        if log_format == "json"
        else [_printable, structlog.dev.ConsoleRenderer(colors=False, sort_keys=False)]
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True  # every request has its line from us
    logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells which of its builds it tried to load


def tell_misspelt_settings() -> None:
    """Warn about environment variables that are probably misspelt settings; they have no effect."""
    for name, setting in misspelt_settings().items():
        structlog.get_logger(__name__).warning(
            "setting.unknown", name=name, hint=f"without effect: did you mean {setting}?"
        )


def _with_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # The renderers' own tracebacks show absolute paths and, on consoles, the values of local variables: image content.
    exc_info = event.pop("exc_info", None)
    exc = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1] if exc_info is True else exc_info
    if isinstance(exc, BaseException):
        event["trace"] = format_trace(exc)
    return event


def _without_paths(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Only where other programs' words come in: ids, endpoints and errors are the client's words and ours.
    for key in ("event", "reason", "trace"):
        if isinstance(event.get(key), str):
            event[key] = strip_paths(event[key])
    return event


def _in_bounds(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str | list) and key != "trace":
            text = value if isinstance(value, str) else repr(value)
            if len(text) > _MOST_CHARACTERS:
                event[key] = text[:_MOST_CHARACTERS] + "…"
    return event


def _printable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # The console renderer quotes what has blanks in it, as every trace has, and writes other words as they are: those
    # of a client could end the line and begin another, or give orders to the terminal that shows it.
    for key, value in event.items():
        if isinstance(value, str) and key != "trace" and not value.isprintable():
            event[key] = repr(value)[1:-1]
    return event
