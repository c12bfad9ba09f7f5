"""Parts are counted exactly over all processes, judged once, and start anew with the model or its calibration."""

import errno
import json
import multiprocessing
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from backend.calib import Calibration, calibrate
from backend.common.roi_key import RoiKey
from backend.disk import drift_files
from backend.disk.drift_files import DriftFiles
from backend.disk.fitted import FittedRoi
from backend.service import write_behind
from backend.service.drift import DriftLog
from backend.storage import ModelStore
from tests.factories import KEY, memory_of

THRESHOLD = 0.6


def scores(seed, n, mean=0.45):
    return np.random.default_rng(seed).normal(mean, 0.03, n).tolist()


def opened(root: Path) -> DriftLog:
    """What a process opens for itself."""
    return DriftLog(DriftFiles(root), ModelStore(root), 0.1)


def fitted(root: Path, key: RoiKey = KEY) -> FittedRoi:
    found = ModelStore(root).load(key)
    assert found is not None
    return found


def calibrated(root: Path, key: RoiKey = KEY, threshold: float = THRESHOLD, ok_scores=()) -> Calibration:
    """Store a calibration and begin with it, as the service does."""
    memory_id = fitted(root, key).memory_id
    calibration = calibrate([threshold], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=memory_id)
    ModelStore(root).save_calibration(key, calibration)
    opened(root).begin(key, calibration, ok_scores)
    return calibration


def inspect(log: DriftLog, root: Path, parts, key: RoiKey = KEY) -> None:
    """Count parts, without waiting for the thread that adds them to the file."""
    found = fitted(root, key)
    for score in parts:
        log.record(key, found, score)
    log.close()


def status(root: Path, key: RoiKey = KEY):
    return opened(root).status(key, fitted(root, key))


@pytest.fixture
def root(tmp_path):
    """A models folder with a ROI that is fitted, and calibrated on 100 OK scores."""
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    calibrated(tmp_path, ok_scores=scores(0, 100))
    return tmp_path


def state_file(root: Path) -> Path:
    (file,) = state_files(root)
    return file


def state_files(root: Path) -> list[Path]:
    return list((root / ".drift").rglob("*.json"))


# --- counting


def test_parts_are_counted_and_the_last_200_kept(root):
    parts = [*scores(1, 250), 0.9, 0.8]
    inspect(opened(root), root, parts)
    found = status(root)
    assert found.verdict == "ok"
    assert (found.drift.n_parts, found.drift.n_rejected) == (252, 2)
    assert found.drift.recent == pytest.approx(parts[-200:], abs=1e-6)


def test_a_part_that_is_asked_about_again_counts_once(root):
    found = fitted(root)
    for ids in (["a", "b", None, "a", None], ["a", "c", "c"], ["b"]):
        log = opened(root)  # by turns of several processes
        for part_id in ids:
            log.record(KEY, found, 0.45, part_id)
        log.close()
    assert status(root).drift.n_parts == 5


def test_a_part_that_is_judged_by_another_threshold_counts_again(root):
    for threshold in (THRESHOLD, 0.6):
        calibrated(root, threshold=threshold)
        log = opened(root)
        log.record(KEY, fitted(root), 0.45, "a")
        log.close()
        assert status(root).drift.n_parts == 1


def test_an_id_that_was_given_to_two_parts_hides_neither(root):
    calibrated(root)
    log, found = opened(root), fitted(root)
    for score in (0.45, 0.75, 0.45):
        log.record(KEY, found, score, "1")
    log.close()
    assert (status(root).drift.n_parts, status(root).drift.n_rejected) == (2, 1)


def test_rois_of_one_part_that_share_a_calibration_count_each(root):
    calibrated(root)
    log = opened(root)
    for recipe in ("a", "b", "a"):
        key = replace(KEY, recipe_id=recipe)
        log.record(key, fitted(root, key), 0.45, "a")
    log.close()
    assert status(root).drift.n_parts == 2


