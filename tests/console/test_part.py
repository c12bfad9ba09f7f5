"""The verdict about a whole part, in a real browser: what makes it OK, NG or NOT JUDGED, and what takes it back."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import pytest

from harness.pages import PageServer, pages
from tests.console.conftest import PAGES
from tests.console.pictures import HEIGHT, WIDTH, bgr

RECIPE = "line 1"
_SECONDS = 10


def rect(cx: float = 60) -> dict[str, Any]:
    """A ROI of 50 by 40 pixels."""
    return {"kind": "rect", "cx": cx, "cy": 70, "w": 50, "h": 40, "r": 20, "r_inner": 5, "angle_deg": 0}


def cut_text(roi: dict[str, Any], *anchor: str) -> str:
    """How the console notes where a crop was cut."""
    drawn = [roi[name] for name in ("kind", "cx", "cy", "w", "h", "angle_deg")]
    return json.dumps([*drawn, *anchor], separators=(",", ":"))


class Service:
    """What the page takes for the service.

    Attributes:
        alive: whether it answers at all.
        layout: ROIs of the recipe.
        anchor: of the recipe.
        template: the anchor's picture.
        facts: by ROI, its entry of /rois.
        scores: by ROI, what /infer says; 0.5 is the threshold that it applies.
        asked: what was asked, in order: /infer and /bank, with the ROI.
        together: of `asked`, what is not answered before all of it was asked.
    """

    def __init__(self, *names: str) -> None:
        self.alive = True
        self.layout = [self._drawn(name) for name in names]
        self.anchor: dict[str, Any] | None = None
        self.template = b""
        self.cut = {name: cut_text(rect()) for name in names}
        self.facts = {name: self._known(name) for name in names}
        self.scores = dict.fromkeys(names, 0.1)
        self.asked: list[str] = []
        self.together: set[str] = set()
        self.held: dict[str, Callable[[], None]] = {}

    @staticmethod
    def ids(name: str) -> dict[str, str]:
        return {"role_id": "Inspection", "roi_id": name, "model_key": name}

    def _drawn(self, name: str) -> dict[str, Any]:
        size = {"width": WIDTH, "height": HEIGHT}
        return self.ids(name) | {"name": name, "mm_per_px": 0.5, "roi": rect(), "picture": size}

    def _known(self, name: str) -> dict[str, Any]:
        model = {"recipe_id": RECIPE, "memory_id": "m1"}
        facts = {"fitted": True, "calibration": "applied", "threshold": 0.5, "mm_per_px": 0.25, "model": model}
        return self.ids(name) | facts | {"recipe_id": RECIPE}

    def answer(self, route: Any) -> None:
        """Answer a request of the page."""
        if not self.alive:
            return route.abort()
        url = urlsplit(route.request.url)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        answers: dict[str, Callable[[], Any]] = {
            "/health": lambda: {"status": "ok"},
            "/rois": lambda: {"rois": list(self.facts.values()), "recipes": [RECIPE]},
            "/bank": lambda: {"images": [{"filename": "20261101-101010-123456-0a1b2c3d.png"}]},
            "/datasets/meta": lambda: {"console_cut": self.cut[query["roi_id"]]},
        }
        if url.path == "/layout":
            content = {"format": "roi-anomaly-console", "version": 1, "rois": self.layout}
            content |= {"anchor": self.anchor} if self.anchor else {}
            etag = f'"{hash(json.dumps(content))}"'
            if route.request.headers.get("if-none-match") == etag:
                return route.fulfill(status=304)
            return route.fulfill(json=content, headers={"ETag": etag})
        if url.path == "/layout/picture":
            assert query == {"recipe_id": RECIPE, "name": "anchor-a1"}
            return route.fulfill(body=self.template, content_type="image/png")
        if url.path == "/infer":
            return self._judge(route)
        if url.path == "/bank":
            return self._later(f"bank {query['roi_id']}", lambda: route.fulfill(json=answers[url.path]()))
        return route.fulfill(json=answers[url.path]())

    def _later(self, asked: str, reply: Callable[[], None]) -> None:
        self.asked.append(asked)
        self.held[asked] = reply
        if asked in self.together and not self.together <= self.held.keys():
            return
        for held in list(self.held):
            self.held.pop(held)()

    def _judge(self, route: Any) -> None:
        fields = route.request.post_data_buffer.decode("latin-1")
        name = fields.partition('name="roi_id"\r\n\r\n')[2].partition("\r\n")[0]
        assert 'name="trial"\r\n\r\ntrue' in fields
        assert 'name="mm_per_px"\r\n\r\n0.25' in fields
        self._later(f"infer {name}", lambda: self._reply(route, name))

    def _reply(self, route: Any, name: str) -> None:
        score, facts = self.scores[name], self.facts[name]
        threshold = facts["threshold"]
        decision = "ng" if score >= threshold else "ok"
        said = {"score": score, "decision": decision, "regions": [], "calibration": "applied", "threshold": threshold}
        self.asked.append(f"told {name}")
        route.fulfill(json=self.ids(name) | said | {"model": facts["model"]})


class Page:
    """A page that judges the server's picture."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def judge(self) -> dict[str, Any]:
        return self.page.evaluate("judge()")

    def again(self, word: str) -> dict[str, Any]:
        """What is believed later, once it is `word`."""
        for _ in range(_SECONDS * 10):
            found = self.page.evaluate("again()")
            if found["verdict"] == word:
                return found
            self.page.wait_for_timeout(100)
        pytest.fail(f"the verdict stayed {found}")


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with pages(PAGES) as server:
        server.files["picture"] = cv2.imencode(".png", bgr())[1].tobytes()
        yield server


