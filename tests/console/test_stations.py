"""Several stations before one service, and a service below a path of a proxy."""

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Watched, done, drawing

_PREFIX = "/line-1"
_LOAD_MS = 30_000
# The tab comes to store what is drawn on it long after another one did.
_SLOW_TO_SAVE = """const after = setTimeout;
window.setTimeout = (work, ms, ...more) => after(work, ms === 700 ? 8000 : ms, ...more);"""


def _not_modified(route: Any) -> None:
    """What a page that follows the layout is told while nobody changes it."""
    if "if-none-match" in route.request.headers:
        route.fulfill(status=304)
    else:
        route.continue_()


def test_of_two_stations_that_move_a_roi_the_second_is_asked(chromium: Any, judging: Server, parts: Parts) -> None:
    first = drawing(chromium, judging, parts)
    second = drawing(chromium, judging, parts)
    second.page.route("**/layout?*", _not_modified)  # it has not heard of the other's change
    for station, width in ((first, "300"), (second, "260")):
        field = station.page.get_by_label("Width (px)")
        field.fill(width)
        field.press("Enter")
        if station is first:
            expect(station.page.get_by_text("Saving…", exact=True)).to_be_visible(timeout=_LOAD_MS)
            expect(station.page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    alert = second.page.get_by_role("alert")
    expect(alert).to_contain_text("Another station changed this ROI", timeout=_LOAD_MS)
    second.page.reload()  # nothing is lost
    expect(second.page.get_by_label("Width (px)")).to_have_value("260", timeout=_LOAD_MS)
    second.page.get_by_role("button", name="Mine, as shown").click()
    expect(second.page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    with judging.client() as client:
        layout = done(client.get("/layout", params={"recipe_id": ROI["recipe_id"]}))
    assert [roi["roi"]["w"] for roi in layout["rois"]] == [260]
    first.close(NO_LAYOUT_YET)
    second.close(NO_LAYOUT_YET, "412 /layout")


def test_of_two_tabs_that_draw_at_once_neither_loses_its_roi(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = drawing(chromium, judging, parts)
    first, second = watched.page, watched.tab()
    second.add_init_script(_SLOW_TO_SAVE)
    second.goto(first.url)
    expect(second.get_by_label("Width (px)")).to_be_visible(timeout=_LOAD_MS)
    expect(second.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    for tab, width in ((second, "260"), (first, "300")):
        field = tab.get_by_label("Width (px)")
        field.fill(width)
        field.press("Enter")
    expect(first.get_by_text("Saving…", exact=True)).to_be_visible(timeout=_LOAD_MS)
    expect(first.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    expect(second.get_by_text("Another station changed this ROI")).to_be_visible(timeout=_LOAD_MS)
    expect(second.get_by_label("Width (px)")).to_have_value("260")
    watched.close(NO_LAYOUT_YET)


@contextlib.contextmanager
def proxied(server: Server) -> Iterator[str]:
    """The address of `server` below a path of a proxy, which takes the path off."""

    class Proxy(BaseHTTPRequestHandler):
        def forward(self) -> None:
            if not self.path.startswith(_PREFIX + "/"):
                return self.send_error(404)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            path = self.path.removeprefix(_PREFIX)
            with server.client() as client, client.stream(self.command, path, headers=headers, content=body) as reply:
                content = b"".join(reply.iter_raw())  # compressed as it came
            self.send_response(reply.status_code)
            for name, value in reply.headers.items():
                if name not in ("connection", "transfer-encoding", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            return None

        do_GET = do_POST = do_PUT = forward  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{_PREFIX}"
        proxy.shutdown()


def test_below_a_path_of_a_proxy_all_is_asked_below_it(chromium: Any, judging: Server, parts: Parts) -> None:
    with proxied(judging) as address:
        watched = drawing(chromium, address, parts)
        asked: list[str] = []
        watched.page.on("request", lambda request: asked.append(request.url))
        watched.page.get_by_role("link", name="ROI inspection").click()
        expect(watched.page.get_by_text("1 ROI")).to_be_visible()
        expect(watched.page.locator(".card-picture img")).to_be_visible(timeout=_LOAD_MS)
        paths = [httpx.URL(url).path for url in asked if not url.startswith("blob:")]
        assert paths
        assert [path for path in paths if not path.startswith(_PREFIX + "/")] == []
        watched.close(f"404 {_PREFIX}/layout")


def test_a_busy_service_is_asked_again_when_it_says(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    page = watched.page
    refused: list[float] = []
    asked: list[float] = []

    def refuse_twice(route: Any) -> None:
        asked.append(time.monotonic())
        if len(refused) == 2:
            return route.continue_()
        refused.append(asked[-1])
        status, code = (503, "busy") if len(refused) == 1 else (429, "too_many_requests")
        error = {"error": f"refused as {code}", "trace": "", "code": code}
        return route.fulfill(status=status, json=error, headers={"Retry-After": "2"})

    page.route("**/rois?*", refuse_twice)
    page.goto(judging.address)
    expect(page.get_by_text("refused as busy (again in 2 s)")).to_be_visible()
    expect(page.get_by_text("1 ROI")).to_be_visible(timeout=_LOAD_MS)
    assert [round(later - before, 1) >= 2 for before, later in itertools.pairwise(asked)] == [True, True]
    watched.close(NO_LAYOUT_YET, "503 /rois", "429 /rois")


def test_a_new_roi_is_never_judged_by_the_model_of_another(chromium: Any, judging: Server, parts: Parts) -> None:
    watched = drawing(chromium, judging, parts, ROI | {"recipe_id": "other"})  # is served the default recipe's model
    page = watched.page
    page.get_by_role("navigation").get_by_role("link", name="Inspect").click()
    expect(page.locator(".verdict")).to_be_visible()
    page.locator("input[type=file][accept]").first.set_input_files(parts.fresh[:1])
    expect(page.locator(".part")).to_have_count(1, timeout=_LOAD_MS)
    expect(page.locator(".verdict")).to_contain_text("knows another place", timeout=_LOAD_MS)
    expect(page.locator(".verdict")).to_have_attribute("data-word", "none")
    page.get_by_role("navigation").get_by_role("link", name="Line").click()
    expect(page.locator(".card", has_text="other ·")).to_contain_text("needs good pictures")
    page.get_by_role("button", name="New ROI").click()
    page.get_by_label("Name", exact=True).fill("Another")
    page.get_by_label("Recipe", exact=True).and_(page.locator("input")).fill("third")
    page.get_by_label("Name", exact=True).fill("Another")
    page.get_by_role("button", name="Begin").click()
    expect(page).to_have_url(re.compile("recipe=third&role=Inspection&roi=inspection-2"))
    watched.close(NO_LAYOUT_YET, "404 /datasets/meta")
