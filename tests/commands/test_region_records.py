"""Records of parts that regions decide about: three more columns, and files that are not mixed with others."""

import csv
import json
from dataclasses import replace

import pytest

from backend.commands.excel import Excel
from backend.commands.records import RecordFile
from backend.common.errors import InvalidRequest
from tests.commands.parts import CONDITIONS, RECORDS

BY_REGIONS = replace(CONDITIONS, decide_by="either", pixel_threshold=0.4)
WHY = "The score 0.33 reaches the threshold 0.30. No pixel reaches the pixel threshold 0.40: the highest value is 0.39."
RECORD = replace(RECORDS[0], conditions=BY_REGIONS, why=WHY, heatmap="maps/1.png")
FILES = {"a.jsonl": None, "a.csv": None, "b.csv": Excel(";", ",")}


def write(path, records, conditions, excel=None):
    with RecordFile.opened(path, restart=False, excel=excel) as file:
        file.require(conditions)
        for record in records:
            file.append(record)


def test_json_lines_have_three_more_members(tmp_path):
    write(tmp_path / "a.jsonl", [RECORD], BY_REGIONS)
    (line,) = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(line))[-3:] == ["decide_by", "pixel_threshold", "why"]
    assert json.loads(line)["why"] == WHY


def test_csv_has_three_more_columns(tmp_path):
    write(tmp_path / "a.csv", [RECORD, replace(RECORDS[2], conditions=BY_REGIONS)], BY_REGIONS)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        judged, failed = csv.DictReader(file)
    assert (judged["decide_by"], judged["pixel_threshold"], judged["why"]) == ("either", "0.4", WHY)
    assert (judged["n_regions"], failed["why"]) == ("2", "")


@pytest.mark.parametrize("name", FILES)
def test_a_stopped_run_goes_on(tmp_path, name):
    write(tmp_path / name, [RECORD], BY_REGIONS, FILES[name])
    second = replace(RECORDS[3], conditions=BY_REGIONS, why="x")
    write(tmp_path / name, [second], BY_REGIONS, FILES[name])
    at_once = tmp_path / f"other-{name}"
    write(at_once, [RECORD, second], BY_REGIONS, FILES[name])
    assert (tmp_path / name).read_bytes() == at_once.read_bytes()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("before", [CONDITIONS, BY_REGIONS], ids=["by the score before", "by regions before"])
def test_records_that_were_decided_otherwise_are_refused(tmp_path, name, before):
    write(tmp_path / name, [replace(RECORD, conditions=before)], before, FILES[name])
    now = BY_REGIONS if before is CONDITIONS else CONDITIONS
    with pytest.raises(InvalidRequest, match=r"with decide_by (none instead of either|either instead of none)"):
        write(tmp_path / name, [], now, FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_begun_anew_a_file_has_the_columns_of_its_own(tmp_path, name):
    write(tmp_path / name, [RECORD], BY_REGIONS, FILES[name])
    with RecordFile.opened(tmp_path / name, restart=True, excel=FILES[name]) as file:
        file.require(CONDITIONS)
        file.append(RECORDS[0])
    plain = tmp_path / f"other-{name}"
    write(plain, [RECORDS[0]], CONDITIONS, FILES[name])
    assert (tmp_path / name).read_bytes() == plain.read_bytes()
