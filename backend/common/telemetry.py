"""Logs, stage timings and metrics: one log line per request, one histogram per stage. Never image content or paths."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from backend.common.errors import format_trace, strip_paths

# Of each field of a line: ids and errors are the client's words. Traces are longer, and in bounds by themselves.
_MOST_CHARACTERS = 1000
_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Counter("requests_total", "Requests by endpoint and status", ["method", "endpoint", "status"])
REQUEST_SECONDS = Histogram("request_seconds", "Whole requests", ["endpoint"], buckets=_LATENCY_BUCKETS)
STAGE_SECONDS = Histogram(
    "stage_seconds",
    "decode, preprocess, queue, extract, coreset, store, search, post, encode",
    ["stage"],
    buckets=_LATENCY_BUCKETS,
)
SCORES = Histogram(
    "image_score", "Image scores (distances, 0..2)", buckets=tuple(round(0.1 * i, 1) for i in range(1, 21))
)
FITTED_ROIS = Gauge("fitted_rois", "ROIs with a memory bank", multiprocess_mode="livemostrecent")
DRIFTING_ROIS = Gauge("drifting_rois", "ROIs whose production drifted", multiprocess_mode="livemostrecent")
DRIFT_DETECTED = Counter("drift_detected_total", "Drifts that began: higher, lower, rejects", ["direction"])
QUEUE_DEPTH = Gauge("queue_depth", "Requests running or waiting for the network", multiprocess_mode="livesum")
QUEUE_REJECTED = Counter("queue_rejected_total", "Requests answered 503 because the queue was full")


@dataclass
class RequestRecord:
    """What one request will say in its log line.

    Attributes:
        request_id: taken from ``X-Request-Id`` or made.
        fields: ids, image count, token shape, score, …
        timings_ms: milliseconds by stage; repeated stages add up.
    """

    request_id: str
    fields: dict[str, Any] = field(default_factory=dict)
    timings_ms: dict[str, float] = field(default_factory=dict)


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


@contextlib.contextmanager
def recording(record: RequestRecord) -> Iterator[None]:
    """Collect what `stage` and `annotate` report, in this context and the threads it starts, into `record`."""
    token = _current.set(record)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Time a stage of the current request: decode, preprocess, queue, extract, coreset, store, search, post, encode."""
    start = time.perf_counter()
    try:
        yield
    finally:
        observe_stage(name, time.perf_counter() - start)


def observe_stage(name: str, seconds: float) -> None:
    """Add to a stage of the current request; see `stage`."""
    STAGE_SECONDS.labels(name).observe(seconds)
    if (record := _current.get()) is not None:
        record.timings_ms[name] = record.timings_ms.get(name, 0.0) + seconds * 1000


def annotate(**fields: Any) -> None:
    """Add fields to the log line of the current request."""
    if (record := _current.get()) is not None:
        record.fields.update(fields)


def current_request_id() -> str | None:
    """Id of the current request; None outside of one."""
    record = _current.get()
    return record.request_id if record is not None else None


def render_metrics() -> bytes:
    """All metrics in Prometheus text format; of all workers when ``PROMETHEUS_MULTIPROC_DIR`` is set."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # its constructor
    return generate_latest(registry)


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
