"""Records for Excel: what a double click shows in each country, and that names are never formulas."""

import csv
import dataclasses
from pathlib import Path

import pytest

from backend.commands import scoring
from backend.commands.excel import Excel
from backend.commands.records import Record, RecordFile
from backend.common.errors import InvalidRequest
from tests.commands.parts import CONDITIONS, PARTS, RECORDS, ROI, calibrated, without_ms

COUNTRIES = [
    ((), ",", "."),
    (("--decimal", ","), ";", ","),
    (("--delimiter", ";"), ";", ","),
    (("--delimiter", ";", "--decimal", "."), ";", "."),
]
NAMES = ["=1+1.png", "+x.png", "-x.png", "@SUM(A1).png", " =x.png", "\t=x.png", "\uff1dx.png", "'x.png", "''=x.png"]


def cells(path, delimiter):
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "without a byte order mark Excel takes UTF-8 for the local code page"
    return list(csv.DictReader(content[3:].decode().splitlines(), delimiter=delimiter))


@pytest.mark.parametrize(("options", "delimiter", "decimal"), COUNTRIES)
def test_excel_gets_the_plain_values_as_each_country_writes_them(run, work, features, options, delimiter, decimal):
    calibrated(work, features, 0.5)
    assert run("infer", *ROI, "parts", "--out", "plain.csv")[0] == 0
    assert run("infer", *ROI, "parts", "--out", "excel.csv", "--excel", *options)[0] == 0
    plain, excel = without_ms(Path("plain.csv").read_bytes()), cells(Path("excel.csv"), delimiter)
    assert [row["path"] for row in excel] == PARTS
    for expected, row in zip(plain, excel, strict=True):
        del row["ms"]
        assert row.keys() == expected.keys()
        for name, cell in row.items():
            assert cell == (expected[name].replace(".", decimal) if name != "path" else expected[name]), name
    assert decimal in excel[0]["score"]


@pytest.mark.parametrize(("options", "delimiter", "decimal"), COUNTRIES)
def test_a_stopped_run_goes_on_in_the_same_form_alone(run, work, monkeypatch, options, delimiter, decimal):
    run("infer", *ROI, "parts/a", "--out", "r.csv", "--excel", *options)
    before = Path("r.csv").read_bytes()
    for other in [()] + [("--excel", *given) for given, *_ in COUNTRIES if cells_differ(given, options)]:
        status, _, err = run("infer", *ROI, "parts/a", "--out", "r.csv", *other)
        assert (status, "options of --excel" in err, "--restart" in err) == (2, True, True), other
        assert Path("r.csv").read_bytes() == before
    asked = []
    infer = scoring.infer
    monkeypatch.setattr(scoring, "infer", lambda *a, **k: asked.append(a[2].name) or infer(*a, **k))
    assert run("infer", *ROI, "parts", "--out", "r.csv", "--excel", *options)[0] == 0
    assert asked == PARTS[:2]
    assert Path("r.csv").read_bytes().startswith(before)


def cells_differ(one, other):
    forms = {given: form for given, *form in COUNTRIES}
    return forms[one] != forms[other]


def test_no_text_is_a_formula_and_every_text_can_be_had_back(tmp_path):
    path = tmp_path / "r.csv"
    records = [Record(name, None, CONDITIONS, 1.0, error=f"{name}: cut") for name in NAMES]
    with RecordFile.opened(path, restart=False, excel=Excel()) as file:
        for record in [*records, *RECORDS]:
            file.append(record)
    text = path.read_bytes()[3:].decode()
    for row in csv.reader(text.splitlines(keepends=True)):
        assert not any(cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d")) for cell in row)
    with RecordFile.opened(path, restart=False, excel=Excel()) as file:
        assert list(file.rows)[: len(NAMES)] == NAMES
        assert [row["error"] for row in file.rows.values()][: len(NAMES)] == [record.error for record in records]
        file.require(CONDITIONS)
        with pytest.raises(InvalidRequest, match=r"threshold 0\.30000000000000004 instead of none"):
            file.require(dataclasses.replace(CONDITIONS, threshold=None))


def test_a_record_torn_anywhere_is_made_again(tmp_path):
    path, excel = tmp_path / "r.csv", Excel(";", ",")

    def write():
        with RecordFile.opened(path, restart=False, excel=excel) as file:
            for record in RECORDS[:2]:
                if record.path not in file.rows:
                    file.append(record)
        return path.read_bytes()

    whole = write()
    for end in (0, 2, 3, 9, whole.index(b"\n"), whole.index(b"\n") + 1, len(whole) - 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert write() == whole, end


def test_calibrate_goes_on_with_records_for_excel(run, work, monkeypatch):
    run("infer", *ROI, "parts", "--out", "r.csv", "--excel", "--decimal", ",")
    monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
    status, _, _ = run("calibrate", *ROI, "--ok", "parts", "--scores", "r.csv", "--excel", "--decimal", ",")
    assert status == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--excel",), "--excel needs a CSV file: give --out FILE.csv"),
        (("--excel", "--out", "r.jsonl"), "--excel needs a CSV file: give --out FILE.csv"),
        (("--decimal", ",", "--out", "r.csv"), "add --excel"),
        (("--delimiter", ";", "--out", "r.csv"), "add --excel"),
        (("--excel", "--out", "r.csv", "--decimal", ",", "--delimiter", ","), "give --delimiter ;"),
        (("--out", "r.xlsx"), "use .jsonl or .csv, with --excel to open it in Excel"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run, work, arguments, says):
    status, out, err = run("infer", *ROI, "parts", *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert sorted(path.name for path in work.iterdir()) == ["models", "parts"]
