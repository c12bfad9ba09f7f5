"""What is said of the members of a shape that have no effect on its mask."""

import json

import pytest

from backend.common.errors import InvalidRequest, InvalidShape
from backend.roi_mask import Annulus, Circle, Rect, parse_shape, requested_shape
from backend.service.datasets import about_metas
from backend.utils import NamedImage

CIRCLE = {"kind": "circle", "cx": 5.5, "cy": 5, "r": 4}
RECT = {"kind": "rect", "x": 0, "y": 0, "w": 4, "h": 3}


@pytest.mark.parametrize(
    ("members", "shape"),
    [
        (RECT, Rect(kind="rect", x=0, y=0, w=4, h=3)),
        (CIRCLE, Circle(kind="circle", cx=5.5, cy=5, r=4)),
        ({**CIRCLE, "kind": "annulus", "r_inner": 0}, Annulus(kind="annulus", cx=5.5, cy=5, r=4, r_inner=0)),
        ({**CIRCLE, "x": 0, "y": None, "w": 0.0, "r_inner": 0, "angle": 0, "name": ""}, Circle(**CIRCLE)),
    ],
)
def test_members_that_mean_something_or_nothing_are_not_doubted(members, shape):
    assert requested_shape(json.dumps(members)) == (shape, None)


@pytest.mark.parametrize("text", [None, "", " ", "null"])
def test_no_mask_is_not_doubted(text):
    assert requested_shape(text) == (None, None)


@pytest.mark.parametrize(
    ("members", "doubt"),
    [
        ({**CIRCLE, "rInner": 2}, "shape circle: unknown and without effect: 'rInner' (did you mean r_inner?)"),
        ({**CIRCLE, "r_inner": 2}, "shape circle: r_inner has no effect: it belongs to annulus"),
        (
            {**RECT, "r": 2, "angle": 30},
            "shape rect: r has no effect: it belongs to circle and annulus, unknown and without effect: 'angle'",
        ),
    ],
)
def test_members_without_effect_are_named_and_change_nothing(members, doubt):
    text = json.dumps(members)
    assert requested_shape(text) == (parse_shape(text), doubt)


def test_a_shape_with_two_values_of_a_member_is_refused():
    with pytest.raises(InvalidRequest, match="'r' was sent several times with different values, '4' and '3'"):
        requested_shape(json.dumps(CIRCLE)[:-1] + ', "r": 3}')
    with pytest.raises(InvalidShape):
        requested_shape('{"kind": "annulus", "cx": 1, "cy": 1, "r": 2, "rInner": 1}')


def test_masks_of_an_upload_are_doubted_by_the_first_image_that_has_them():
    images = [NamedImage(f"{number}.png", bytes) for number in range(5)]
    odd, bad = {"shape_json": json.dumps({**CIRCLE, "rInner": 2})}, {"shape_json": {"kind": "ring"}}
    assert about_metas(images, []) is None
    assert about_metas(images, [{}, {"shape_json": json.dumps(CIRCLE)}, {"shape_json": CIRCLE}, {}, {}]) is None
    said = about_metas(images, [{}, odd, odd, bad, {}])
    assert said.startswith(
        "1.png: shape circle: unknown and without effect: 'rInner' (did you mean r_inner?); 3.png: shape: "
    )
    assert said.endswith(": the image is stored, but cannot be scored within this mask")
