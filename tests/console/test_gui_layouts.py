"""Layouts of the desktop GUI as the console's, and back: what is taken over, what is kept, and what is refused."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.pages import pages
from tests.console.conftest import PAGES
from tests.console.gui_layout_file import ANNULUS, CIRCLE, RECT, config, gui_layout, roi_model

Json = dict[str, Any]
_READ = """async ([text, file]) => {
  const { readObject, readGuiLayout } = await import("/gui-layout.js");
  try {
    return readGuiLayout(readObject(text, file), file, 1);
  } catch (problem) {
    return { refused: problem.message };
  }
}"""
_WRITE = """async ([content, recipe, pattern, margin]) =>
  (await import("/gui-layout-write.js")).writeGuiLayout(content, recipe, pattern, margin)"""
LID = {
    "role_id": "Inspection",
    "roi_id": "inspection-1",
    "model_key": "inspection-1",
    "name": "Lid",
    "mm_per_px": 1,
    "roi": {"kind": "rect", "cx": 300.5, "cy": 200.25, "w": 181, "h": 120.5, "r": 60.25, "r_inner": 0, "angle_deg": 17},
    "picture": {"width": 640, "height": 480},
}
RING = LID | {
    "roi_id": "inspection-2",
    "model_key": "inspection-2",
    "name": "Ring",
    "roi": {"kind": "annulus", "cx": 420, "cy": 300, "w": 160, "h": 160, "r": 80, "r_inner": 30.5, "angle_deg": 0},
    "enabled": False,
}

Read = Callable[..., Json]
Write = Callable[..., Json]


@pytest.fixture(scope="module")
def page(chromium: Any) -> Iterator[Any]:
    with pages(PAGES) as server, contextlib.closing(chromium.new_page()) as page:
        page.goto(f"{server.address}/index.html")
        yield page


@pytest.fixture
def read(page: Any) -> Read:
    """Reads a file: an object, or its text."""

    def read(content: Json | str, file: str = "My Layout 1.layout.json") -> Json:
        text = content if isinstance(content, str) else json.dumps(content)
        found: Json = page.evaluate(_READ, [text, file])
        return found

    return read


@pytest.fixture
def write(page: Any) -> Write:
    def write(content: Json, recipe: str = "My Layout 1", pattern: Json | None = None) -> Json:
        written: Json = page.evaluate(_WRITE, [content, recipe, pattern, 50])
        return written

    return write


def taken(layout: Json) -> list[Json]:
    return [place["roi"] for place in layout["places"]]


def opened(layout: Json, rois: list[Json]) -> Json:
    """The console's layout after the file was opened."""
    kept = {"file": "My Layout 1.layout.json", "layout": layout}
    return {"format": "roi-anomaly-console", "version": 1, "rois": rois, "gui_layout": kept}


