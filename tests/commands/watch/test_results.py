"""The file of results, and what it is after somebody else had it in hand."""

import csv
import io
import json
from pathlib import Path

import pytest

from backend.commands.excel import Excel
from backend.commands.watch.results import COLUMNS, Results
from backend.common.errors import InvalidRequest, StorageError
from tests.commands.watch.lines import Line, picture

ROI = {
    "role_id": "Inspection",
    "roi_id": "inspection-1",
    "model_key": "inspection-1",
    "name": "=1+1",
    "verdict": "ng",
    "score": 0.61,
    "threshold": 0.5,
    "calibration": "applied",
    "why": 'The score 0.61 reaches "0.5",\nor not.',
    "n_regions": 1,
    "largest_area_mm2": 9.75,
    "memory_id": "bank",
}
OTHER = ROI | {"roi_id": "inspection-2", "verdict": "not_judged", "reason": "No threshold."}


def told_of(part_id, *rois):
    return {
        "id": part_id,
        "time_utc": "2026-11-30T00:00:00.000+00:00",
        "recipe_id": "line 1",
        "file": "a/part.png",
        "verdict": "ng",
        "ms": 12.5,
        "rois": list(rois or (ROI, OTHER)),
    }


def append(results, *parts):
    for part in parts:
        results.append(part, results.end())


def rows(path, **options):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), **options))


def test_csv_has_a_line_for_each_roi_with_what_is_known_of_its_part(tmp_path):
    append(Results(tmp_path / "r.csv"), told_of("1"), told_of("2"))
    found = rows(tmp_path / "r.csv")
    assert tuple(found[0]) == COLUMNS
    assert [(row["id"], row["verdict"], row["roi_id"], row["roi_verdict"], row["roi_reason"]) for row in found] == [
        ("1", "ng", "inspection-1", "ng", ""),
        ("1", "ng", "inspection-2", "not_judged", "No threshold."),
        ("2", "ng", "inspection-1", "ng", ""),
        ("2", "ng", "inspection-2", "not_judged", "No threshold."),
    ]
    assert (found[0]["score"], found[0]["why"], found[0]["reason"]) == ("0.61", ROI["why"], "")


def test_json_lines_have_a_line_for_each_part(tmp_path):
    append(Results(tmp_path / "r.jsonl"), told_of("1"), told_of("2"))
    lines = (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [told_of("1"), told_of("2")]


def test_for_excel_numbers_and_names_are_as_it_wants_them(tmp_path):
    append(Results(tmp_path / "r.csv", Excel(";", ",")), told_of("1"))
    assert (tmp_path / "r.csv").read_bytes().startswith("\ufeffid;time_utc".encode())
    found = rows(tmp_path / "r.csv", delimiter=";")
    assert (found[0]["score"], found[0]["name"]) == ("0,61", "'=1+1")
    append(Results(tmp_path / "r.csv", Excel(";", ",")), told_of("2"))
    assert len(rows(tmp_path / "r.csv", delimiter=";")) == 4


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_torn_lines_are_written_again_and_whole_ones_are_not(tmp_path, name):
    path = tmp_path / name
    append(Results(path), told_of("1"), told_of("2"))
    whole = path.read_bytes()
    path.unlink()
    append(Results(path), told_of("1"))
    at = path.stat().st_size
    for length in (*range(at, len(whole), 31), len(whole)):
        path.write_bytes(whole[:length])
        Results(path).append(told_of("2"), at)
        assert path.read_bytes() == whole
    for length in range(0, at, 31):  # the very first lines
        path.write_bytes(whole[:length])
        Results(path).append(told_of("1"), 0)
        assert path.read_bytes() == whole[:at]


def test_what_somebody_else_wrote_behind_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    append(Results(path), told_of("1"))
    at = path.stat().st_size
    with path.open("a", encoding="utf-8") as file:
        file.write('{"id": "of another program')
    Results(path).append(told_of("2"), at)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line[:28] for line in lines] == [
        '{"id": "1", "time_utc": "202',
        '{"id": "of another program',
        '{"id": "2", "time_utc": "202',
    ]


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_a_file_that_was_taken_away_meanwhile_is_begun_anew(tmp_path, name):
    path = tmp_path / name
    append(Results(path), told_of("1"))
    at = path.stat().st_size
    path.unlink()
    results = Results(path)
    results.append(told_of("2"), at)
    append(results, told_of("3"))
    fresh = tmp_path / f"fresh-{name}"
    append(Results(fresh), told_of("2"), told_of("3"))
    assert path.read_bytes() == fresh.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("r.csv", b"path,score,decision\n", "contains something else"),
        ("r.jsonl", b'{"path": "a.png"}\n', "contains something else"),
        ("r.txt", b"", r"use \.csv or \.jsonl"),
        ("missing/r.csv", None, "no such folder"),
    ],
)
def test_a_file_that_holds_something_else_is_refused_and_left_alone(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=said):
        Results(path)
    assert content is None or path.read_bytes() == content


def test_plain_csv_does_not_go_on_as_one_for_excel(tmp_path):
    append(Results(tmp_path / "r.csv"), told_of("1"))
    with pytest.raises(InvalidRequest, match="other options"):
        Results(tmp_path / "r.csv", Excel())


@pytest.mark.parametrize("out", ["results.jsonl", "results.csv"])
def test_results_that_stay_open_in_excel_end_once_and_none_is_lost(tmp_path, monkeypatch, out):
    line = Line(tmp_path, out=out)
    line.put("0.png")
    line.run()
    really = Path.open

    def opened(path, mode="r", **options):
        if path == line.out and mode != "rb":  # Excel lets others read
            raise PermissionError(13, "Permission denied", str(path))
        return really(path, mode, **options)

    for number in (1, 2):
        line.put(f"{number}.png", picture(left=1))
    before = line.out.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        for _ in range(2):  # started again while it is still open
            with pytest.raises(StorageError, match=r"close it in other programs, such as Excel.*run the command again"):
                line.run()
    assert line.out.read_bytes() == before
    assert sorted(line.files()) == ["incoming/1.png", "incoming/2.png", "ok/0.png"]
    line.run()
    assert len(line.judge.asked) == 2 * 3  # each part once
    n_lines = {".jsonl": 3, ".csv": 1 + 2 * 3}
    assert len(line.out.read_text(encoding="utf-8").splitlines()) == n_lines[line.out.suffix]
    assert sorted(line.files()) == ["ng/1.png", "ng/2.png", "ok/0.png"]
