"""From shapes to the pixels that they select, and which shapes are refused."""

import json

import numpy as np
import pytest

from backend.common.errors import InvalidRequest, InvalidShape
from backend.roi_mask import build_mask, parse_shape

RECTS = [
    {"kind": "rect", "x": 3, "y": 2, "w": 10, "h": 5},
    {"kind": "rect", "x": 3.5, "y": 2.5, "w": 4, "h": 4},  # begins on pixel centres: those on the right edge are out
    {"kind": "rect", "x": -5, "y": -5, "w": 12.25, "h": 9.75},  # over the left top corner
    {"kind": "rect", "x": 20, "y": 10, "w": 1000, "h": 1000},  # over the right bottom corner
    {"kind": "rect", "x": 0.4, "y": 0.4, "w": 0.2, "h": 0.2},  # one pixel
    {"kind": "rect", "x": 0, "y": 0, "w": 29, "h": 17.4},  # one column short
]
CIRCLES = [
    {"kind": "circle", "cx": 15, "cy": 8.5, "r": 8.5},  # as the GUI sends it: W/2, H/2, min/2
    {"kind": "circle", "cx": 15.5, "cy": 8, "r": 3},
    {"kind": "circle", "cx": 0, "cy": 0, "r": 6.5},  # a quarter is inside
    {"kind": "circle", "cx": -4, "cy": 20, "r": 9},  # the centre is outside
    {"kind": "circle", "cx": 4.5, "cy": 4.5, "r": 0.5},  # one pixel
    {"kind": "circle", "cx": 15, "cy": 8, "r": 16.5},  # all but the corners
]
ANNULI = [
    {"kind": "annulus", "cx": 15, "cy": 8.5, "r": 8.5, "r_inner": 4},
    {"kind": "annulus", "cx": 15.5, "cy": 8.5, "r": 8, "r_inner": 3},  # pixel centres on both circles
    {"kind": "annulus", "cx": 30, "cy": 17, "r": 20, "r_inner": 10.5},  # around the right bottom corner
    {"kind": "annulus", "cx": 15, "cy": 8, "r": 5, "r_inner": 0},  # no hole
    {"kind": "annulus", "cx": 15, "cy": 8.5, "r": 1000, "r_inner": 6},  # a hole in the whole image
]


def selected_pixel_by_pixel(shape, rows, columns):
    """A pixel belongs to a shape when its centre does."""
    mask = np.zeros((rows, columns), bool)
    for row in range(rows):
        for column in range(columns):
            x, y = column + 0.5, row + 0.5
            if shape["kind"] == "rect":
                inside = shape["x"] <= x < shape["x"] + shape["w"] and shape["y"] <= y < shape["y"] + shape["h"]
            else:
                squared = (x - shape["cx"]) ** 2 + (y - shape["cy"]) ** 2
                inside = shape.get("r_inner", 0) ** 2 <= squared <= shape["r"] ** 2
            mask[row, column] = inside
    return mask


@pytest.mark.parametrize("shape", RECTS + CIRCLES + ANNULI, ids=json.dumps)
def test_a_mask_is_every_pixel_whose_centre_is_in_the_shape(shape):
    mask = build_mask(parse_shape(json.dumps(shape)), (17, 30))
    assert mask is not None
    assert mask.dtype == bool
    assert mask.shape == (17, 30)
    assert np.array_equal(mask, selected_pixel_by_pixel(shape, 17, 30))


def test_a_rect_of_whole_pixels_has_exactly_its_area():
    mask = build_mask(parse_shape('{"kind":"rect","x":3,"y":2,"w":10,"h":5}'), (17, 30))
    assert mask is not None
    rows, columns = np.nonzero(mask)
    assert mask.sum() == 50
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (3, 12, 2, 6)


@pytest.mark.parametrize("size", [(20, 20), (21, 21), (15, 40)])
def test_the_circle_that_the_gui_sends_is_symmetric(size):
    rows, columns = size
    text = json.dumps({"kind": "circle", "cx": columns / 2, "cy": rows / 2, "r": min(rows, columns) / 2})
    mask = build_mask(parse_shape(text), size)
    assert mask is not None
    assert np.array_equal(mask, mask[::-1])
    assert np.array_equal(mask, mask[:, ::-1])
    assert mask.sum() == pytest.approx(np.pi * (min(size) / 2) ** 2, rel=0.03)


