"""A watched folder from arrival to the last note, with somebody who judges by brightness."""

import os
import threading
import time

import pytest

from backend.commands.watch import journal, watching
from backend.commands.watch.journal import Journal
from backend.commands.watch.judges import Away, Refused
from backend.commands.watch.results import Results
from backend.common.errors import NotReady, StorageError
from tests.commands.watch.lines import BrightnessJudge, Line, drawn, layout_of, picture


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(watching, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(watching, "_LOOK_EVERY_S", 0.01)


def test_every_part_is_judged_written_down_and_put_away(line):
    line.put("good.png")
    line.put("left.png", picture(left=1))
    line.put("shift 2/right.png", picture(right=1))
    line.put("torn.png", picture()[:50])
    assert line.run() == {"ok": 1, "ng": 2, "not_judged": 1}
    verdicts = {told["file"]: told["verdict"] for told in line.results()}
    assert verdicts == {"good.png": "ok", "left.png": "ng", "shift 2/right.png": "ng", "torn.png": "not_judged"}
    assert line.files() == {
        "ok/good.png": picture(),
        "ng/left.png": picture(left=1),
        "ng/shift 2/right.png": picture(right=1),
        "not_judged/torn.png": picture()[:50],
    } | {name: content for name, content in line.files().items() if not name.endswith(".png")}
    rois = {told["file"]: [roi["verdict"] for roi in told["rois"]] for told in line.results()}
    assert (rois["left.png"], rois["shift 2/right.png"]) == (["ng", "ok"], ["ok", "ng"])


def test_a_name_that_is_not_utf_8_is_told_with_escapes(line):
    line.put("M\udce4rz.png")
    assert line.run()["ok"] == 1
    assert {name for name, _, _ in line.judge.asked} == {"M\\udce4rz.png"}
    assert [told["file"] for told in line.results()] == ["M\\udce4rz.png"]
    assert "ok/M\udce4rz.png" in line.files()


def test_parts_are_judged_in_the_order_in_which_they_were_written(line):
    for name in ("10.png", "9.png", "1.png"):
        line.put(name)
    line.run()
    assert [told["file"] for told in line.results()] == ["10.png", "9.png", "1.png"]


def test_files_without_a_folder_to_go_to_stay_and_are_not_judged_again(tmp_path):
    line = Line(tmp_path, places=["ng"])
    line.put("good.png")
    line.put("bad.png", picture(left=1))
    line.run()
    assert line.run() == {"ok": 0, "ng": 0, "not_judged": 0}
    assert sorted(line.files()) == ["incoming/good.png", "ng/bad.png"]
    assert len(line.results()) == 2


def test_a_file_that_is_written_anew_is_another_part(tmp_path):
    line = Line(tmp_path, places=[])
    line.put("latest.png")
    line.run()
    line.put("latest.png", picture(left=1))
    line.run()
    assert [told["verdict"] for told in line.results()] == ["ok", "ng"]


def test_a_part_that_somebody_puts_back_is_judged_again(line):
    line.put("part.png", picture(left=1))
    line.run()
    (line.root / "ng" / "part.png").rename(line.incoming / "part.png")
    assert line.run()["ng"] == 1
    assert len({told["id"] for told in line.results()}) == 2


def test_copies_leave_the_files_where_they_are(line):
    line.put("part.png")
    line.run(copy=True)
    assert line.run(copy=True)["ok"] == 0
    assert line.files() == {"incoming/part.png": picture(), "ok/part.png": picture()}


def test_a_name_that_is_taken_is_never_overwritten(line):
    line.put("part.png")
    line.run()
    line.put("part.png", picture(left=0.1))
    line.run()
    part_id = line.results()[1]["id"]
    assert line.files() == {"ok/part.png": picture(), f"ok/part-{part_id[:8]}.png": picture(left=0.1)}
    assert f"the name is taken in {line.root / 'ok'}" in line.said[-1]


def test_folders_of_verdicts_below_the_watched_one_are_not_read(tmp_path):
    line = Line(tmp_path)
    line.places = {"ok": line.incoming / "good", "ng": line.incoming / "bad", "not_judged": line.incoming / "other"}
    line.put("part.png")
    line.run()
    assert line.run() == {"ok": 0, "ng": 0, "not_judged": 0}
    assert (line.incoming / "good" / "part.png").exists()


def test_a_torn_file_gets_more_time_and_is_judged_once_it_is_whole(line):
    line.put("slow.png", picture()[:60])

    def finish():
        time.sleep(0.25)
        line.put("slow.png")

    writer = threading.Thread(target=finish)
    writer.start()
    assert line.run(settle_s=0.1) == {"ok": 1, "ng": 0, "not_judged": 0}
    writer.join()


def test_what_cannot_be_read_is_not_judged_in_the_end(line, monkeypatch):
    path = line.put("locked.png")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    line.run()
    (told,) = line.results()
    assert (told["verdict"], told["reason"]) == ("not_judged", "locked.png cannot be read (Permission denied).")
    assert "sha256" not in told


def test_while_nobody_judges_parts_wait_and_then_none_is_missing(line):
    line.judge.problems = [Away("the service does not answer"), Away("it asks to wait", 0.02)]
    line.put("part.png")
    assert line.run() == {"ok": 1, "ng": 0, "not_judged": 0}
    assert [text for text in line.said if "judged" in text] == [
        "nothing is judged: the service does not answer. The command tries again until it works.",
        "nothing is judged: it asks to wait. The command tries again until it works.",
        "parts are judged again.",
    ]


def test_once_ends_with_an_error_where_nobody_judges_for_long(line, monkeypatch):
    monkeypatch.setattr(watching, "_LONGEST_WAIT_S", 0.01)
    line.judge.problems = [Away("no answer")] * 100
    line.put("part.png")
    with pytest.raises(NotReady, match=r"no answer\. Pictures that were not judged stay where they are"):
        line.run()
    assert list(line.files()) == ["incoming/part.png"]
    assert line.results() == []


def test_a_refused_crop_is_not_judged_and_the_reason_stays(line):
    line.judge.problems = [Refused("The ROI was never fitted.")]
    line.put("part.png")
    line.run()
    (told,) = line.results()
    assert (told["verdict"], told["reason"]) == ("not_judged", "Place 1: The ROI was never fitted.")
    assert [roi["verdict"] for roi in told["rois"]] == ["not_judged", "ok"]


def test_stopping_finishes_the_part_in_hand_and_takes_no_other(line):
    stopping = threading.Event()

    class Stopped(BrightnessJudge):
        def infer(self, *question):
            stopping.set()
            return super().infer(*question)

    line.judge = Stopped()
    for number in range(3):
        line.put(f"{number}.png")
    assert line.run(once=False, stopping=stopping)["ok"] == 1
    assert sorted(line.files()) == ["incoming/1.png", "incoming/2.png", "ok/0.png"]
    assert line.run()["ok"] == 2


def test_stopping_while_nobody_judges_leaves_the_part(line):
    stopping = threading.Event()
    line.judge.problems = [Away("no answer", 60)]
    line.put("part.png")
    threading.Timer(0.2, stopping.set).start()
    began = time.monotonic()
    assert sum(line.run(once=False, stopping=stopping).values()) == 0
    assert time.monotonic() - began < 10
    assert list(line.files()) == ["incoming/part.png"]


def test_a_layout_that_changes_is_followed_and_parts_are_cut_anew(line):
    line.judge.stored = layout_of(drawn(1))
    line.put("1.png", picture(right=1))
    line.run()
    line.judge.stored = layout_of()
    line.put("2.png", picture(right=1))
    line.run()
    assert [told["verdict"] for told in line.results()] == ["ok", "ng"]


def test_a_picture_of_another_size_than_the_roi_was_drawn_in_is_not_judged(line):
    line.judge.stored = layout_of(drawn(1, picture={"width": 41, "height": 30}), drawn(2))
    line.put("part.png", picture(left=0.1))
    line.run()
    (told,) = line.results()
    assert told["verdict"] == "not_judged"
    assert told["reason"] == "Place 1: part.png has 40 × 30 pixels; the ROI was drawn on pictures of 41 × 30."
    assert [name for name, _, _ in line.judge.asked] == ["part.png"]  # the other ROI was judged


def test_a_file_that_is_replaced_while_it_is_judged_is_judged_again(line, monkeypatch):
    monkeypatch.setattr(watching, "_LOOK_EVERY_S", 0.1)  # longer than the judging takes

    class Replacing(BrightnessJudge):
        def infer(self, *question):
            if not self.asked:
                line.put("part.png", picture(left=1))
            return super().infer(*question)

    line.judge = Replacing()
    line.put("part.png")
    assert line.run() == {"ok": 1, "ng": 1, "not_judged": 0}
    assert list(line.files()) == ["ng/part.png"]
    assert line.said == ["part.png was written anew: it was judged, and cannot be put away."]


def test_what_is_long_gone_is_forgotten_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_FORGET_EVERY_S", 0.0)
    monkeypatch.setattr(journal, "_KEPT_S", -1)
    line = Line(tmp_path, places=[])
    really = line.judge.infer

    def infer(*question):
        if len(line.judge.asked) == 2:
            (line.incoming / "0.png").unlink()  # its reader takes it away
        return really(*question)

    line.judge.infer = infer
    for number in range(3):
        line.put(f"{number}.png")
    line.run()
    state = Journal(tmp_path / "state")
    rows = state._rows("SELECT path FROM part ORDER BY rowid")
    state.close()
    assert rows == [(b"1.png",), (b"2.png",)]


def test_links_and_other_files_are_passed_over_and_named_once(line):
    for name in ("notes.txt", "notes 2.txt", "notes 3.txt", "notes 4.txt"):
        line.put(name, b"x")
    line.put("aim.png")
    (line.incoming / "link.png").symlink_to(line.incoming / "aim.png")
    line.run()
    said = sorted(text for text in line.said if text.startswith("ignored"))
    assert said[0] == "ignored: link.png (a link)"
    assert said[1].endswith(" and 1 more (its extension is not that of a picture)")
    assert len(said) == 2
    line.run()
    assert len(line.results()) == 1


class Killed(BaseException):
    """What `kill -9` does: nothing after it is done."""


STEPS = {
    "before the verdict is written down": (Journal, "add", "before"),
    "after the verdict is written down": (Journal, "add", "after"),
    "before the results": (Results, "append", "before"),
    "within a line of the results": (Results, "append", "torn"),
    "after the results": (Results, "append", "after"),
    "before the file is moved": (watching, "place", "before"),
    "after the file is moved": (watching, "place", "after"),
    "after the last note": (Journal, "done", "after"),
}


def test_a_part_has_the_same_id_when_it_is_judged_again_after_a_crash(line):
    asked = []

    class Counting(BrightnessJudge):
        def infer(self, drawn, crop, name, mm_per_px, part_id):
            asked.append((name, drawn.key.roi_id, part_id))
            if len(asked) == 2:
                raise Killed
            return super().infer(drawn, crop, name, mm_per_px, part_id)

    line.judge = Counting()
    line.put("1.png")
    line.put("2.png")
    with pytest.raises(Killed):
        line.run()
    line.run()
    assert asked[:2] == asked[2:4]
    assert len(asked) == 6
    assert len({part_id for _, _, part_id in asked}) == 2


@pytest.mark.parametrize("out", ["results.jsonl", "results.csv"])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_loses_no_part_and_writes_none_twice(tmp_path, monkeypatch, step, out):
    line = Line(tmp_path, out=out)
    contents = {f"{number}.png": picture(left=number / 10) for number in range(8)}
    for name, content in contents.items():
        line.put(name, content)
    holder, name, when = STEPS[step]
    really = getattr(holder, name)
    calls = []

    def dying(*arguments, **options):
        calls.append(1)
        if len(calls) not in (3, 4):
            return really(*arguments, **options)
        if when != "before":
            found = really(*arguments, **options)
            assert found is None or when == "after"
        if when == "torn":
            os.truncate(line.out, line.out.stat().st_size - 9 - len(calls))
        raise Killed

    monkeypatch.setattr(holder, name, dying)
    for _ in range(2):
        with pytest.raises(Killed):
            line.run()
    line.run()
    text = line.out.read_text(encoding="utf-8")
    expected = {name: ("ng" if number >= 5 else "ok") for number, name in enumerate(contents)}
    if out.endswith(".jsonl"):
        assert {told["file"]: told["verdict"] for told in line.results()} == expected
    else:
        rows = [row.split(",") for row in text.splitlines()]
        assert rows[0][:5] == ["id", "time_utc", "recipe_id", "file", "verdict"]
        assert len({len(row) for row in rows}) == 1
        assert {row[3]: row[4] for row in rows[1:]} == expected
        assert len(rows) == 1 + 2 * len(contents)
    assert len(text.splitlines()) == {".jsonl": 8}.get(line.out.suffix, 17)
    assert line.files() == {f"{expected[name]}/{name}": content for name, content in contents.items()}
    assert line.run() == {"ok": 0, "ng": 0, "not_judged": 0}


def test_results_that_cannot_be_written_stop_it_and_the_next_run_goes_on(line, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    line.put("part.png")
    with monkeypatch.context() as patch:
        patch.setattr(Results, "_append", full)
        with pytest.raises(StorageError, match="cannot be written"):
            line.run()
    assert list(line.files()) == ["incoming/part.png"]
    line.run()
    assert [told["verdict"] for told in line.results()] == ["ok"]
    assert list(line.files()) == ["ok/part.png"]


def test_a_folder_that_cannot_take_files_stops_it_and_the_next_run_goes_on(line):
    line.put("part.png")
    (line.root / "ok").write_bytes(b"a file in the way")
    with pytest.raises(StorageError, match="cannot be put into"):
        line.run()
    (line.root / "ok").unlink()
    line.run()
    assert list(line.files()) == ["ok/part.png"]
    assert len(line.results()) == 1


def test_the_next_part_is_read_while_one_is_judged(line, monkeypatch):
    read = {f"{number}.png": threading.Event() for number in range(3)}
    in_time = []
    really = watching.prepare

    def noted(folder, arrival, layout):
        prepared = really(folder, arrival, layout)
        read[arrival.path].set()
        return prepared

    class Waiting(BrightnessJudge):
        def infer(self, drawn, crop, name, mm_per_px, part_id):
            following = f"{int(name[0]) + 1}.png"
            in_time.append(following not in read or read[following].wait(20))
            return super().infer(drawn, crop, name, mm_per_px, part_id)

    monkeypatch.setattr(watching, "prepare", noted)
    line.judge = Waiting()
    for name in read:
        line.put(name)
    assert line.run()["ok"] == 3
    assert in_time == [True] * 6
