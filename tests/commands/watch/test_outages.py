"""Outages in the middle: of whoever judges, and of the results. Nothing is counted twice or lost."""

import os
from pathlib import Path

import pytest

from backend.commands.watch import watching
from backend.commands.watch.judges import Away
from backend.commands.watch.results import Results
from tests.commands.watch.lines import BrightnessJudge, Line, picture


class Outage(BrightnessJudge):
    """Does not answer when it is asked about the second ROI of the first part, twice."""

    def __init__(self):
        super().__init__()
        self.asks = 0

    def infer(self, drawn, crop, name, mm_per_px, part_id):
        self.asks += 1
        if self.asks in (2, 3):
            self.meanwhile()
            raise Away("no answer")
        return super().infer(drawn, crop, name, mm_per_px, part_id)

    def meanwhile(self):
        """What happens in the service during the outage."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    for name in ("_FIRST_WAIT_S", "_LOOK_EVERY_S", "_WRITE_AGAIN_S"):
        monkeypatch.setattr(watching, name, 0.01)


def asked(line):
    """Which ROI of which part was answered, in order."""
    return [f"{name} {roi[-1]}" for name, roi, _ in line.judge.asked]


def test_rois_answered_before_an_outage_are_not_asked_again(tmp_path):
    line = Line(tmp_path, Outage())
    line.put("a.png", picture(left=1))
    line.put("b.png", picture(left=1))
    assert line.run() == {"ok": 0, "ng": 2, "not_judged": 0}
    assert asked(line) == ["a.png 1", "a.png 2", "b.png 1", "b.png 2"]


@pytest.mark.parametrize("change", [{"threshold": 0.4}, {"memory_id": "another"}])
def test_rois_are_asked_again_where_an_outage_changed_what_is_served(tmp_path, change):
    class Changing(Outage):
        def meanwhile(self):
            self.learnt["inspection-1"] = change
            self.answers["inspection-1"] = change

    line = Line(tmp_path, Changing())
    line.put("a.png")
    assert line.run()["ok"] == 1
    assert asked(line) == ["a.png 1", "a.png 1", "a.png 2"]
    (told,) = line.results()
    assert change.items() <= told["rois"][0].items()


def test_a_part_that_is_written_anew_in_an_outage_is_asked_about_anew(tmp_path):
    class Replacing(Outage):
        def meanwhile(self):
            line.put("a.png", picture(left=0.2))

    line = Line(tmp_path, Replacing(), places=[])
    line.put("a.png")
    line.run()
    assert asked(line).count("a.png 1") == 2
    assert [told["rois"][0]["score"] for told in line.results()][-1] == pytest.approx(0.2, abs=1e-3)


class Locked:
    """A file of results that nobody can write until so many parts were answered."""

    def __init__(self, line, monkeypatch, until):
        really = Path.open

        def opened(path, mode="r", **options):
            if path == line.out and mode != "rb" and len(line.judge.asked) < 2 * until:
                raise PermissionError(13, "Permission denied", str(path))
            return really(path, mode, **options)

        monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize("out", ["results.jsonl", "results.csv"])
def test_parts_are_judged_while_results_cannot_be_written(tmp_path, monkeypatch, out):
    (tmp_path / "plain").mkdir()
    line, plain = Line(tmp_path, out=out), Line(tmp_path / "plain", out=out)
    for one in (line, plain):
        for number in range(5):
            one.put(f"{number}.png", picture(left=number / 4))
    Locked(line, monkeypatch, until=4)
    assert line.run() == plain.run() == {"ok": 2, "ng": 3, "not_judged": 0}
    names = ["0.png", "1.png", "2.png", "3.png", "4.png"]
    lines = line.out.read_text(encoding="utf-8").splitlines()
    assert [sum(name in text for text in lines) for name in names] == [1 if out.endswith("l") else 2] * 5
    assert all(lines)
    assert sorted(line.files()) == sorted(plain.files())
    said = [text for text in line.said if "written" in text]
    assert len(said) == 2
    assert "such as Excel" in said[0]
    assert "Parts are still judged" in said[0]
    assert said[1] == "the results are written again, and none is missing."


class Killed(BaseException):
    """What `kill -9` does: nothing after it is done."""


@pytest.mark.parametrize("n_bytes", [0, 1, 40])
def test_a_crash_while_kept_lines_are_written_tears_none(tmp_path, monkeypatch, n_bytes):
    line = Line(tmp_path)
    for number in range(4):
        line.put(f"{number}.png")
    really = Results.append
    calls = []

    def torn(results, told, at):
        calls.append(told["file"])
        really(results, told, at)
        if calls.count("1.png") == 1 and told["file"] == "1.png":
            os.truncate(line.out, at + n_bytes)
            raise Killed

    with monkeypatch.context() as patch:
        Locked(line, patch, until=4)
        patch.setattr(Results, "append", torn)
        with pytest.raises(Killed):
            line.run()
    line.run()
    assert [told["file"] for told in line.results()] == ["0.png", "1.png", "2.png", "3.png"]
    assert sorted(name for name in line.files() if name.endswith(".png")) == [f"ok/{number}.png" for number in range(4)]