class TestReading:
    def test_geometry_name_switch_and_key_of_each_roi_are_taken_over(self, read: Read) -> None:
        found = read(gui_layout())
        assert taken(found) == [LID, RING]
        assert found["recipe"] == "My Layout 1"
        assert [place["fits"] for place in found["places"]] == [True, True]

    def test_what_is_not_taken_over_is_said(self, read: Read) -> None:
        notes = " ".join(read(gui_layout(InspectionRois=[config(1, TrainMemoryFit=True)]))["notes"])
        for words in ("masters", "1 single picture", "Thresholds", "TrainMemoryFit"):
            assert words in notes

    @pytest.mark.parametrize("shape", [ANNULUS, "Annulus", "annulus"])
    def test_an_enum_is_an_integer_or_a_name(self, read: Read, shape: object) -> None:
        (ring,) = [
            roi
            for roi in taken(
                read(gui_layout(Inspection2=roi_model(ANNULUS, 4, 420, 300, Shape=shape, R=80, RInner=30.5)))
            )
            if roi["name"] == "Ring"
        ]
        assert ring["roi"]["kind"] == "annulus"

    def test_angle_deg_counts_before_the_other_spelling(self, read: Read) -> None:
        layout = gui_layout()
        layout["Inspection1"]["angle_deg"] = -23.5
        assert taken(read(layout))[0]["roi"]["angle_deg"] == -23.5

    def test_a_file_of_geometry_alone_is_enough(self, read: Read) -> None:
        found = read({"Inspection3": {"Shape": 1, "CX": 50, "CY": 60, "R": 20}})
        (roi,) = taken(found)
        assert (roi["name"], roi["roi_id"], roi["picture"]) == ("Inspection 3", "inspection-3", None)
        assert roi["roi"] == {
            "kind": "circle",
            "cx": 50,
            "cy": 60,
            "w": 40,
            "h": 40,
            "r": 20,
            "r_inner": 0,
            "angle_deg": 0,
        }
        assert any("does not say on pictures of which size" in note for note in found["notes"])

    def test_the_one_geometry_of_an_old_file_is_the_first(self, read: Read) -> None:
        (roi,) = taken(read({"Inspection": roi_model(RECT, 4, 100, 80, Width=50, Height=30)}))
        assert roi["roi_id"] == "inspection-1"

    @pytest.mark.parametrize(
        ("key", "taken_as"),
        [("Inspection_1", "inspection-1"), ("inspection 1", "inspection-1"), ("", "inspection-1"), ("lid", "lid")],
    )
    def test_model_keys_are_spelt_as_the_gui_sends_them(self, read: Read, key: str, taken_as: str) -> None:
        (roi, *_) = taken(read(gui_layout(InspectionRois=[config(1, ModelKey=key)])))
        assert (roi["roi_id"], roi["model_key"]) == (taken_as, taken_as)

    def test_of_two_rois_with_one_model_the_second_is_left_out(self, read: Read) -> None:
        found = read(gui_layout(InspectionRois=[config(1), config(2, ModelKey="inspection-1")]))
        assert [roi["roi_id"] for roi in taken(found)] == ["inspection-1"]
        assert any("have the same model, inspection-1" in note for note in found["notes"])

    @pytest.mark.parametrize(
        ("geometry", "words"),
        [
            (roi_model(7, 4, 300, 200, Width=10, Height=10), "has the shape 7"),
            (roi_model(RECT, 4, 300, 200, Width=0, Height=10), "no place or no size"),
            (roi_model(RECT, 4, 300, 200, Width="ten", Height=10), "no place or no size"),
            (roi_model(ANNULUS, 4, 300, 200, R=20, RInner=20), "a ring from 20 to 20"),
            (None, "does not say where it lies"),
        ],
    )
    def test_a_roi_that_is_none_is_left_out_and_named(self, read: Read, geometry: Json | None, words: str) -> None:
        found = read(gui_layout(Inspection1=geometry))
        assert taken(found) == [RING]
        assert any(words in note and note.startswith("Lid") for note in found["notes"])

    def test_a_circle_in_a_larger_box_is_told_and_never_cut_as_the_gui(self, read: Read) -> None:
        found = read({"Inspection1": roi_model(CIRCLE, 4, 100, 100, R=20, Width=60, Height=50)})
        assert found["places"][0]["fits"] is False
        assert any("box of 60 × 50" in note for note in found["notes"])

    @pytest.mark.parametrize(
        ("file", "recipe"),
        [
            ("line-7.layout.json", "line-7"),
            ("Line 7.JSON", "Line 7"),
            ("last.layout.json", ""),
            ("LAST.json", ""),
            (f"{'x' * 61}.layout.json", ""),
        ],
    )
    def test_the_recipe_is_the_name_of_the_file(self, read: Read, file: str, recipe: str) -> None:
        assert read(gui_layout(), file)["recipe"] == recipe

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ('{"Inspection1": {"Shape": 0', "it is damaged, or no JSON"),
            ("", "it is damaged, or no JSON"),
            ("[1, 2]", "it holds no object"),
            ("null", "it holds no object"),
            ('{"rois": []}', "has neither InspectionRois nor"),
            ('{"format": "roi-anomaly-console", "rois": [], "Inspection1": {}}', "is a layout of the console"),
        ],
    )
    def test_a_file_that_is_none_is_refused_with_a_sentence(self, read: Read, text: str, words: str) -> None:
        refused = read(text, "broken.layout.json")["refused"]
        assert refused.startswith("broken.layout.json ")
        assert words in refused
        assert refused.endswith(".")

    def test_a_mark_of_byte_order_and_zeros_are_passed_over(self, read: Read) -> None:
        assert taken(read("\ufeff \n" + json.dumps(gui_layout()) + "\0\0")) == [LID, RING]


