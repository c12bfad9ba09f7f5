"""Files of records: read by others, gone on with after a kill, never mixed."""

import csv
import dataclasses
import json
import resource

import filelock
import pytest

from backend.commands.console import shown
from backend.commands.records import Conditions, RecordFile
from backend.common.errors import InvalidRequest, StorageError
from tests.commands.parts import CONDITIONS, RECORDS

PATHS = [RECORDS[0].path, RECORDS[1].path, "parts/latin\\udce4.png", RECORDS[3].path]
FORMATS = ["results.jsonl", "results.csv"]


def write(path, records, *, restart=False):
    with RecordFile.opened(path, restart=restart) as file:
        known = set(file.rows)
        for record in records:
            if shown(record.path) not in known:
                file.append(record)
    return path.read_bytes()


def test_json_lines_keep_values_to_the_last_digit_and_full_regions(tmp_path):
    """The regions are those that /infer replies."""
    write(tmp_path / "results.jsonl", RECORDS)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text("ascii").splitlines()]
    assert [line["path"] for line in lines] == PATHS
    first, failed = lines[0], lines[2]
    assert (first["score"], first["threshold"], first["decision"], first["ms"]) == (1 / 3, 0.1 + 0.2, "ng", 12.5)
    assert first["regions"] == RECORDS[0].regions
    assert first["shape"] == CONDITIONS.shape
    assert first["error"] is None
    assert (failed["score"], failed["regions"], failed["error"]) == (None, None, RECORDS[2].error)


def test_csv_gives_values_to_the_last_digit_and_a_summary_of_regions(tmp_path):
    """Any CSV reader gets the number of regions and their largest and total area."""
    write(tmp_path / "results.csv", RECORDS)
    with (tmp_path / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == PATHS
    first, unmarked, failed = rows[:3]
    assert (float(first["score"]), float(first["threshold"])) == (1 / 3, 0.1 + 0.2)
    assert (first["role_id"], first["roi_id"]) == (CONDITIONS.role_id, CONDITIONS.roi_id)
    assert json.loads(first["shape"]) == CONDITIONS.shape
    assert (first["n_regions"], float(first["largest_area_mm2"]), float(first["total_area_mm2"])) == ("2", 0.28, 0.38)
    assert (unmarked["n_regions"], float(unmarked["largest_area_mm2"]), unmarked["error"]) == ("0", 0, "")
    assert (failed["score"], failed["n_regions"], failed["error"]) == ("", "", RECORDS[2].error)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_file_cut_anywhere_is_gone_on_with_to_the_same_bytes(tmp_path, name):
    whole = write(tmp_path / name, RECORDS[1:3])
    marks = {place + step for place, byte in enumerate(whole) if byte in b'\n"' for step in (0, 1)}
    for end in sorted(marks | set(range(0, len(whole), 20))):
        (tmp_path / name).write_bytes(whole[:end])
        assert write(tmp_path / name, RECORDS[1:3]) == whole, f"cut after {end} bytes"


@pytest.mark.parametrize("name", FORMATS)
def test_a_power_cut_that_left_zeros_at_the_end_loses_only_the_last_record(tmp_path, name):
    whole = write(tmp_path / name, RECORDS)
    before = write(tmp_path / f"before-{name}", RECORDS[:-1])
    (tmp_path / name).write_bytes(before + bytes(len(whole) - len(before)))
    assert write(tmp_path / name, RECORDS) == whole


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"memory_id": "ff"}, "with another memory bank"),
        ({"threshold": 0.3}, "threshold 0.30000000000000004 instead of 0.3:"),
        ({"threshold": None}, "instead of none"),
        ({"calibration": "stale"}, "calibration applied instead of stale"),
        ({"score_percentile": 99.5}, "score_percentile 99.0 instead of 99.5"),
        ({"area_mm2_thr": 2.0}, "area_mm2_thr"),
        ({"mm_per_px": 0.1}, "mm_per_px 0.2 instead of 0.1"),
        ({"shape": None}, "shape"),
        ({"blur_sigma": 0.0}, "blur_sigma"),
        ({"role_id": "Master2"}, "role_id"),
        ({"roi_id": ""}, "roi_id"),
        ({"decide_by": "region", "pixel_threshold": 0.4}, "decide_by none instead of region"),
    ],
)
def test_records_of_other_conditions_are_refused_with_the_difference(tmp_path, name, change, says):
    """The error says what differs and to use --restart, and the file stays as it was."""
    whole = write(tmp_path / name, RECORDS)
    with RecordFile.opened(tmp_path / name, restart=False) as file:
        file.require(CONDITIONS)
        with pytest.raises(InvalidRequest, match=rf"{says}.*--restart"):
            file.require(dataclasses.replace(CONDITIONS, **change))
    assert (tmp_path / name).read_bytes() == whole


