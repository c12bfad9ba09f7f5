"""The ROI editor in a real browser: what a person drags, types and presses is the ROI that comes out."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import pytest

from harness.pages import PageServer, pages
from tests.console.conftest import PAGES, Visit
from tests.console.pictures import bgr, decode

RECT = {"kind": "rect", "cx": 400, "cy": 300, "w": 300, "h": 200, "r": 60, "r_inner": 20, "angle_deg": 0}
CIRCLE = RECT | {"kind": "circle", "r": 150}
ANNULUS = RECT | {"kind": "annulus", "r": 150, "r_inner": 70}
WIDTH, HEIGHT = 800, 600


class Editor:
    """A page with an editor on it."""

    def __init__(self, page: Any):
        self.page = page
        self.stage = page.locator(".roi-stage")

    @property
    def roi(self) -> dict[str, Any]:
        return json.loads(self.page.locator("#roi").text_content())

    def _view(self) -> tuple[float, float, float]:
        """CSS pixels of a picture pixel, and where the picture's left top corner is in the window."""
        view = "document.querySelector('roi-editor').view"
        scale, left, top = self.page.evaluate(f"[{view}.scale, {view}.left, {view}.top]")
        box = self.stage.bounding_box()
        return scale, box["x"] - left * scale, box["y"] - top * scale

    @property
    def scale(self) -> float:
        return self._view()[0]

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is in the window."""
        scale, left, top = self._view()
        return left + x * scale, top + y * scale

    def on_picture(self, x: float, y: float) -> tuple[float, float]:
        """Which point of the picture is at a point of the window."""
        scale, left, top = self._view()
        return (x - left) / scale, (y - top) / scale

    def zoom_in(self, x: int, y: int, times: int) -> None:
        """Turn the wheel at a point of the window."""
        self.page.mouse.move(x, y)
        for _ in range(times):
            self.page.mouse.wheel(0, -400)
        self.page.wait_for_timeout(200)
        self.stage_is_ready()

    def stage_is_ready(self) -> None:
        self.page.locator(".roi-stage[aria-busy=false]").wait_for()

    def pixel_at(self, x: float, y: float, around: int = 0) -> np.ndarray:
        """What the screen shows there, uint8 [N, N, 3]."""
        side = 2 * around + 1
        shot = self.page.screenshot(clip={"x": x - around, "y": y - around, "width": side, "height": side})
        return cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)

    def drag(self, start: tuple[float, float], by: tuple[float, float], button: str = "left") -> None:
        """Drag from a point of the picture by picture pixels."""
        x, y = self.on_page(*start)
        to_x, to_y = self.on_page(start[0] + by[0], start[1] + by[1])
        self.page.mouse.move(x, y)
        self.page.mouse.down(button=button)
        self.page.mouse.move((x + to_x) / 2, (y + to_y) / 2)
        self.page.mouse.move(to_x, to_y)
        self.page.mouse.up(button=button)

    def turn(self, roi: dict[str, Any], degrees: float) -> None:
        """Drag the upper handle of a rect at 0° around its centre."""
        arm = roi["h"] / 2 + 34 / self.scale
        by = (arm * np.sin(np.radians(degrees)), arm * (1 - np.cos(np.radians(degrees))))
        self.drag((roi["cx"], roi["cy"] - arm), by)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.stage.press(key)

    def type(self, field: str, value: str) -> None:
        self.page.locator(f"input[data-field={field}]").fill(value)
        self.page.locator(f"input[data-field={field}]").press("Enter")

    def action(self, name: str) -> Any:
        return self.page.locator(f"button[data-action={name}]")

    def view(self) -> list[float]:
        return [round(value, 6) for value in (*self.on_page(0, 0), *self.on_page(WIDTH, HEIGHT))]


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with pages(PAGES) as server:
        server.files["picture"] = cv2.imencode(".png", cv2.resize(bgr(), (WIDTH, HEIGHT)))[1].tobytes()
        yield server


Open = Callable[..., Editor]


@pytest.fixture
def open_editor(chromium: Any, server: PageServer) -> Iterator[Open]:
    """Opens pages; nothing on them may go wrong, or be forbidden by the page's policy."""
    errors: list[str] = []
    with contextlib.ExitStack() as stack:

        def opened(roi: dict[str, Any] | None = None, picture: str = "picture", **options: Any) -> Editor:
            page = chromium.new_page(**options)
            stack.callback(page.close)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: message.type == "error" and errors.append(message.text))
            page.goto(f"{server.address}/pages/editor.html?picture={picture}&roi={quote(json.dumps(roi))}")
            page.locator("#state", has_text="ready").wait_for()
            editor = Editor(page)
            editor.stage_is_ready()
            return editor

        yield opened
    assert errors == []


