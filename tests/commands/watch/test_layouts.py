"""Layouts of the console: what is read of them, and which are refused."""

import json
import math

import cv2
import numpy as np
import pytest

from backend.commands.watch.anchor import Anchor
from backend.commands.watch.crop import Roi
from backend.commands.watch.layouts import DrawnRoi, read_layout
from backend.commands.watch.placement import LayoutAnchor
from backend.common.errors import InvalidRequest, PictureNotFound, ReservedRecipe
from backend.common.roi_key import RoiKey
from tests.commands.watch.lines import RECT, RING, drawn, layout_of


def no_picture(recipe, name):
    raise PictureNotFound(f"recipe {recipe!r} has no picture {name!r}")


def refusal(content, recipe="line 1"):
    with pytest.raises(InvalidRequest) as exc:
        read_layout(content, recipe, "layout.json", no_picture)
    return str(exc.value)


def test_every_roi_is_read_as_the_console_stores_it():
    layout = read_layout(layout_of(), " Line 1 ", "the layout", no_picture)
    assert layout.recipe == "line 1"
    assert layout.rois == (
        DrawnRoi(RoiKey("Inspection", "inspection-1", "line 1", "inspection-1"), "Place 1", 0.5, Roi(**RECT), (40, 30)),
        DrawnRoi(RoiKey("Inspection", "inspection-2", "line 1", "inspection-2"), "Place 2", 0.5, Roi(**RING), (40, 30)),
    )


def test_keys_that_nobody_knows_are_passed_over():
    content = layout_of(drawn(1, colour="red", roi=RECT | {"shade": 3}), comment="hall 7", grid={"x": 1})
    assert read_layout(content, None, "the layout", no_picture).rois[0].roi == Roi(**RECT)


def test_without_a_recipe_the_default_one_is_meant():
    assert read_layout(layout_of(), None, "the layout", no_picture).rois[0].key.recipe == "default"


def test_a_roi_that_is_switched_off_is_not_judged():
    content = layout_of(drawn(1), drawn(2, enabled=False), drawn(3, enabled=True))
    assert [roi.name for roi in read_layout(content, None, "the layout", no_picture).rois] == ["Place 1", "Place 3"]
    assert "has no ROI to judge" in refusal(layout_of(drawn(1, enabled=False)))


def test_a_roi_that_is_not_drawn_yet_is_read_all_the_same():
    (roi,) = read_layout(layout_of(drawn(1, roi=None, picture=None)), None, "the layout", no_picture).rois
    assert (roi.roi, roi.picture) == (None, None)


ANCHOR = {
    "id": "7f",
    "cx": 20.5,
    "cy": 15,
    "w": 13,
    "h": 12,
    "search_px": 8,
    "search_deg": 5,
    "least_score": 0.7,
    "picture": {"width": 40, "height": 30},
}


def template(width=13, height=12):
    return cv2.imencode(".png", np.full((height, width, 3), (10, 20, 30), np.uint8))[1].tobytes()


def test_an_anchor_comes_with_its_picture_and_is_part_of_how_rois_are_cut():
    asked = []

    def template_of(*which):
        asked.append(which)
        return template()

    layout = read_layout(layout_of(anchor=ANCHOR), "line 1", "the layout", template_of)
    assert asked == [("line 1", "anchor-7f")]
    assert layout.anchor == LayoutAnchor("7f", Anchor(20.5, 15, 13, 12, 8, 5), 0.7, (40, 30))
    assert layout.template.shape == (12, 13)
    assert np.allclose(layout.template, (77 * 30 + 150 * 20 + 29 * 10) / 256)
    assert layout.rois[0].cut == ["rect", 10, 15, 12, 10, 0, "7f"]


def test_a_layout_without_an_anchor_asks_for_no_picture():
    assert read_layout(layout_of(anchor=None), None, "the layout", no_picture).anchor is None


@pytest.mark.parametrize(
    ("anchor", "content", "said"),
    [
        (ANCHOR | {"w": 0}, template(), "anchor: w"),
        (ANCHOR | {"search_px": -1}, template(), "anchor: search_px"),
        ({"id": "7f"}, template(), "anchor: cx"),
        (ANCHOR | {"w": 10**400}, template(), "anchor: w"),
        (ANCHOR | {"picture": {"width": 10**400, "height": 30}}, template(), "anchor: picture.width"),
        (ANCHOR, template()[:60], "the picture of the anchor cannot be used"),
        (ANCHOR, template(12, 13), "has 12×13 pixels instead of 13×12"),
    ],
)
def test_an_anchor_that_cannot_be_used_is_refused(anchor, content, said):
    with pytest.raises(InvalidRequest, match=said):
        read_layout(layout_of(anchor=anchor), None, "the layout", lambda *_: content)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"cx": 400}, r"13×12 pixels around \(400, 15\), reaches beyond its reference picture of 40×30 pixels"),
        ({"cx": -1e300}, "reaches beyond"),
        ({"cy": 31}, "reaches beyond"),
        ({"cx": 5.5}, "reaches beyond"),
        ({"cy": 25}, "reaches beyond"),
        ({"w": 43}, "reaches beyond"),
    ],
)
def test_an_anchor_beyond_its_reference_picture_is_refused(place, said):
    with pytest.raises(InvalidRequest, match=said):
        read_layout(layout_of(anchor=ANCHOR | place), None, "the layout", no_picture)


@pytest.mark.parametrize("place", [{"cx": 6.5, "cy": 6}, {"cx": 33.5, "cy": 24}])
def test_an_anchor_at_the_edge_of_its_reference_picture_is_read(place):
    layout = read_layout(layout_of(anchor=ANCHOR | place), None, "the layout", lambda *_: template())
    assert (layout.anchor.search.cx, layout.anchor.search.cy) == (place["cx"], place["cy"])


def test_an_anchor_whose_picture_is_missing_is_an_error():
    with pytest.raises(PictureNotFound):
        read_layout(layout_of(anchor=ANCHOR), None, "the layout", no_picture)


def test_a_roi_that_is_cut_as_the_gui_does_is_another_cut():
    (roi,) = read_layout(layout_of(drawn(1, roi=RECT | {"crop": "gui"})), None, "the layout", no_picture).rois
    assert roi.cut == ["rect", 10, 15, 12, 10, 0, "gui"]
    assert "roi.crop" in refusal(layout_of(drawn(1, roi=RECT | {"crop": "another"})))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no JSON", "is not JSON"),
        (b"[]", "is not a layout of the console"),
        (json.dumps({"format": "another", "version": 1, "rois": []}).encode(), "is not a layout of the console"),
        (json.dumps({"format": "roi-anomaly-console", "version": 2, "rois": []}).encode(), "has version 2"),
        (json.dumps({"format": "roi-anomaly-console", "version": 1, "rois": []}).encode(), "has no ROI to judge"),
        (layout_of("no ROI"), "ROI 1"),
        (layout_of(drawn(1), drawn(2, role_id="")), "ROI 2: role_id"),
        (layout_of(drawn(1, roi="a rectangle")), "ROI 1: roi: must be a JSON object"),
        (layout_of(drawn(1, roi={"kind": "rect", "cy": 15})), "ROI 1: roi.cx: it is missing"),
        (layout_of(drawn(1, roi=RECT | {"cx": math.nan})), "roi.cx: must be a number, and neither infinite nor NaN"),
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
        read_layout(layout_of(), "last", "the layout", no_picture)