@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "rect", "x": 0, "y": 0, "w": 30, "h": 17},
        {"kind": "rect", "x": -1e5, "y": -1e5, "w": 1e6, "h": 1e6},
        {"kind": "rect", "x": 0.5, "y": 0.5, "w": 29.5, "h": 16.5},
        {"kind": "circle", "cx": 15, "cy": 8.5, "r": 18},
        {"kind": "annulus", "cx": -3, "cy": -3, "r": 100, "r_inner": 2},
    ],
    ids=json.dumps,
)
def test_a_shape_that_covers_every_pixel_is_no_mask(shape):
    assert selected_pixel_by_pixel(shape, 17, 30).all()
    assert build_mask(parse_shape(json.dumps(shape)), (17, 30)) is None


@pytest.mark.parametrize(
    "shape",
    [
        {"kind": "rect", "x": 30, "y": 0, "w": 10, "h": 10},
        {"kind": "rect", "x": 0.6, "y": 0.6, "w": 0.8, "h": 0.8},  # between pixel centres
        {"kind": "circle", "cx": 5, "cy": 5, "r": 0.5},  # likewise
        {"kind": "circle", "cx": -20, "cy": 5, "r": 20},
        {"kind": "annulus", "cx": 15, "cy": 8, "r": 100, "r_inner": 90},  # the image is in the hole
    ],
    ids=json.dumps,
)
def test_a_shape_that_selects_no_pixel_is_invalid(shape):
    assert not selected_pixel_by_pixel(shape, 17, 30).any()
    with pytest.raises(InvalidShape, match=f"{shape['kind']} selects no pixel of the 30x17 image"):
        build_mask(parse_shape(json.dumps(shape)), (17, 30))


@pytest.mark.parametrize("text", [None, "", "  \n", "null", " null "])
def test_no_shape_is_no_mask(text):
    assert parse_shape(text) is None
    assert build_mask(None, (17, 30)) is None


def test_shapes_are_read_as_the_gui_writes_their_numbers_and_members():
    """Integers, halves, exponents and unknown members of the JSON are accepted."""
    shape = parse_shape('{"kind":"circle","cx":1.5E1,"cy":8,"r":1E-05,"angle":30,"label":null}')
    assert shape == parse_shape('{"r":0.00001,"cy":8.0,"cx":15,"kind":"circle"}')


@pytest.mark.parametrize(
    "text",
    [
        "circle",
        "{",
        "[]",
        "7",
        '"rect"',
        "{}",
        '{"kind":"rect"}',
        '{"kind":"polygon","points":[]}',
        '{"kind":null,"x":0,"y":0,"w":5,"h":5}',
        '{"kind":"Rect","x":0,"y":0,"w":5,"h":5}',
        '{"kind":"rect","x":0,"y":0,"w":5}',
        '{"kind":"rect","x":0,"y":0,"w":5,"h":null}',
        '{"kind":"rect","x":0,"y":0,"w":5,"h":"tall"}',
        '{"kind":"rect","x":0,"y":0,"w":-5,"h":5}',
        '{"kind":"rect","x":0,"y":0,"w":5,"h":0}',
        '{"kind":"rect","x":NaN,"y":0,"w":5,"h":5}',
        '{"kind":"rect","x":0,"y":-Infinity,"w":5,"h":5}',
        '{"kind":"rect","x":1e400,"y":0,"w":5,"h":5}',
        '{"kind":"rect","x":0,"y":0,"w":1e300,"h":5}',
        '{"kind":"circle","cx":5,"cy":5,"r":-1}',
        '{"kind":"circle","cx":5,"cy":5,"r":0}',
        '{"kind":"circle","cx":5,"cy":5,"r":NaN}',
        '{"kind":"circle","cx":5,"cy":[5],"r":1}',
        '{"kind":"annulus","cx":5,"cy":5,"r":4}',
        '{"kind":"annulus","cx":5,"cy":5,"r":4,"r_inner":4}',
        '{"kind":"annulus","cx":5,"cy":5,"r":4,"r_inner":5}',
        '{"kind":"annulus","cx":5,"cy":5,"r":4,"r_inner":-1}',
        '{"kind":"annulus","cx":5,"cy":5,"r":4,"r_inner":NaN}',
        "[" * 100_000,
        '{"kind":"rect","x":' + "9" * 10_000 + ',"y":0,"w":5,"h":5}',
    ],
    ids=lambda text: text[:60],
)
def test_anything_else_is_an_invalid_shape(text):
    with pytest.raises(InvalidShape, match=r"^shape") as caught:
        parse_shape(text)
    assert isinstance(caught.value, InvalidRequest)


def test_the_message_names_the_member_that_is_wrong():
    with pytest.raises(InvalidShape, match=r"r_inner"):
        parse_shape('{"kind":"annulus","cx":5,"cy":5,"r":4}')
    with pytest.raises(InvalidShape, match=r"\bw\b.*must be above 0$"):
        parse_shape('{"kind":"rect","x":0,"y":0,"w":-5,"h":5}')