Judge = Callable[[Service], Page]


@pytest.fixture
def judge(chromium: Any, server: PageServer) -> Iterator[Judge]:
    """Opens a page before a service."""
    opened: list[Any] = []

    def judge(service: Service) -> Page:
        page = chromium.new_page()
        opened.append(page)
        for path in (
            "health",
            "rois?*",
            "layout?*",
            "layout/picture?*",
            "bank?*",
            "datasets/meta?*",
            "infer",
            "manifest?*",
        ):
            page.route(f"{server.address}/{path}", service.answer)
        page.goto(f"{server.address}/pages/part.html")
        page.get_by_text("ready", exact=True).wait_for()
        return Page(page)

    yield judge
    for page in opened:
        page.close()


def test_a_part_is_ok_only_if_every_roi_answered_ok(judge: Judge) -> None:
    found = judge(Service("a", "b", "c")).judge()
    assert found == {"verdict": "ok", "reason": "", "rois": [["a", "ok", ""], ["b", "ok", ""], ["c", "ok", ""]]}


def test_a_part_is_ng_if_one_roi_is_and_another_was_not_judged(judge: Judge) -> None:
    service = Service("a", "b", "c")
    service.scores["b"] = 0.5
    service.facts["c"] |= {"calibration": "stale"}
    found = judge(service).judge()
    assert found["verdict"] == "ng"
    assert [verdict for _, verdict, _ in found["rois"]] == ["ok", "ng", "none"]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"fitted": False}, "not fitted"),
        ({"calibration": "none"}, "no threshold"),
        ({"calibration": "stale"}, "fitted anew since its threshold"),
        ({"model": {"recipe_id": "default", "memory_id": "m1"}}, "not fitted"),
    ],
    ids=["not fitted", "no threshold", "stale", "another recipe's model"],
)
def test_a_roi_without_a_verdict_leaves_the_part_without(judge: Judge, facts: dict[str, Any], reason: str) -> None:
    service = Service("a", "b")
    service.facts["b"] |= facts
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert found["reason"].startswith("b: ")
    assert reason in found["reason"]
    assert "infer b" not in service.asked


def test_a_roi_that_was_moved_since_its_fit_is_not_judged(judge: Judge) -> None:
    service = Service("a", "b")
    service.layout[1]["roi"] = rect(cx=61)
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert "changed since the fit" in found["reason"]


def test_a_picture_of_another_size_is_not_judged_with_both_sizes(judge: Judge) -> None:
    service = Service("a", "b")
    service.layout[1]["picture"] = {"width": 400, "height": 300}
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert f"part 1 has {WIDTH} × {HEIGHT} pixels" in found["reason"]
    assert "400 × 300" in found["reason"]