def test_ids_of_long_ago_are_forgotten(root):
    log, found = opened(root), fitted(root)
    for number in range(700):
        log.record(KEY, found, 0.45, f"part {number}")
    log.close()
    assert len(status(root).drift.marks) == 500
    log.record(KEY, found, 0.45, "part 699")
    log.record(KEY, found, 0.45, "part 0")
    log.close()
    assert status(root).drift.n_parts == 701


def test_the_thread_adds_them_on_its_own(root, monkeypatch):
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 0.01)
    log, found = opened(root), fitted(root)
    added = multiprocessing.Event()
    monkeypatch.setattr(log._behind, "flush", added.set)
    log.record(KEY, found, 0.45)
    assert added.wait(30)
    log.close()


def count_in_another_process(root, seed):
    log, found = opened(root), fitted(root)
    for number, score in enumerate(scores(seed, 300)):
        log.record(KEY, found, score)
        if number % 10 == 0:
            log.flush()
    log.close()


@pytest.mark.slow
def test_counts_of_two_processes_add_up_exactly(root):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=count_in_another_process, args=(root, seed)) for seed in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    found = status(root).drift
    assert [process.exitcode for process in processes] == [0, 0]
    assert found.n_parts == 600
    assert sum(found.bag.values()) == 100 + 600


def test_a_restart_loses_nothing_and_a_drift_is_noticed_across_it(root):
    drifted = scores(3, 30, mean=0.52)
    whole = 0
    for part in drifted:  # every part in a process of its own
        inspect(opened(root), root, [part])
        whole += 1
        if status(root).verdict == "drift":
            break
    found = status(root)
    assert (found.verdict, found.drift.alarm) == ("drift", "higher")
    assert found.drift.n_parts == found.drift.alarm_part == whole


@pytest.mark.slow
def test_the_file_stays_small_whatever_is_counted(root):
    rng = np.random.default_rng(0)
    calibrated(root, threshold=2.0, ok_scores=rng.uniform(0, 2, 100_000).tolist())
    for _ in range(3):
        inspect(opened(root), root, rng.uniform(0, 2, 5000))
    assert status(root).drift.n_parts == 15_000
    assert state_file(root).stat().st_size < 100_000
    calibrated(root, ok_scores=scores(0, 1000))
    inspect(opened(root), root, scores(1, 5000))
    assert state_file(root).stat().st_size < 10_000, "of scores as they are"


# --- verdicts


def test_without_a_calibration_parts_are_counted_and_nothing_is_judged(tmp_path):
    ModelStore(tmp_path).save_memory(KEY, memory_of(1), {})
    inspect(opened(tmp_path), tmp_path, [1.9] * 300)
    found = status(tmp_path)
    assert (found.verdict, found.drift.n_parts, found.drift.n_rejected) == ("none", 300, 0)
    assert opened(tmp_path).status(KEY, None).verdict == "none"


def test_with_few_ok_scores_it_collects_first(root):
    calibrated(root, ok_scores=scores(0, 10))
    assert status(root).verdict == "collecting"
    inspect(opened(root), root, scores(1, 89))
    assert status(root).verdict == "collecting"
    inspect(opened(root), root, scores(2, 1))
    assert status(root).verdict == "ok"


def test_a_drift_is_told_once_in_the_log_and_in_the_list_of_all(root):
    log = opened(root)
    with capture_logs() as logs:
        inspect(log, root, scores(1, 50))
        assert log.drifting() == []
        inspect(log, root, [0.9] * 20)
        inspect(log, root, [0.9] * 20)
    told = [entry for entry in logs if entry["event"] == "drift.detected"]
    assert [(entry["role_id"], entry["roi_id"], entry["direction"]) for entry in told] == [
        ("Master1", "Pattern", "rejects")
    ]
    (found,) = log.drifting()
    assert (found.key.owner, found.alarm) == (KEY, "rejects")
    assert found.n_parts == 90
    assert " (11 of the 11 up to the alarm)" in log.judge(found).reason