class TestDragging:
    def test_its_inside_moves_it(self, open_editor):
        editor = open_editor(RECT)
        editor.drag((430, 270), (37, -21))
        assert editor.roi == RECT | {"cx": 437, "cy": 279}

    def test_it_stops_at_the_edge_of_the_picture(self, open_editor):
        editor = open_editor(RECT)
        editor.drag((400, 300), (390, 20))
        assert editor.roi == RECT | {"cx": WIDTH - 150, "cy": 320}

    @pytest.mark.parametrize(
        ("corner", "by", "changed"),
        [
            ((550, 400), (40, 30), {"w": 340, "h": 230, "cx": 420, "cy": 315}),
            ((250, 200), (40, 30), {"w": 260, "h": 170, "cx": 420, "cy": 315}),
            ((250, 400), (-11, 31), {"w": 311, "h": 231, "cx": 394.5, "cy": 315.5}),
            ((550, 300), (25, 70), {"w": 325, "cx": 412.5}),
            ((400, 200), (33, -40), {"h": 240, "cy": 280}),
        ],
    )
    def test_a_handle_moves_its_edges_and_no_others(self, open_editor, corner, by, changed):
        editor = open_editor(RECT)
        editor.drag(corner, by)
        assert editor.roi == RECT | changed

    def test_a_handle_of_a_turned_rect_leaves_the_far_corner(self, open_editor):
        turned = RECT | {"angle_deg": 30}
        editor = open_editor(turned)
        cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
        across, down = np.array([cos, sin]), np.array([-sin, cos])
        centre = np.array([400, 300])
        editor.drag(tuple(centre + 150 * across + 100 * down), tuple(50 * across + 20 * down))
        after = editor.roi
        assert (after["w"], after["h"], after["angle_deg"]) == (350, 220, 30)
        far = np.array([after["cx"], after["cy"]]) - after["w"] / 2 * across - after["h"] / 2 * down
        assert far == pytest.approx(centre - 150 * across - 100 * down, abs=0.02)

    def test_a_handle_goes_no_further_than_the_picture(self, open_editor):
        editor = open_editor(RECT)
        editor.drag((550, 400), (240, 190))
        assert editor.roi == RECT | {"w": 540, "h": 390, "cx": 520, "cy": 395}
        editor.drag((790, 590), (60, -90))
        assert editor.roi["cx"] + editor.roi["w"] / 2 <= WIDTH

    def test_the_upper_handle_turns_it_clockwise(self, open_editor):
        editor = open_editor(RECT)
        editor.turn(RECT, 20)
        assert editor.roi["angle_deg"] == pytest.approx(20, abs=0.15)
        assert editor.roi | {"angle_deg": 0} == RECT

    def test_what_is_turned_at_an_edge_moves_away_from_it(self, open_editor):
        at_the_edge = RECT | {"cx": 150}
        editor = open_editor(at_the_edge)
        editor.turn(at_the_edge, 20)
        assert editor.roi["angle_deg"] == pytest.approx(20, abs=0.15)
        half = 150 * np.cos(np.radians(20)) + 100 * np.sin(np.radians(20))
        assert editor.roi["cx"] == pytest.approx(half, abs=0.5)

    def test_radii_are_dragged(self, open_editor):
        editor = open_editor(ANNULUS)
        editor.drag((550, 300), (40, 5))
        editor.drag((330, 300), (20, 0))
        assert editor.roi == ANNULUS | {"r": 190, "r_inner": 50}

    def test_the_inner_radius_stays_below_the_outer(self, open_editor):
        editor = open_editor(ANNULUS)
        editor.drag((330, 300), (-200, 0))
        assert editor.roi == ANNULUS | {"r_inner": 149}

    def test_the_page_does_not_scroll_and_the_roi_does_not_jump(self, open_editor):
        editor = open_editor(RECT)
        editor.page.evaluate("window.scrollTo(0, 200)")
        editor.drag((400, 420 - 60), (30, 10))
        assert editor.page.evaluate("scrollY") == 200
        assert editor.roi == RECT | {"cx": 430, "cy": 310}

    def test_escape_gives_a_drag_up(self, open_editor):
        editor = open_editor(RECT)
        x, y = editor.on_page(400, 300)
        editor.page.mouse.move(x, y)
        editor.page.mouse.down()
        editor.page.mouse.move(x + 50, y + 20)
        assert editor.roi != RECT
        editor.page.keyboard.press("Escape")
        editor.page.mouse.move(x + 80, y + 20)
        editor.page.mouse.up()
        assert editor.roi == RECT
        assert editor.action("undo").is_disabled()

    def test_a_drag_that_the_browser_ends_changes_nothing(self, open_editor):
        editor = open_editor(RECT)
        x, y = editor.on_page(400, 300)
        editor.page.mouse.move(x, y)
        editor.page.mouse.down()
        editor.page.mouse.move(x + 50, y + 20)
        editor.stage.evaluate("(stage) => stage.releasePointerCapture(1)")
        editor.page.mouse.move(x + 400, y + 900)
        editor.page.mouse.up()
        assert editor.roi == RECT
        editor.drag((400, 300), (37, -21))
        assert editor.roi == RECT | {"cx": 437, "cy": 279}

    def test_a_finger_drags_and_two_zoom(self, open_editor):
        editor = open_editor(RECT, viewport={"width": 390, "height": 844}, has_touch=True, device_scale_factor=2)
        touch = editor.page.context.new_cdp_session(editor.page)

        def send(kind: str, *points: tuple[float, float]) -> None:
            places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

        x, y = editor.on_page(400, 300)
        send("touchStart", (x, y))
        send("touchMove", (x + 20, y))
        send("touchEnd")
        moved = editor.roi
        assert moved["cx"] > 420
        before = editor.view()
        send("touchStart", (x - 40, y))
        send("touchStart", (x - 40, y), (x + 40, y))
        send("touchMove", (x - 80, y), (x + 80, y))
        send("touchEnd")
        after = editor.view()
        assert (after[2] - after[0]) / (before[2] - before[0]) == pytest.approx(2, rel=0.05)
        assert editor.roi == moved


