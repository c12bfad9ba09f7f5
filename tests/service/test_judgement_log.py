"""Keeping judgements: what waits, what a failing disk costs, and what a thumbnail looks like."""

import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from backend.calib import Calibration
from backend.common.errors import JudgementNotFound, StorageError
from backend.common.roi_key import RoiKey
from backend.common.telemetry import HISTORY_LOST
from backend.disk.judgements import Judgement, JudgementFiles
from backend.service import judgement_log, write_behind
from backend.service.judgement_log import JudgementLog, judgement_of, thumbnail_of
from tests.factories import KEY, smooth_parts


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 3600.0)
    kept = JudgementLog(JudgementFiles(tmp_path), 5)
    yield kept
    kept.close()


def record(log, at, key=KEY):
    log.record(key, Judgement(float(at), 0.5, 0.6, "ok", 0.2, "9f86", None), b"picture %d" % at)


def times(log, key=KEY):
    return [kept.at for kept in log.list(key)]


def test_judgements_wait_for_the_next_flush_and_survive_a_restart(log, tmp_path):
    record(log, 1)
    assert times(log) == []
    log.close()
    after = JudgementLog(JudgementFiles(tmp_path), 5)
    assert times(after) == [1]
    assert after.thumbnail(KEY, 1) == b"picture 1"
    with pytest.raises(JudgementNotFound, match="/history"):
        after.thumbnail(KEY, 2)


def test_the_thread_writes_without_being_asked(log, monkeypatch):
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 0.01)
    record(log, 1)
    for _ in range(500):
        if times(log):
            break
        time.sleep(0.01)
    assert times(log) == [1]


def test_a_disk_that_takes_nothing_keeps_judgements_waiting_in_order(log, monkeypatch):
    add, fails = log._files.add, [True]

    def failing(*arguments):
        if fails[0]:
            raise StorageError("the history cannot be stored (database or disk is full)")
        add(*arguments)

    monkeypatch.setattr(log._files, "add", failing)
    with capture_logs() as logs:
        for at in (1, 2, 3):
            record(log, at)
            log.flush()
    assert [entry["event"] for entry in logs] == ["history.not_stored"], "once"
    fails[0] = False
    record(log, 4)
    log.flush()
    assert times(log) == [4, 3, 2, 1]


def test_what_waits_too_long_is_lost_the_oldest_first_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 3600.0)
    monkeypatch.setattr(judgement_log, "_MAX_WAITING", 3)
    log = JudgementLog(JudgementFiles(tmp_path), 5)
    before = HISTORY_LOST._value.get()
    for at in range(5):
        record(log, at)
    log.close()
    assert times(log) == [4, 3, 2]
    assert HISTORY_LOST._value.get() - before == 2


def test_a_disk_that_fails_for_one_roi_takes_those_of_the_others(log, monkeypatch):
    other, add = RoiKey("Master1", "Other"), log._files.add

    def failing(key, *arguments):
        if key == other:
            raise StorageError("no")
        add(key, *arguments)

    monkeypatch.setattr(log._files, "add", failing)
    record(log, 1, other)
    record(log, 2)
    log.flush()
    monkeypatch.undo()
    assert (times(log), times(log, other)) == ([2], [])
    log.flush()
    assert times(log, other) == [1]


def test_inspection_roi_is_found_under_either_role_of_its_recipe(log):
    inferred = RoiKey("Inspection", "Inspection_1", "line 1")
    record(log, 1, inferred)
    log.flush()
    assert times(log, RoiKey("Master1", "Inspection_1", "line 1")) == times(log, inferred) == [1]
    assert times(log, RoiKey("Master1", "Inspection_1", "line 2")) == []


@pytest.mark.parametrize("size", [(96, 96), (3000, 2000), (400, 4000)])
def test_a_thumbnail_shows_the_image(size):
    image = cv2.resize(smooth_parts(1)[0], size, interpolation=cv2.INTER_LINEAR)
    content = thumbnail_of(image)
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    again = cv2.resize(image, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(shown.astype(int) - again).mean() < 20


@pytest.mark.parametrize("size", [(96, 96), (3000, 2000), (30, 4000), (5000, 7), (1, 1)])
def test_a_thumbnail_is_a_jpeg_of_256_pixels_at_most(size):
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    content = thumbnail_of(noise)
    assert content.startswith(b"\xff\xd8")
    assert len(content) < 40_000
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert max(shown.shape[:2]) == min(256, max(size))


@pytest.mark.parametrize("decided", [{}, {"decide_by": "either", "pixel_threshold": 0.7}])
def test_what_decided_is_kept_with_a_judgement(log, decided):
    calibration = Calibration(threshold=0.6, **decided)
    result = SimpleNamespace(
        calibration=calibration,
        decision="ng",
        inference=SimpleNamespace(score=0.5),
        fitted=SimpleNamespace(memory_id="9f86"),
    )
    log.record(KEY, judgement_of(result, 0.2, "request"), b"picture")
    log.flush()
    (kept,) = log.list(KEY)
    assert (kept.score, kept.threshold, kept.decision) == (0.5, 0.6, "ng")
    assert (kept.decide_by, kept.pixel_threshold) == (decided.get("decide_by"), decided.get("pixel_threshold"))