def test_images_of_the_fit_are_no_reference_and_the_first_parts_become_it(root):
    calibrated(root, ok_scores=())
    inspect(opened(root), root, scores(1, 150, mean=0.55))
    assert status(root).verdict == "ok"
    inspect(opened(root), root, scores(2, 60, mean=0.45))
    assert (status(root).verdict, status(root).drift.alarm) == ("drift", "lower")


# --- what starts anew


def test_new_calibration_starts_anew_and_late_parts_of_the_old_are_dropped(root):
    """Parts judged by the old calibration that come after the new one are not counted, and no drift is listed."""
    log, old = opened(root), fitted(root)
    inspect(log, root, [0.9] * 30)
    assert status(root).verdict == "drift"
    calibrated(root, threshold=1.0, ok_scores=scores(0, 120))
    log.record(KEY, old, 0.9)
    inspect(log, root, [0.95])
    found = status(root)
    assert (found.verdict, found.drift.n_parts, found.drift.n_rejected) == ("ok", 1, 0)
    assert log.drifting() == []


def test_a_fit_starts_anew(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    ModelStore(root).save_memory(KEY, memory_of(2), {})
    log.forget(KEY)
    assert log.drifting() == []
    inspect(log, root, [0.5])
    found = status(root)
    assert (found.verdict, found.drift.n_parts) == ("none", 1)


def test_a_fit_that_gives_the_same_bank_keeps_the_alarm(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    log.forget(KEY)
    assert [drift.alarm for drift in log.drifting()] == ["rejects"]


def test_scores_of_a_calibration_replaced_meanwhile_are_no_reference(root):
    """Of two requests at once, the slower one hands in the scores of a calibration that the other has replaced."""
    first = calibrated(root, threshold=0.9, ok_scores=[0.2] * 30)
    second = calibrated(root, threshold=0.8, ok_scores=[0.5] * 30)
    opened(root).begin(KEY, first, [0.2] * 30)  # the slower of two requests
    found = status(root).drift
    assert found.threshold == second.threshold
    assert found.reference_summary == pytest.approx((0.5, 0.5, 0.5))


def test_calibration_copied_in_by_hand_begins_with_its_first_part(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    file = root / "Master1" / "Pattern" / "calib.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "threshold": 0.95}))
    assert (status(root).verdict, status(root).drift) == ("collecting", None)
    inspect(log, root, [0.9])
    assert (status(root).drift.n_parts, status(root).drift.n_rejected) == (1, 0)


def test_a_reset_begins_anew_with_the_ok_scores_of_the_calibration(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    log.reset(KEY, fitted(root), "calibration")
    found = status(root)
    assert (found.verdict, found.drift.n_parts, sum(found.drift.bag.values())) == ("ok", 0, 100)
    inspect(log, root, [0.9] * 30)
    assert status(root).verdict == "drift"


def test_a_reset_is_not_undone_by_parts_that_another_process_still_holds(root):
    log, another, found = opened(root), opened(root), fitted(root)
    for _ in range(30):
        another.record(KEY, found, 0.9)
    log.reset(KEY, found, "calibration")
    another.close()
    assert (status(root).verdict, status(root).drift.n_parts) == ("ok", 0)
    inspect(another, root, scores(1, 3))
    assert status(root).drift.n_parts == 3, "those that come after it are counted"


def test_a_clock_that_was_set_back_since_the_reset_stops_no_count(root, monkeypatch):
    log = opened(root)
    log.reset(KEY, fitted(root), "calibration")
    hour_ago = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: hour_ago)
    inspect(log, root, scores(1, 3))
    assert status(root).drift.n_parts == 3


def test_a_reset_can_take_production_as_it_is_now_for_the_reference(root):
    log = opened(root)
    inspect(log, root, scores(1, 60, mean=0.53))
    assert status(root).verdict == "drift"
    log.reset(KEY, fitted(root), "production")
    inspect(log, root, scores(2, 300, mean=0.53))
    assert status(root).verdict == "ok"


def test_recipes_that_use_the_default_calibration_are_counted_with_it(root):
    log = opened(root)
    for number in range(20):
        inspect(log, root, [0.45], RoiKey("Master1", "Pattern", f"line {number}"))
    line = RoiKey("Master1", "Pattern", "line 1")
    assert status(root, line) == status(root)
    assert status(root).drift.n_parts == 20
    assert status(root).drift.key.owner == KEY
    assert len(state_files(root)) == 1, "whatever a client may call a recipe"


def test_a_recipe_with_a_calibration_of_its_own_has_its_own_counts(root):
    line = RoiKey("Master1", "Pattern", "line 1")
    calibrated(root, line, threshold=0.7, ok_scores=scores(0, 50))
    log = opened(root)
    inspect(log, root, [0.65], line)
    inspect(log, root, [0.65, 0.45])
    assert (status(root, line).drift.n_parts, status(root, line).drift.n_rejected) == (1, 0)
    assert (status(root).drift.n_parts, status(root).drift.n_rejected) == (2, 1)
    assert sum(status(root, line).drift.reference.values()) == 50


def test_keys_that_mean_the_same_model_are_counted_together(root):
    same = RoiKey("Master1", "Pattern", "default", "Pattern")
    inspect(opened(root), root, [0.45])
    inspect(opened(root), root, [0.45], same)
    assert status(root).drift.n_parts == status(root, same).drift.n_parts == 2


def test_the_alarm_of_a_model_that_was_deleted_is_not_listed_and_deleted(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    assert [found.key.owner for found in log.drifting()] == [KEY]
    shutil.rmtree(root / "Master1")
    assert log.drifting() == []
    assert state_files(root) == []


@pytest.mark.parametrize("change", ["fit", "calibration"])
def test_recipe_alarm_is_not_listed_once_its_model_or_calibration_changes(root, change):
    """A recipe uses the default model: its alarm goes with a new fit of that model or without its own calibration."""
    line = RoiKey("Master1", "Pattern", "line 1")
    calibrated(root, line, threshold=0.7, ok_scores=scores(0, 50))
    log = opened(root)
    inspect(log, root, [0.9] * 30, line)
    inspect(log, root, [0.45])
    assert [found.key.owner for found in log.drifting()] == [line.owner]
    if change == "fit":
        ModelStore(root).save_memory(KEY, memory_of(2), {})
    else:
        (file,) = (root / "@recipes").rglob("calib.json")
        file.unlink()
    assert log.drifting() == []
    assert state_files(root) == [log._files.path(KEY)], "and others stay"


def test_an_alarm_is_not_lost_while_its_model_cannot_be_read(root):
    log = opened(root)
    inspect(log, root, [0.9] * 30)
    memory = root / "Master1" / "Pattern" / "memory.npz"
    content = memory.read_bytes()
    memory.write_bytes(b"damaged")
    assert log.drifting() == []
    memory.write_bytes(content)
    assert [found.key.owner for found in log.drifting()] == [KEY]


def test_what_a_fit_makes_forgotten_no_flush_under_way_brings_back(root, monkeypatch):
    log, another = opened(root), opened(root)
    forgetting = threading.Thread(target=log.forget, args=(KEY,))
    write = drift_files.write_atomic

    def write_late(files, **more):
        ModelStore(root).save_memory(KEY, memory_of(2), {})
        forgetting.start()
        forgetting.join(0.5)  # long enough for one that does not wait
        write(files, **more)

    monkeypatch.setattr(drift_files, "write_atomic", write_late)
    inspect(another, root, [0.9])
    forgetting.join()
    assert state_files(root) == []


# --- what goes wrong


def test_parts_wait_where_no_thread_starts_and_the_next_part_tries_again(root, monkeypatch):
    """Nothing is lost: closing the log writes the parts that waited."""

    class Refused(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    log, found = opened(root), fitted(root)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Refused)
        log.record(KEY, found, 0.44)
        log.close()
    assert status(root).drift.n_parts == 1
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 0.01)
    added = threading.Event()
    monkeypatch.setattr(log._behind, "flush", added.set)
    log.record(KEY, found, 0.45)
    assert added.wait(30)
    log.close()


def test_a_full_disk_fails_nothing_is_told_once_and_tried_again(root, monkeypatch):
    def full(_files, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    log = opened(root)
    inspect(log, root, scores(1, 10))
    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(drift_files, "write_atomic", full)
        inspect(log, root, scores(2, 10))
        inspect(log, root, scores(3, 10))
    assert [entry["event"] for entry in logs] == ["drift.not_stored"]
    assert status(root).drift.n_parts == 10
    inspect(log, root, [0.45])
    found = status(root).drift
    assert found.n_parts == 31
    assert found.recent == pytest.approx([*scores(1, 10), *scores(2, 10), *scores(3, 10), 0.45], abs=1e-6)


def test_a_roi_whose_file_cannot_be_written_does_not_hold_up_the_others(root, monkeypatch):
    other = RoiKey("Master1", "Other")
    ModelStore(root).save_memory(other, memory_of(3), {})
    calibrated(root, other, ok_scores=scores(0, 100))
    log = opened(root)
    broken = state_file_of(root, KEY)
    write = drift_files.write_atomic

    def write_all_but_one(files, **more):
        if broken in files:
            raise OSError(errno.EIO, "Input/output error")
        write(files, **more)

    monkeypatch.setattr(drift_files, "write_atomic", write_all_but_one)
    log.record(KEY, fitted(root), 0.45)
    inspect(log, root, [0.45], other)
    assert (status(root).drift.n_parts, status(root, other).drift.n_parts) == (0, 1)


def state_file_of(root: Path, key: RoiKey) -> Path:
    (file,) = (file for file in state_files(root) if json.loads(file.read_text())["roi_id"] == key.roi_id)
    return file


def test_calibration_does_not_wait_for_the_files_of_other_rois(root, monkeypatch):
    """Parts of one ROI are being written slowly. A calibration of another ROI is taken over without a warning."""
    other = RoiKey("Master1", "Other")
    ModelStore(root).save_memory(other, memory_of(3), {})
    calibrated(root, other, ok_scores=scores(0, 100))
    log, busy, may_go_on = opened(root), threading.Event(), threading.Event()
    added = log._added

    def added_slowly(drift, key, parts):
        busy.set()
        assert may_go_on.wait(30)
        return added(drift, key, parts)

    monkeypatch.setattr(log, "_added", added_slowly)
    log.record(KEY, fitted(root), 0.45)
    flushing = threading.Thread(target=log.flush)
    flushing.start()
    assert busy.wait(30)
    with capture_logs() as logs:
        calibrated(root, other, threshold=0.7, ok_scores=scores(0, 100))
    assert (logs, flushing.is_alive()) == ([], True)
    may_go_on.set()
    flushing.join()
    log.close()
    assert status(root, other).drift.threshold == 0.7
    assert status(root).drift.n_parts == 1


def test_roi_inspected_longest_ago_is_forgotten_beyond_the_most_kept(root, monkeypatch):
    """Of more ROIs than are kept, the one whose last inspection is the longest ago is dropped."""
    state_file(root).unlink()
    monkeypatch.setattr(drift_files, "_MAX_FILES", 3)
    keys = [RoiKey("Master1", f"Roi{number}") for number in range(4)]
    log = opened(root)
    for number, key in enumerate(keys):
        ModelStore(root).save_memory(key, memory_of(number + 2), {})
        inspect(log, root, [0.45], key)
        os.utime(log._files.path(key), ns=(number, number))
    assert {file.name for file in state_files(root)} == {log._files.path(key).name for key in keys[1:]}
    inspect(log, root, [0.45], keys[1])
    calibrated(root, keys[0], ok_scores=scores(0, 10))
    assert {file.name for file in state_files(root)} == {
        log._files.path(key).name for key in (keys[0], keys[1], keys[3])
    }


def test_only_calibrations_and_resets_wait_for_the_disk(root, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor)))
    log = opened(root)
    inspect(log, root, scores(1, 10))
    assert synced == []
    log.reset(KEY, fitted(root), "calibration")
    assert synced != []


def test_only_the_last_20000_wait_where_nothing_can_be_stored(root, monkeypatch):
    log, found = opened(root), fitted(root)

    def full(_files, **_more):
        for part in parts[20_300:]:  # while the file is written
            log.record(KEY, found, part)
        raise OSError(errno.ENOSPC, "No space left on device")

    parts = np.linspace(0.3, 0.5, 20_500).tolist()
    monkeypatch.setattr(write_behind, "_FLUSH_EVERY_S", 600)
    for part in parts[:20_300]:
        log.record(KEY, found, part)
    with monkeypatch.context() as patch:
        patch.setattr(drift_files, "write_atomic", full)
        log.close()
    log.close()
    counted = status(root).drift
    assert counted.n_parts == 20_000
    assert counted.recent == pytest.approx(parts[-200:], abs=1e-6)


def test_an_error_of_one_roi_loses_nothing_of_the_others(root, monkeypatch):
    other = RoiKey("Master1", "Other")
    ModelStore(root).save_memory(other, memory_of(3), {})
    calibrated(root, other, ok_scores=scores(0, 100))
    log = opened(root)
    added = log._added

    def all_but_one(drift, key, parts):
        if key == KEY:
            raise ZeroDivisionError
        return added(drift, key, parts)

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(log, "_added", all_but_one)
        log.record(KEY, fitted(root), 0.45)
        inspect(log, root, [0.45], other)
    assert [entry["event"] for entry in logs] == ["drift.failed"]
    inspect(log, root, [0.45])
    assert (status(root).drift.n_parts, status(root, other).drift.n_parts) == (1, 1)


GOOD = {"version": 1, "role_id": "a", "roi_id": "b", "recipe_id": "default", "model_key": "b", "conditions": "c"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"version": 1, "role_id"',
        b"[" * 100_000,
        b"\xff\xfe",
        b"null",
        b" " * 300_000,
        json.dumps({**GOOD, "started_utc": "x", "version": 2}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "bag": {"5000": 1}}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "bag": {"5": 2**63}}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "n_parts": -1}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "threshold": float("nan")}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "recent": [float("inf")]}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "recent": [0.1] * 201}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "wealth": {"higher": [1, 1, 1]}}).encode(),
        json.dumps({**GOOD, "started_utc": "x", "alarm": "sideways"}).encode(),
    ],
    ids=lambda content: content[:12].decode("latin-1") + str(len(content)),
)
def test_a_damaged_file_is_a_warning_and_begins_anew(root, content):
    inspect(opened(root), root, scores(1, 20))
    state_file(root).write_bytes(content)
    log = opened(root)
    with capture_logs() as logs:
        assert status(root).verdict == "collecting"
        assert log.drifting() == []
    assert {entry["event"] for entry in logs} == {"drift.not_read"}
    inspect(log, root, scores(2, 7))
    assert (status(root).verdict, status(root).drift.n_parts) == ("collecting", 7)


def test_a_calibration_is_stored_where_its_statistics_cannot_be(root, monkeypatch):
    def full(_files, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with capture_logs() as logs, monkeypatch.context() as patch:
        patch.setattr(drift_files, "write_atomic", full)
        opened(root).begin(KEY, fitted(root).calibration, scores(0, 10))
    assert [entry["event"] for entry in logs] == ["drift.not_stored"]
