"""Small defects on large ROIs: what the console proposes, what it sends, and that the model works on every screen."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.service.detail import settle_detail
from backend.tiles import Tiling
from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, Parts, Serve, Watched, calibrate, done

_STORE_MS = 30_000
_WORK_MS = 240_000
_PIXELS_OF_A_TOKEN = 14
_DEFECT_PX = 8

# The rule of the console, asked as a person asks it: by the size of the ROI and a smallest defect.
_PROPOSED = """async (asked) => {
  const { DetailChoice } = await import(new URL("console/detail.js", document.baseURI));
  const choice = new DetailChoice({ role_id: "r", roi_id: "of the test", recipe_id: "r", model_key: "m" });
  return asked.map(({ width, height, mm_per_px, defect_mm, tokens }) => {
    choice.change({ defect_mm });
    choice.show({ width, height }, { mm_per_px, fitted: 1, network: { input_size: 14 * tokens, tokens } });
    return choice.proposed;
  });
}"""


def _features(tokens: int) -> Any:
    def at(number: int) -> SimpleNamespace:
        grid = Tiling(number, (tokens, tokens)).grid_hw
        return SimpleNamespace(token_hw=grid, canvas_side=_PIXELS_OF_A_TOKEN * grid[0])

    return SimpleNamespace(at=at)


def test_the_console_proposes_what_the_service_would_choose(chromium: Any, judging: Server) -> None:
    sizes = [(1, 1), (448, 300), (449, 448), (512, 512), (840, 840), (841, 20), (896, 1), (897, 5), (1232, 900)]
    sizes += [(826, 826), (1680, 1200), (1681, 1), (2016, 2016), (2448, 2048), (2464, 10), (2465, 10)]
    sizes += [(4000, 3000), (9248, 6944)]
    asked = [
        {"width": width, "height": height, "mm_per_px": scale, "defect_mm": defect, "tokens": tokens}
        for width, height in sizes
        for scale, defect in ((1, None), (1, 2), (1, 8.4), (1, 16), (0.05, 0.8), (0.05, 1.5), (0.021, 3), (1, 600))
        for tokens in (32, 37, 21, 8)
    ]
    expected = [
        settle_detail(
            "auto", _features(one["tokens"]), [(one["height"], one["width"])], one["mm_per_px"], one["defect_mm"]
        ).number
        for one in asked
    ]
    watched = Watched(chromium, judging)
    watched.open("line")
    expect(watched.page.locator("main h1")).to_be_visible()
    assert watched.page.evaluate(_PROPOSED, asked) == expected
    assert set(expected) == {1, 2, 3, 4, 5}
    watched.close(NO_LAYOUT_YET)


# What a fit is sent when the scale changes after a defect was typed: the unit is px at 1 mm per pixel.
_AT_SCALES = """async ([typed_at, scales, fitted]) => {
  const { DetailChoice } = await import(new URL("console/detail.js", document.baseURI));
  const choice = new DetailChoice({ role_id: "r", roi_id: "of scales", recipe_id: "r", model_key: "m" });
  const network = { input_size: 448, tokens: 32 };
  const show = (mm_per_px) => choice.show({ width: 2448, height: 2048 }, { mm_per_px, fitted, network });
  show(typed_at);
  choice.defect.value = "8";
  choice.typed();
  return scales.map((scale) => {
    show(scale);
    return [choice.fields.detail ?? null, choice.fields.smallest_defect_mm, choice.proposed];
  });
}"""


def test_a_smallest_defect_keeps_its_length_when_its_unit_changes(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("line")
    expect(watched.page.locator("main h1")).to_be_visible()
    evaluate = watched.page.evaluate
    assert evaluate(_AT_SCALES, [1, [1, 0.05, 0.04, 1], None]) == [[None, each, 5] for each in (8, 0.4, 0.32, 8)]
    assert evaluate(_AT_SCALES, [0.05, [0.05, 0.04, 1], None]) == [[None, each, 1] for each in (8, 8, 160)]
    assert evaluate(_AT_SCALES, [1, [1], 1])[0][0] == 1, "a model keeps its detail, whatever the service is set to"
    watched.close(NO_LAYOUT_YET)


def _field(form: str, name: str) -> str | None:
    """What a form has in a field."""
    found = re.search(rf'name="{name}"\r\n\r\n(.*?)\r\n', form)
    return found[1] if found else None


def _mark_all(page: Page) -> None:
    for folder, all_of_it in (("parts/good", "All good"), ("parts/bad", "All bad")):
        page.locator(".folder-row", has_text=folder).get_by_role("button", name=all_of_it).click()
    expect(page.get_by_text("All decisions are stored")).to_be_visible(timeout=_STORE_MS)


def _begin(watched: Watched, parts: Parts) -> None:
    """A ROI of the whole picture, with samples."""
    page = watched.page
    watched.open("roi")
    expect(page.locator(".drop:visible")).to_be_visible(timeout=_STORE_MS)
    page.locator("input[webkitdirectory]").first.set_input_files(parts.folder)
    expect(page.locator(".strip-cell")).to_have_count(len(parts.good) + len(parts.bad), timeout=_STORE_MS)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_STORE_MS)
    watched.open("samples")
    _mark_all(page)


def _fit_on(page: Page) -> str:
    """Press the button of the fit, and answer in the service's place: what the form has."""
    sent: list[str] = []

    def refuse(route: Any) -> None:
        sent.append((route.request.post_data_buffer or b"").decode("utf-8", "replace"))
        route.fulfill(status=400, json={"error": "this is a test", "code": "invalid_request"})

    page.route("**/fit_ok", refuse)
    page.get_by_role("button", name=re.compile("^Fit ")).click()
    expect(page.get_by_text("this is a test")).to_be_visible(timeout=_STORE_MS)
    page.unroute("**/fit_ok", refuse)
    return sent[0]


