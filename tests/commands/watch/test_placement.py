"""Where a moved part is found, and which parts have no verdict because nobody knows where they are."""

import dataclasses
import math

import cv2
import numpy as np
import pytest

from backend.commands.watch.anchor import Anchor, grey, locate
from backend.commands.watch.crop import Roi
from backend.commands.watch.pictures import Picture, PictureRefused
from backend.commands.watch.placement import LayoutAnchor, Placement, placed, placement_in
from tests.commands.watch.lines import BrightnessJudge, Line, drawn, layout_of

WIDTH, HEIGHT = 240, 200
SEARCH = Anchor(cx=130.5, cy=95, w=41, h=36, search_px=24, search_deg=6)
ANCHOR = LayoutAnchor("7f", SEARCH, 0.7, (WIDTH, HEIGHT))


def part():
    """Something with detail of every size, uint8 [200, 240, 3]."""
    rng = np.random.default_rng(3)
    sizes = (7, 30, 90)
    layers = [cv2.resize(rng.normal(0, 30, (n, n, 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for n in sizes]
    return np.clip(120 + sum(layers), 0, 255).astype(np.uint8)


def moved(image, dx, dy, angle_deg):
    """After a motion about the anchor's centre, in other light; OpenCV counts from the centres of pixels."""
    turn = math.radians(angle_deg)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    centre = np.array([SEARCH.cx - 0.5, SEARCH.cy - 0.5])
    matrix = np.column_stack([rotation, centre + np.array([dx, dy]) - rotation @ centre])
    scene = cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.clip(0.8 * scene + 12, 0, 255).astype(np.uint8)


def template():
    return part()[77:113, 110:151]


def opened(image, name="part.png"):
    return Picture(name, b"", image, 8)


@pytest.mark.parametrize("motion", [(0, 0, 0), (17.3, -21.8, 0), (0, 0, 4.7), (-19.5, 14.2, -5.6)])
def test_a_part_is_found_where_it_was_moved_to(motion):
    found = placement_in(opened(moved(part(), *motion)), ANCHOR, grey(template()))
    assert math.hypot(found.dx - motion[0], found.dy - motion[1]) < 0.15
    assert abs(found.angle_deg - motion[2]) < 0.1
    assert found.score > 0.9
    for value, steps in ((found.dx, 64), (found.dy, 64), (found.angle_deg, 128)):
        assert (value * steps).is_integer()  # so that every computation cuts the same pixels


def test_what_lies_beyond_the_search_changes_nothing():
    image = moved(part(), 9, 7, 2)
    whole, _ = locate(SEARCH, grey(template()), grey(image))
    found = placement_in(opened(image), ANCHOR, grey(template()))
    assert (found.dx, found.dy) == pytest.approx((whole.dx, whole.dy), abs=1 / 128)
    assert found.score == pytest.approx(whole.score)


def refusal(image, anchor=ANCHOR):
    with pytest.raises(PictureRefused) as exc:
        placement_in(opened(image), anchor, grey(template()))
    return str(exc.value)


def test_a_part_that_is_not_there_is_not_found():
    assert "was not found" in refusal(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    other = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    assert "0.7 is needed" in refusal(other)


def test_a_part_that_is_there_twice_is_nowhere():
    image = part()
    image[113:149, 110:151] = template()
    wide = dataclasses.replace(ANCHOR, search=dataclasses.replace(SEARCH, search_px=45))
    assert "at two places" in refusal(image, wide)


def test_a_picture_of_another_size_is_refused():
    assert "the anchor was drawn on pictures of 240 × 200" in refusal(part()[:-1])


def test_a_roi_goes_where_opencv_puts_its_centre():
    placement = Placement(3.25, -7.5, 4.5, 1.0)
    roi = placed(Roi("rect", 60, 50, w=20, h=10, angle_deg=20), ANCHOR, placement)
    matrix = cv2.getRotationMatrix2D((SEARCH.cx, SEARCH.cy), -4.5, 1)
    matrix[:, 2] += [3.25, -7.5]
    assert (roi.cx, roi.cy) == pytest.approx(tuple(matrix @ [60, 50, 1]))
    assert (roi.w, roi.h, roi.angle_deg) == (20, 10, 24.5)


@pytest.fixture
def line(tmp_path):
    """A bright mark at (100, 60) that only a ROI which follows the part sees whole."""
    image = part() // 3
    cv2.rectangle(image, (90, 52), (109, 67), (255, 255, 255), -1)
    mark = {"kind": "rect", "cx": 100, "cy": 60, "w": 18, "h": 14, "r": 0, "r_inner": 0, "angle_deg": 0}
    anchor = dataclasses.asdict(SEARCH) | {"id": "7f", "least_score": 0.7}
    anchor |= {"picture": {"width": WIDTH, "height": HEIGHT}}
    roi = drawn(1, roi=mark, picture={"width": WIDTH, "height": HEIGHT})
    judge = BrightnessJudge(layout_of(roi, anchor=anchor))
    judge.pictures["anchor-7f"] = cv2.imencode(".png", image[77:113, 110:151])[1].tobytes()
    line = Line(tmp_path, judge, out="results.csv")
    line.image = image
    return line


def test_rois_follow_the_part_and_a_lost_part_is_not_judged(line):
    for name, image in {
        "there.png": line.image,
        "moved.png": moved(line.image, 18, 20, 5),
        "gone.png": np.full_like(line.image, 9),
    }.items():
        line.put(name, cv2.imencode(".png", image)[1].tobytes())
    line.run()
    told = {part["file"]: part for part in line.told}
    assert [told[name]["verdict"] for name in ("there.png", "moved.png", "gone.png")] == ["ng", "ng", "not_judged"]
    assert told["moved.png"]["rois"][0]["score"] == pytest.approx(0.8 + 12 / 255, abs=0.02)
    assert told["moved.png"]["placement"] == pytest.approx({"dx": 18, "dy": 20, "angle_deg": 5, "score": 1}, abs=0.2)
    assert "was not found" in told["gone.png"]["reason"]
    assert "placement" not in told["gone.png"]
    rows = [row.split(",") for row in line.out.read_text(encoding="utf-8").splitlines()]
    assert float(rows[2][rows[0].index("dx")]) == told["moved.png"]["placement"]["dx"]
    assert float(rows[2][rows[0].index("anchor_score")]) == told["moved.png"]["placement"]["score"]