def test_a_disabled_roi_is_passed_over(judge: Judge) -> None:
    service = Service("a", "b")
    service.scores["b"] = 0.9
    service.layout[1]["enabled"] = False
    assert judge(service).judge() == {"verdict": "ok", "reason": "", "rois": [["a", "ok", ""]]}


def test_a_recipe_in_which_nothing_is_enabled_judges_nothing(judge: Judge) -> None:
    service = Service("a")
    service.layout[0]["enabled"] = False
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert "nothing to judge" in found["reason"]


def test_a_roi_that_is_not_drawn_leaves_the_part_not_judged(judge: Judge) -> None:
    service = Service("a", "b")
    service.layout[0] |= {"roi": None, "picture": None}
    found = judge(service).judge()
    assert (found["verdict"], found["reason"]) == ("none", "a: The ROI is not drawn yet. Draw it on ROI.")


def test_a_threshold_that_changes_takes_the_verdict_back(judge: Judge) -> None:
    service = Service("a", "b")
    page = judge(service)
    assert page.judge()["verdict"] == "ok"
    service.facts["b"]["threshold"] = 0.05
    assert "b: The model or its threshold was changed" in page.again("none")["reason"]
    assert page.judge()["verdict"] == "ng"


def test_a_layout_that_changes_takes_the_verdict_back(judge: Judge) -> None:
    service = Service("a")
    page = judge(service)
    assert page.judge()["verdict"] == "ok"
    service.layout[0]["roi"] = rect(cx=64)
    assert "ROIs of this recipe were changed" in page.again("none")["reason"]


def test_a_service_that_stops_takes_the_verdict_back(judge: Judge) -> None:
    service = Service("a")
    page = judge(service)
    assert page.judge()["verdict"] == "ok"
    service.alive = False
    assert "does not answer" in page.again("none")["reason"]
    assert page.judge()["verdict"] == "none"
    service.alive = True
    page.again("none")
    page.page.wait_for_timeout(2000)
    assert page.judge()["verdict"] == "ok"


def test_the_next_roi_is_prepared_while_the_service_judges(judge: Judge) -> None:
    service = Service("a", "b", "c")
    service.together = {"infer a", "bank b"}
    assert judge(service).judge()["verdict"] == "ok"
    order = [what for what in service.asked if not what.startswith("bank")]
    assert order == ["infer a", "told a", "infer b", "told b", "infer c", "told c"]


def anchored(image: Any) -> Service:
    """A service whose recipe has an anchor, of which `image` is the reference picture."""
    service = Service("a", "b")
    search = {"cx": 100, "cy": 80, "w": 60, "h": 50, "search_px": 20, "search_deg": 4, "least_score": 0.7}
    service.anchor = {"id": "a1", **search, "picture": {"width": WIDTH, "height": HEIGHT}}
    service.template = cv2.imencode(".png", image[55:105, 70:130])[1].tobytes()
    service.cut = {name: cut_text(rect(), "a1") for name in service.cut}
    return service


def test_a_part_is_judged_where_its_anchor_is_found(judge: Judge) -> None:
    page = judge(anchored(bgr()))
    assert page.judge()["verdict"] == "ok"
    placement = page.page.evaluate("placement()")
    assert [placement[name] for name in ("dx", "dy", "angle_deg")] == [0, 0, 0]
    assert placement["score"] == pytest.approx(1)


def test_a_part_whose_anchor_is_not_found_is_not_judged(judge: Judge) -> None:
    service = anchored(bgr()[::-1, ::-1])
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert re.fullmatch(r"The anchor was not found \(0\.\d\d; 0\.7 is needed\)\.", found["reason"])
    assert service.asked == []


def test_a_roi_that_was_fitted_without_the_anchor_is_not_judged(judge: Judge) -> None:
    service = anchored(bgr())
    service.cut["b"] = cut_text(rect())
    found = judge(service).judge()
    assert found["verdict"] == "none"
    assert "b: The ROI was changed since the fit" in found["reason"]
