"""Layouts of the console: what is read of them, and which are refused."""

import json

import pytest

from backend.commands.watch.crop import Roi
from backend.commands.watch.layouts import DrawnRoi, read_layout
from backend.common.errors import InvalidRequest, ReservedRecipe
from backend.common.roi_key import RoiKey
from tests.commands.watch.lines import RECT, RING, drawn, layout_of


def refusal(content, recipe="line 1"):
    with pytest.raises(InvalidRequest) as exc:
        read_layout(content, recipe, "layout.json")
    return str(exc.value)


def test_every_roi_is_read_as_the_console_stores_it():
    layout = read_layout(layout_of(), " Line 1 ", "the layout")
    assert layout.recipe == "line 1"
    assert layout.rois == (
        DrawnRoi(RoiKey("Inspection", "inspection-1", "line 1", "inspection-1"), "Place 1", 0.5, Roi(**RECT), (40, 30)),
        DrawnRoi(RoiKey("Inspection", "inspection-2", "line 1", "inspection-2"), "Place 2", 0.5, Roi(**RING), (40, 30)),
    )


def test_keys_that_nobody_knows_are_passed_over():
    content = layout_of(drawn(1, colour="red", roi=RECT | {"shade": 3}), comment="hall 7", grid={"x": 1})
    assert read_layout(content, None, "the layout").rois[0].roi == Roi(**RECT)


def test_without_a_recipe_the_default_one_is_meant():
    assert read_layout(layout_of(), None, "the layout").rois[0].key.recipe == "default"


def test_a_roi_that_is_switched_off_is_not_judged():
    content = layout_of(drawn(1), drawn(2, enabled=False), drawn(3, enabled=True))
    assert [roi.name for roi in read_layout(content, None, "the layout").rois] == ["Place 1", "Place 3"]
    assert "has no ROI to judge" in refusal(layout_of(drawn(1, enabled=False)))


def test_a_roi_that_is_not_drawn_yet_is_read_all_the_same():
    (roi,) = read_layout(layout_of(drawn(1, roi=None, picture=None)), None, "the layout").rois
    assert (roi.roi, roi.picture) == (None, None)


def test_a_layout_with_an_anchor_is_refused_and_an_empty_anchor_is_none():
    assert "has an anchor" in refusal(layout_of(anchor={"template": "a.png"}))
    assert read_layout(layout_of(anchor=None), None, "the layout").rois


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no JSON", "is no JSON"),
        (b"[]", "is no layout of the console"),
        (json.dumps({"format": "another", "version": 1, "rois": []}).encode(), "is no layout of the console"),
        (json.dumps({"format": "roi-anomaly-console", "version": 2, "rois": []}).encode(), "has version 2"),
        (json.dumps({"format": "roi-anomaly-console", "version": 1, "rois": []}).encode(), "has no ROI to judge"),
        (layout_of("no ROI"), "ROI 1"),
        (layout_of(drawn(1), drawn(2, role_id="")), "ROI 2: role_id"),
        (layout_of(drawn(1, roi=RECT | {"kind": "star"})), "roi.kind"),
        (layout_of(drawn(1, roi=RECT | {"w": 0})), "has no valid size"),
        (layout_of(drawn(1, roi=RING | {"r_inner": 8})), "has no valid size"),
        (layout_of(drawn(1, roi=RING | {"r": -1})), "has no valid size"),
        (layout_of(drawn(1, mm_per_px=0)), "mm_per_px"),
    ],
)
def test_what_is_no_layout_is_refused_with_what_is_wrong(content, said):
    assert said in refusal(content)


def test_the_reserved_recipe_is_refused():
    with pytest.raises(ReservedRecipe):
        read_layout(layout_of(), "last", "the layout")