@pytest.fixture
def marked(chromium: Any, serve: Serve, tmp_path: Any) -> Any:
    """A station with real samples of a ROI that is larger than the network sees, and its service."""
    parts = Parts(tmp_path)
    with serve(folder=tmp_path) as server:
        watched = Watched(chromium, server)
        _begin(watched, parts)
        yield watched, server, parts


def test_a_detail_is_chosen_fitted_shown_and_kept(chromium: Any, marked: tuple[Watched, Server, Parts]) -> None:
    watched, server, parts = marked
    page = watched.page
    detail = page.locator("details.detail")
    expect(detail.locator("summary")).to_have_text("Small defects: detail 1, proposed is 2")
    assert _field(_fit_on(page), "detail") is None  # nobody chose: the service does

    _choose(page)
    page.reload()
    expect(detail.locator("summary")).to_have_text("Small defects: detail 3", timeout=_STORE_MS)
    page.get_by_role("button", name=re.compile("^Fit on")).click()
    expect(page.locator(".fit progress")).to_be_visible()
    assert detail.is_hidden(), "it is too late to choose"
    expect(page.get_by_role("link", name="Set the threshold")).to_be_visible(timeout=_WORK_MS)
    expect(page.locator(".fit")).to_contain_text(f"detail=3: a defect of {_DEFECT_PX} mm is {_DEFECT_PX} pixels long")

    with server.client() as client:
        (roi,) = done(client.get("/rois"))["rois"]
        assert roi["model"]["detail"] == 3
        calibrate(client)
    expect(detail.locator("select")).to_have_value("3")
    form = _fit_on(page)  # it keeps what the model has
    assert (_field(form, "detail"), _field(form, "smallest_defect_mm")) == ("3", str(_DEFECT_PX))

    watched.open("line")
    expect(page.locator(".card-facts")).to_contain_text("detail 3", timeout=_STORE_MS)
    watched.open("health")
    expect(page.locator(".version.now")).to_contain_text("detail 3", timeout=_STORE_MS)
    _judge(watched, parts)
    watched.open("samples")
    expect(detail).to_contain_text("at most about", timeout=_STORE_MS)  # seconds, since parts were judged here
    watched.close(NO_LAYOUT_YET, "400 /fit_ok", "400 /fit_ok")
    _fit_again_elsewhere(chromium, server)


def _fit_again_elsewhere(chromium: Any, server: Server) -> None:
    """A station that has no pictures, and a layout without the ROI: nothing tells how large it is."""
    with server.client() as client:
        known = client.get("/layout")
        layout = {**known.json(), "rois": []}
        done(client.put("/layout", json=layout, headers={"If-Match": known.headers["ETag"]}))
    watched = Watched(chromium, server)
    watched.open("samples")
    expect(watched.page.get_by_role("button", name=re.compile("^Fit again"))).to_be_enabled(timeout=_STORE_MS)
    assert _field(_fit_on(watched.page), "detail") == "3"
    expect(watched.page.locator("details.detail")).to_have_count(0)
    watched.close("400 /fit_ok")


def _choose(page: Page) -> None:
    """By keys alone: close it and open it, say the smallest defect, take what is proposed."""
    summary = page.locator("details.detail summary")
    defect = page.get_by_label("Smallest defect that matters (px)")
    summary.press("Enter")
    expect(defect).to_be_hidden()
    summary.press("Enter")
    expect(defect).to_be_visible()
    defect.fill(str(_DEFECT_PX))
    defect.press("Tab")
    expect(summary).to_have_text("Small defects: detail 1, proposed is 3")
    expect(page.locator("details.detail")).to_contain_text("may be overlooked")
    take = page.get_by_role("button", name="Take detail 3")
    take.focus()
    take.press("Enter")
    expect(page.locator("details.detail:focus")).to_be_visible()  # the button is gone
    expect(page.get_by_role("combobox", name="Detail")).to_have_value("3")
    expect(page.locator("details.detail")).to_contain_text("9 passes of the network instead of one")
    expect(page.locator("details.detail")).not_to_contain_text("may be overlooked")


def _judge(watched: Watched, parts: Parts) -> None:
    """Inspect and Live give verdicts and reasons with such a model."""
    page = watched.page
    watched.open("inspect")
    page.locator("input[type=file][accept]").first.set_input_files(parts.bad[:1])
    expect(page.locator(".part[data-word=ng], .part[data-word=ok]")).to_have_count(1, timeout=_WORK_MS)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".reason img").first).to_be_visible(timeout=_STORE_MS)
    watched.open("live")
    page.get_by_role("button", name="Folder, each picture once").click()
    page.locator("input[type=file][accept]").set_input_files(parts.bad[:1])
    expect(page.locator(".part[data-word=ng], .part[data-word=ok]")).to_have_count(1, timeout=_WORK_MS)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".reason img").first).to_be_visible(timeout=_STORE_MS)