class TestKeys:
    def test_arrows_move_by_one_pixel_and_with_shift_by_ten(self, open_editor):
        editor = open_editor(RECT)
        editor.press("ArrowRight", "ArrowRight", "ArrowUp", "Shift+ArrowDown", "Shift+ArrowLeft")
        assert editor.roi == RECT | {"cx": 392, "cy": 309}

    def test_brackets_turn_by_a_tenth_of_a_degree(self, open_editor):
        editor = open_editor(RECT)
        editor.press("]", "]", "]", "[")
        assert editor.roi == RECT | {"angle_deg": 0.2}

    def test_changes_are_undone_and_done_again(self, open_editor):
        editor = open_editor(RECT)
        editor.drag((400, 300), (20, 0))
        editor.press("ArrowDown")
        editor.press("Control+z", "Control+z", "Control+z")
        assert editor.roi == RECT
        editor.press("Control+y")
        assert editor.roi == RECT | {"cx": 420}
        editor.press("Control+Shift+Z")
        assert editor.roi == RECT | {"cx": 420, "cy": 301}
        editor.press("Control+z", "ArrowLeft", "Control+y")  # what was undone before another change is gone
        assert editor.roi == RECT | {"cx": 419}

    def test_the_stage_shows_that_it_has_the_focus(self, open_editor):
        editor = open_editor(RECT)
        editor.page.locator("body").press("Tab")
        outline = "getComputedStyle(document.activeElement).outlineWidth"
        assert editor.page.evaluate("document.activeElement.className") == "roi-stage"
        assert editor.page.evaluate(outline) == "3px"