def test_every_condition_is_compared():
    compared = {"memory_id", "threshold", "calibration", "score_percentile", "area_mm2_thr", "mm_per_px", "shape"}
    compared |= {"blur_sigma", "role_id", "roi_id", "decide_by", "pixel_threshold"}
    assert {field.name for field in dataclasses.fields(Conditions)} == compared


@pytest.mark.parametrize("name", FORMATS)
def test_a_restart_forgets_the_old_records_only_once_there_is_a_new_one(tmp_path, name):
    whole = write(tmp_path / name, RECORDS)
    assert write(tmp_path / name, [], restart=True) == whole
    with RecordFile.opened(tmp_path / name, restart=True) as file:
        assert file.rows == {}
    alone = write(tmp_path / f"alone-{name}", RECORDS[3:])
    assert write(tmp_path / name, RECORDS[3:], restart=True) == alone


@pytest.mark.parametrize("name", FORMATS)
def test_a_dropped_record_makes_room_for_another_at_the_end(tmp_path, name):
    write(tmp_path / name, RECORDS)
    mended = dataclasses.replace(RECORDS[2], sha256="00" * 32, score=0.5, decision="ng", regions=[], error=None)
    with RecordFile.opened(tmp_path / name, restart=False) as file:
        file.drop(mended.path)
        file.append(mended)
    expected = write(tmp_path / f"expected-{name}", [RECORDS[0], RECORDS[1], RECORDS[3], mended])
    assert (tmp_path / name).read_bytes() == expected


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.jsonl", b'{"foo": 1}\n'),
        ("notes.jsonl", b"not finished"),
        ("notes.jsonl", b'{"path": "x.png", "score": 1}\n'),
        ("notes.jsonl", b'{"path": ' + b"[" * 100_000 + b"\n"),
        ("table.csv", b"path,label\nx.png,1\n"),
        ("table.csv", b"path,label"),
    ],
)
def test_a_file_of_anything_else_is_refused_and_left_alone(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"not made by this command; give another file"):
        write(tmp_path / name, RECORDS)
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_record_in_the_middle_is_refused_by_number(tmp_path, name):
    with_gap = write(tmp_path / name, RECORDS[:1]) + b"\n" + write(tmp_path / f"other-{name}", RECORDS[1:])
    (tmp_path / name).write_bytes(with_gap)
    with pytest.raises(InvalidRequest, match="record 2 was not made by this command"):
        write(tmp_path / name, RECORDS)


@pytest.mark.parametrize(
    ("name", "says"),
    [("results.txt", "extension"), ("folder.csv", "not a regular file"), ("no/x.csv", "no such folder")],
)
def test_a_file_that_cannot_be_one_of_records_is_refused(tmp_path, name, says):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InvalidRequest, match=says):
        write(tmp_path / name, RECORDS)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


def test_two_runs_never_write_one_file_and_no_lock_is_left(tmp_path):
    path = tmp_path / "results.csv"
    with RecordFile.opened(path, restart=False) as file:
        file.append(RECORDS[0])
        with pytest.raises(InvalidRequest, match="another run is writing"), RecordFile.opened(path, restart=True):
            pytest.fail("opened twice")
        file.append(RECORDS[1])
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv"]
    with filelock.FileLock(tmp_path / ".results.csv.lock"):  # as a killed run leaves it, but for the holder
        pass
    with RecordFile.opened(path, restart=False) as file:
        assert list(file.rows) == [record.path for record in RECORDS[:2]]


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_is_an_error_and_leaves_whole_records(tmp_path, name):
    path = tmp_path / name
    before = write(path, RECORDS[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RecordFile.opened(path, restart=False) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))
        try:
            with pytest.raises(StorageError, match=rf"{name} cannot be written \(File too large\)"):
                file.append(RECORDS[3])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert path.read_bytes() == before
        file.append(RECORDS[3])
    assert len(path.read_bytes()) > len(before) + 100
