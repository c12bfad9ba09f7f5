"""The record of one request for the log and the metrics: fields, stage timings, counts.

Never image content or paths.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

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
HISTORY_LOST = Counter("history_lost_total", "Judgements that could not be kept: see HISTORY")
QUEUE_DEPTH = Gauge("queue_depth", "Requests running or waiting for the network", multiprocess_mode="livesum")
QUEUE_REJECTED = Counter("queue_rejected_total", "Requests answered 503 because the queue was full")


OnProgress = Callable[[str, int, int], None]
"""Called with a step of long work, its finished units and all its units."""


@dataclass
class RequestRecord:
    """The contents of the log line of a request.

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
    """Collect the reports of `stage` and `annotate`, in this context and its threads, in `record`."""
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
    """All metrics in Prometheus text format; those of all workers if ``PROMETHEUS_MULTIPROC_DIR`` is set."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # its constructor
    return generate_latest(registry)