class TestNumbers:
    @pytest.mark.parametrize("roi", [RECT, CIRCLE, ANNULUS], ids=lambda roi: roi["kind"])
    def test_there_is_a_field_for_everything_that_is_dragged(self, open_editor, roi):
        fields = {"rect": ["w", "h"], "circle": ["r"], "annulus": ["r", "r_inner"]}[roi["kind"]]
        editor = open_editor(roi)
        shown = editor.page.locator(".roi-numbers input:visible")
        names = [shown.nth(index).get_attribute("data-field") for index in range(shown.count())]
        assert names == ["cx", "cy", *fields, "angle_deg"]
        assert [float(shown.nth(index).input_value()) for index in range(shown.count())] == [
            roi[name] for name in names
        ]

    def test_what_is_typed_counts(self, open_editor):
        editor = open_editor(RECT)
        for field, value in {"cx": "310", "cy": "290", "w": "120", "h": "80", "angle_deg": "-12.3"}.items():
            editor.type(field, value)
        assert editor.roi == RECT | {"cx": 310, "cy": 290, "w": 120, "h": 80, "angle_deg": -12.3}

    def test_what_is_too_large_is_as_large_as_the_picture_allows(self, open_editor):
        editor = open_editor(RECT)
        editor.type("w", "5000")
        assert editor.roi["w"] <= WIDTH
        assert editor.roi["cx"] - editor.roi["w"] / 2 >= 0
        editor.type("cy", "-40")
        assert editor.roi["cy"] == 100

    def test_an_emptied_field_gets_its_number_back(self, open_editor):
        editor = open_editor(RECT)
        editor.type("w", "")
        assert editor.roi == RECT
        assert editor.page.locator("input[data-field=w]").input_value() == "300"

    def test_edges_lie_between_pixels_unless_it_is_turned(self, open_editor):
        editor = open_editor(RECT)
        editor.type("w", "301")
        assert editor.roi["cx"] % 1 == 0.5
        editor.type("cx", "380.2")
        assert editor.roi["cx"] == 380.5
        editor.type("angle_deg", "3")
        editor.type("cx", "380.2")
        assert editor.roi["cx"] == 380.2

    def test_another_kind_stands_in_the_same_place(self, open_editor):
        editor = open_editor(RECT)
        kinds = editor.page.get_by_label("Kind")
        kinds.select_option("annulus")
        assert editor.roi == RECT | {"kind": "annulus", "r": 100, "r_inner": 50}
        kinds.select_option("rect")
        assert editor.roi == RECT | {"w": 200, "h": 200, "r": 100, "r_inner": 50}

    def test_without_a_roi_the_whole_picture_is_one(self, open_editor):
        editor = open_editor()
        assert (editor.roi["kind"], editor.roi["w"], editor.roi["h"], editor.roi["cx"]) == ("rect", WIDTH, HEIGHT, 400)

    def test_two_points_and_a_length_give_the_scale(self, open_editor):
        editor = open_editor(RECT)
        editor.action("measure").click()
        for point in ((200, 150), (500, 550)):
            editor.page.mouse.click(*editor.on_page(*point))
        editor.type("length", "25")
        measured = json.loads(editor.page.locator("#scale").text_content())
        assert measured["mm_per_px"] == pytest.approx(25 / 500, rel=0.005)
        assert editor.roi == RECT
        assert "mm" in editor.page.get_by_role("status").text_content()