class TestWriting:
    def test_an_unchanged_layout_goes_back_as_it_came(self, read: Read, write: Write) -> None:
        layout = gui_layout()
        written = write(opened(layout, taken(read(layout))))
        assert written["layout"] == layout
        assert (written["file"], written["n"], written["found"]) == ("My Layout 1.layout.json", 2, True)

    def test_what_could_not_be_read_goes_back_as_it_came(self, read: Read, write: Write) -> None:
        layout = gui_layout(
            Inspection1=roi_model(7, 4, 300, 200), InspectionRois=[config(2, ModelKey="lid"), {"Id": 5}]
        )
        assert write(opened(layout, taken(read(layout))))["layout"] == layout

    def test_a_changed_roi_alone_is_written_anew(self, write: Write) -> None:
        layout = gui_layout()
        layout["Inspection1"] |= {"angle_deg": 17, "OfALaterVersion": 1}
        moved = LID | {"name": "Cap", "roi": LID["roi"] | {"cx": 310, "angle_deg": -3.5}}
        written = write(opened(layout, [moved, RING]))
        changed = {"X": 310, "CX": 310, "AngleDeg": -3.5}
        assert written["layout"]["Inspection1"] == {
            key: value for key, value in (layout["Inspection1"] | changed).items() if key != "angle_deg"
        }
        assert written["layout"]["InspectionRois"] == [
            config(1, Name="Cap", Enabled=True),
            *layout["InspectionRois"][1:],
        ]
        baselines = written["layout"]["InspectionBaselinesByImage"]["a1b2"]
        assert [place["Id"] for place in baselines] == ["Inspection_2"]
        rest = ("Inspection1", "InspectionRois", "InspectionBaselinesByImage")
        assert {k: v for k, v in written["layout"].items() if k not in rest} == {
            k: v for k, v in layout.items() if k not in rest
        }
        assert any("where it lay in single pictures" in note for note in written["notes"])

    def test_a_written_roi_is_read_as_it_was(self, read: Read, write: Write) -> None:
        layout = gui_layout()
        circle = LID | {"roi": RING["roi"] | {"kind": "circle", "r": 33.5, "w": 67, "h": 67, "r_inner": 0}}
        written = write(opened(layout, [circle, RING | {"enabled": True}]))["layout"]
        ring = {key: value for key, value in RING.items() if key != "enabled"}
        assert taken(read(written)) == [circle, ring]
        assert written["Inspection1"]["Shape"] == 1
        assert (written["Inspection1"]["Width"], written["Inspection1"]["R"]) == (67, 33.5)

    def test_names_of_shapes_stay_names(self, write: Write) -> None:
        layout = gui_layout()
        layout["Inspection1"]["Shape"] = "Rectangle"
        moved = LID | {"roi": LID["roi"] | {"kind": "circle", "r": 20}}
        assert write(opened(layout, [moved, RING]))["layout"]["Inspection1"]["Shape"] == "Circle"

    def test_a_roi_that_is_gone_is_taken_out_and_switched_off(self, write: Write) -> None:
        written = write(opened(gui_layout(), [RING]))
        assert "Inspection1" not in written["layout"]
        assert written["layout"]["InspectionRois"][0] == config(1, Name="Lid", Enabled=False)
        assert any("Lid is no longer in the recipe" in note for note in written["notes"])

    def test_rois_that_the_gui_cannot_hold_are_named(self, write: Write) -> None:
        rois = [
            LID | {"roi_id": f"inspection-{n}", "model_key": f"inspection-{n}", "name": f"R{n}"} for n in range(1, 7)
        ]
        undrawn = RING | {"name": "Nothing", "roi": None}
        other = LID | {"role_id": "Master1", "name": "Other role"}
        content = {"format": "roi-anomaly-console", "version": 1, "rois": [*rois[:1], undrawn, *rois[2:], other]}
        written = write(content)
        assert written["n"] == 3
        notes = " ".join(written["notes"])
        for words in (
            "R5 (inspection-5): the GUI has four places",
            "R6 (inspection-6)",
            "Other role",
            "Nothing: it is not",
        ):
            assert words in notes

    def test_without_masters_it_says_that_the_gui_finds_nothing(self, write: Write) -> None:
        content = {"format": "roi-anomaly-console", "version": 1, "rois": [LID]}
        assert write(content)["found"] is False
        pattern = {"cx": 40, "cy": 50, "w": 60, "h": 40, "picture": {"width": 640, "height": 480}}
        written = write(content, "line", pattern)
        assert written["found"] is True
        master, search = written["layout"]["Master1Pattern"], written["layout"]["Master1Search"]
        assert [master[key] for key in ("Shape", "Role", "X", "Y", "Width", "Height")] == [0, 0, 40, 50, 60, 40]
        # From 0 to 120 and from 0 to 120: it ends at the picture's edge.
        assert [search[key] for key in ("Shape", "Role", "X", "Y", "Width", "Height")] == [0, 1, 60, 60, 120, 120]

    def test_no_number_of_a_written_file_is_null(self, write: Write) -> None:
        """The GUI would lose the whole file by it."""
        drawn = LID | {"picture": None}
        pattern = {"cx": 40, "cy": 50, "w": 60, "h": 40, "picture": None}
        content = {"format": "roi-anomaly-console", "version": 1, "rois": [drawn]}
        layout = write(content, "line", pattern)["layout"]
        holders = [layout["Inspection1"], layout["Master1Pattern"], layout["Master1Search"], *layout["InspectionRois"]]
        assert [value for holder in holders for value in holder.values() if value is None] == []

    @pytest.mark.parametrize("recipe", ["line: 7", "a/b", 'the "first"'])
    def test_a_recipe_that_no_file_can_be_called_is_told(self, write: Write, recipe: str) -> None:
        written = write({"format": "roi-anomaly-console", "version": 1, "rois": [LID]}, recipe)
        assert not set(written["file"]) & set('<>:"/\\|?*')
        assert any("cannot be the name of a file in Windows" in note for note in written["notes"])
