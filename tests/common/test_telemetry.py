"""What a request reports of itself: stages, fields and metrics."""

import contextvars
import re
import threading
from types import SimpleNamespace

import pytest

from backend.common import telemetry
from backend.common.telemetry import RequestRecord, annotate, recording, render_metrics, stage


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when told to."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


# --- stages and fields


def test_a_stage_that_is_repeated_adds_up(clock):
    record = RequestRecord("r1")
    with recording(record):
        for seconds in (0.25, 0.5, 1.25):
            with stage("extract"):
                clock.seconds += seconds
            clock.seconds += 7  # between stages
        with stage("search"):
            clock.seconds += 0.125
    assert record.timings_ms == {"extract": 2000, "search": 125}


def test_a_stage_that_fails_is_timed_all_the_same(clock):
    record = RequestRecord("r1")

    def decode():
        with recording(record), stage("decode"):
            clock.seconds += 0.5
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        decode()
    assert record.timings_ms == {"decode": 500}


def test_stages_and_fields_outside_a_request_go_nowhere(clock):
    with stage("extract"):
        clock.seconds += 1
    annotate(score=1)
    record = RequestRecord("r1")
    with recording(record):
        pass
    with stage("extract"):
        clock.seconds += 1
    annotate(score=2)
    assert (record.timings_ms, record.fields) == ({}, {})


def test_annotations_join_and_the_last_of_a_name_wins():
    record = RequestRecord("r1")
    with recording(record):
        annotate(role_id="Master1", n_images=3)
        annotate(score=0.5, n_images=4)
    assert record.fields == {"role_id": "Master1", "n_images": 4, "score": 0.5}


def test_requests_at_the_same_time_do_not_mix(clock):
    records = [RequestRecord(str(i)) for i in range(4)]
    gate = threading.Barrier(4)

    def serve(record):
        with recording(record):
            gate.wait(10)
            annotate(request=record.request_id)
            gate.wait(10)

    threads = [threading.Thread(target=serve, args=(record,)) for record in records]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [record.fields for record in records] == [{"request": str(i)} for i in range(4)]


def test_a_worker_thread_that_runs_in_the_requests_context_reports_to_it():
    record = RequestRecord("r1")
    with recording(record):
        context = contextvars.copy_context()
        thread = threading.Thread(target=lambda: context.run(annotate, score=1))
        thread.start()
        thread.join(10)
    assert record.fields == {"score": 1}


def metric(line_start):
    found = re.search(rf"^{re.escape(line_start)} (\S+)$", render_metrics().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_every_stage_is_counted_in_a_histogram(clock):
    count, total = 'stage_seconds_count{stage="coreset"}', 'stage_seconds_sum{stage="coreset"}'
    before = metric(count), metric(total)
    for _ in range(3):
        with stage("coreset"):
            clock.seconds += 2
    assert (metric(count), metric(total)) == (before[0] + 3, pytest.approx(before[1] + 6))


def test_metrics_are_prometheus_text():
    text = render_metrics().decode()
    for name in (
        "requests_total",
        "stage_seconds",
        "image_score",
        "fitted_rois",
        "queue_depth",
        "queue_rejected_total",
    ):
        assert re.search(rf"^# TYPE {name} (counter|gauge|histogram)$", text, re.MULTILINE)