class TestTheView:
    def test_the_wheel_zooms_about_the_pointer(self, open_editor):
        editor = open_editor(RECT)
        before, scale = editor.on_picture(580, 253), editor.scale
        editor.zoom_in(580, 253, 1)
        assert editor.on_picture(580, 253) == pytest.approx(before, abs=0.01)
        assert editor.scale > 1.5 * scale
        assert editor.page.evaluate("scrollY") == 0
        assert editor.roi == RECT

    @pytest.mark.parametrize("way", ["middle button", "space", "beside the ROI"])
    def test_the_picture_is_moved(self, open_editor, way):
        editor = open_editor(RECT)
        before = editor.on_page(0, 0)
        if way == "space":
            editor.stage.focus()
            editor.page.keyboard.down(" ")
        editor.drag(
            (300, 50) if way == "beside the ROI" else (400, 300),
            (40, 24),
            "middle" if way == "middle button" else "left",
        )
        if way == "space":
            editor.page.keyboard.up(" ")
        after = editor.on_page(0, 0)
        moved = (after[0] - before[0], after[1] - before[1])
        assert moved == pytest.approx((40 * editor.scale, 24 * editor.scale), abs=0.5)
        assert editor.roi == RECT

    def test_on_a_phone_nothing_is_cut_off_and_targets_are_large(self, open_editor):
        editor = open_editor(ANNULUS, viewport={"width": 390, "height": 844}, has_touch=True)
        assert editor.page.evaluate("document.documentElement.scrollWidth") == 390
        for target in editor.page.locator(
            ".roi-tools button, .roi-tools select, .roi-numbers input:visible, .roi-hit:visible"
        ).all():
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 43.9, target.evaluate("(e) => e.outerHTML")

    @pytest.mark.parametrize("density", [1, 2, 1.5])
    def test_the_picture_is_as_sharp_as_the_screen(self, open_editor, density):
        editor = open_editor(RECT, device_scale_factor=density)
        box = editor.stage.bounding_box()
        size = editor.page.locator("canvas").evaluate("(canvas) => [canvas.width, canvas.height]")
        assert size == [int(box["width"] * density), int(box["height"] * density)]

    def test_pixels_are_squares_when_they_are_large(self, open_editor, server):
        editor = open_editor(RECT)  # it is dim around the ROI
        editor.zoom_in(620, 263, 12)
        column, row = map(int, editor.on_picture(620, 263))
        x, y = editor.on_page(column + 0.5, row + 0.5)
        assert editor.scale > 20
        shown = editor.pixel_at(int(x), int(y), around=int(editor.scale / 2) - 3)
        expected = decode(server.files["picture"])[row, column]
        assert np.array_equal(shown, np.broadcast_to(expected, shown.shape))

    def test_every_control_has_a_name(self, open_editor):
        editor = open_editor(ANNULUS)
        assert editor.page.get_by_role("application", name=re.compile("ROI on the picture")).count() == 1
        for name in ("Centre x (px)", "Radius (px)", "Inner radius (px)", "Angle (°)"):
            assert editor.page.get_by_label(name, exact=True).is_visible()
        assert (
            editor.page.locator("roi-editor button").evaluate_all(
                "all => all.filter((b) => !b.textContent.trim()).length"
            )
            == 0
        )


def test_64_megapixels_are_shown_reduced_and_sharp_where_zoomed(open_editor, server):
    rows = np.arange(8000, dtype=np.uint8)[:, None] * np.uint8(3)
    large = rows + np.arange(8000, dtype=np.uint8)[None] * np.uint8(5)
    server.files["large"] = cv2.imencode(".png", large, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    editor = open_editor(picture="large")
    view = "document.querySelector('roi-editor').view"
    assert editor.page.evaluate(f"{view}.base.width * {view}.base.height") <= 12_000_000
    editor.zoom_in(600, 250, 14)
    column, row = map(int, editor.on_picture(600, 250))
    x, y = editor.on_page(column + 0.5, row + 0.5)
    assert editor.pixel_at(int(x), int(y))[0, 0].tolist() == [large[row, column]] * 3


def test_keys_numbers_and_pixels_are_the_same_in_every_browser(visit: Visit):
    picture = cv2.resize(bgr(), (WIDTH, HEIGHT))
    with pages(PAGES) as server:
        server.files["picture"] = cv2.imencode(".png", picture)[1].tobytes()
        visit(server, "/pages/editor-alone.html")
        rois = json.loads(server.results["rois"][1])
        pixel = json.loads(server.results["pixel"][1])
    changed = [[roi["cx"], roi["h"], roi["angle_deg"]] for roi in rois]
    assert changed == [[400, HEIGHT, 0], [390, 60, 0], [390, 60, 0.1], [390, 60, 0], [390, 60, 0.1], [390, 80, 0.1]]
    assert pixel["rgb"] == picture[pixel["row"], pixel["column"], ::-1].tolist()
