"""The states of every screen, each as a tab that shows it."""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from harness.server import Server
from tests.console import showroom
from tests.console.line import FULL, INFER
from tests.console.showroom import washer
from tests.factories import encoded

_LOAD_MS = 60_000
_ONE_FONT = """() => {
  const sheet = new CSSStyleSheet();
  const font = "*, *::before, *::after { font-family: 'Liberation Sans' !important }";
  sheet.replaceSync(`${font} .live-facts { visibility: hidden }`);
  document.adoptedStyleSheets = [sheet];
}"""
# Times and the names of models change with every run.
_TIMELESS = 'Date.prototype.toLocaleString = () => "1 Nov 2026, 08:00";'

# Chromium's headless shell has no screen to keep on.
_AWAKE = """
  const lock = { release: async () => {} };
  Object.defineProperty(navigator, "wakeLock", { value: { request: async () => lock } });
"""

Change = Callable[[Page], None]


def nothing(_page: Page) -> None:
    """Change nothing."""


def holding(*paths: str) -> Change:
    """Answer nothing for these paths: what a screen shows while it waits."""

    def hold(page: Page) -> None:
        for path in paths:
            page.route(re.compile(rf"/{path}(\?|$)"), lambda _route: None)

    return hold


def failing(*paths: str) -> Change:
    """Answer these paths as a service that is broken."""
    body = {"error": "the stored images cannot be listed (Input/output error); check the models folder", "trace": "t"}

    def fail(page: Page) -> None:
        for path in paths:
            page.route(re.compile(rf"/{path}(\?|$)"), lambda route: route.fulfill(status=500, json=body))

    return fail


@dataclass(frozen=True)
class Look:
    """A screen in a state.

    Attributes:
        screen, roi: which.
        state: by which it is named.
        wait: for what shows that the state is there; a selector.
        n: how many of that there are.
        before: what is changed before it is opened.
        after: what is done then.
        key: of the tab.
        language: that a person chose in this browser; none: the browser's.
        height: of the window, in pixels.
        is_below: whether it shows at the end of the screen, which is scrolled there.
    """

    screen: str
    state: str
    wait: str
    n: int = 1
    roi: dict[str, str] | None = None
    before: Change = nothing
    after: Change = nothing
    key: str = FULL
    language: str = ""
    height: int = 1000
    is_below: bool = False

    @property
    def name(self) -> str:
        return f"{self.screen}-{self.state}"


def _recipe(name: str) -> Change:
    return lambda page: page.add_init_script(f"sessionStorage.setItem('recipe', {name!r})")


def _no_rois(page: Page) -> None:
    page.route(re.compile(r"/rois\?"), lambda route: route.fulfill(json={"rois": [], "recipes": [], "n_total": 0}))


def _go_away(page: Page) -> None:
    page.context.set_offline(True)
    expect(page.locator(".lamp[data-status=away]")).to_be_visible(timeout=_LOAD_MS)


def _form(page: Page) -> None:
    page.get_by_role("button", name="New ROI").click()


def _part(number: int) -> Change:
    def choose(page: Page) -> None:
        expect(page.locator(".part[data-word=ok], .part[data-word=ng]")).to_have_count(4, timeout=_LOAD_MS)
        page.locator(".part").nth(number - 1).click()
        expect(page.locator(".heat:not([hidden])")).to_be_visible()

    return choose


def _why(page: Page) -> None:
    _part(2)(page)
    page.get_by_role("button", name="Why?").click()
    expect(page.locator(".reason img").first).to_be_visible(timeout=_LOAD_MS)


def _feedback(page: Page) -> None:
    _part(2)(page)
    page.get_by_role("button", name="It was good").click()
    expect(page.get_by_role("button", name="Learn it as good")).to_be_visible(timeout=_LOAD_MS)


def _drop(page: Page) -> None:
    """A picture of a ROI that has none."""
    file: Any = {"name": "board-001.png", "mimeType": "image/png", "buffer": encoded(washer(1))}
    page.locator("input[type=file][accept]").first.set_input_files(file)
    expect(page.locator(_CELL)).to_have_count(1, timeout=_LOAD_MS)
    page.locator(".message").evaluate_all("(all) => { for (const one of all) one.remove(); }")


def _judge_live(page: Page) -> None:
    """A good part, and a bad one, which is shown: both by the anchor."""
    page.get_by_role("button", name="Folder, each picture once").click()
    parts = {"part-0001.png": washer(200), "part-0002.png": washer(201, "stain")}
    files: Any = [{"name": name, "mimeType": "image/png", "buffer": encoded(part)} for name, part in parts.items()]
    page.locator("input[type=file][accept]").set_input_files(files)
    expect(page.locator(".part")).to_have_count(2, timeout=_LOAD_MS)
    expect(page.locator(".verdict")).to_have_attribute("data-word", "ng")
    expect(page.locator(".live-anchor")).to_have_count(1)


def _closeup(page: Page) -> None:
    page.locator(".sample").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".closeup img")).to_be_visible()


_CARD, _CELL, _SAMPLE, _STORED, _TABLE = (
    ".card-picture img",
    ".strip-cell",
    ".sample img",
    ".stored strong",
    ".version.now",
)
_DIALOG = "#key-input"
_ALERT = ".notice.bad"
_LINE = _recipe(showroom.LINE)
_EMPTY = {"roi": showroom.NEW}

LOOKS = [
    Look("line", "normal", _CARD, 5, before=_LINE),
    Look("line", "spanish", _CARD, 5, before=_LINE, language="es"),
    Look("line", "new", _CARD, 5, before=_LINE, after=_form),
    Look("line", "empty", ".steps", before=_no_rois),
    Look("line", "loading", "text=Loading…", before=holding("rois")),
    Look("line", "error", _ALERT, before=failing("rois")),
    Look("line", "infer", _CARD, 5, before=_LINE, key=INFER),
    Look("line", "infer-empty", "text=Somebody with a key", before=_no_rois, key=INFER),
    Look("line", "no-key", _DIALOG, key=""),
    Look("line", "away", _CARD, 5, before=_LINE, after=_go_away),
    Look("line", "200-rois", ".card", showroom.N_ROIS, before=_recipe(showroom.MANY["recipe_id"])),
    Look("line", "10000-images", _CARD, 1, before=_recipe(showroom.STORED["recipe_id"])),
    Look("roi", "normal", _CELL, 21),
    Look("roi", "empty", ".drop:visible", roi=showroom.NEW),
    Look("roi", "loading", "h1", before=holding("layout")),
    Look("roi", "error", _ALERT, before=failing("layout")),
    Look("roi", "infer", _CELL, 21, key=INFER),
    Look("roi", "200-rois", ".drop:visible", roi=showroom.MANY, after=_drop),
    Look("roi", "no-key", _DIALOG, key=""),
    Look("samples", "normal", _SAMPLE, 21, height=1300),
    Look("samples", "large", _SAMPLE, 21, after=_closeup),
    Look("samples", "empty", "text=There is no picture yet", roi=showroom.NEW),
    Look("samples", "loading", "text=Loading…", before=holding("datasets/list")),
    Look("samples", "error", _ALERT, before=failing("datasets/list")),
    Look("samples", "infer", _SAMPLE, 21, key=INFER),
    Look("samples", "no-key", _DIALOG, key=""),
    Look("samples", "detail", "details[open]", roi=showroom.LARGE),
    Look("samples", "10000-images", ".chip:has-text('10000')", roi=showroom.STORED),
    Look("threshold", "normal", _STORED, height=1300),
    Look("threshold", "spanish", _STORED, language="es", height=1300),
    Look("threshold", "none", "text=No threshold applies", roi=showroom.UNCALIBRATED, height=1300),
    Look("threshold", "empty", "text=not fitted yet", roi=showroom.NEW),
    Look("threshold", "loading", "text=Loading…", before=holding("datasets/scores")),
    Look("threshold", "error", _ALERT, before=failing("datasets/scores")),
    Look("threshold", "infer", _STORED, key=INFER, height=1300),
    Look("threshold", "no-key", _DIALOG, key=""),
    Look("threshold", "10000-images", _STORED, roi=showroom.STORED, height=1300),
    Look("inspect", "normal", ".part", 4, after=_part(2)),
    Look("inspect", "ok", ".part", 4, after=_part(4)),
    Look("inspect", "why", ".part", 4, after=_why, is_below=True),
    Look("inspect", "feedback", ".part", 4, after=_feedback, is_below=True),
    Look("inspect", "empty", "text=Drop pictures or choose", roi=showroom.BORE),
    Look("inspect", "unfitted", "text=not fitted yet", roi=showroom.NEW),
    Look("inspect", "no-threshold", "text=has no threshold", roi=showroom.UNCALIBRATED),
    Look("inspect", "loading", "text=Judging…", before=holding("infer")),
    Look("inspect", "error", "text=cannot be listed", before=failing("infer")),
    Look("inspect", "away", ".part", 4, before=holding("infer"), after=_go_away),
    Look("inspect", "infer", ".part", 4, after=_part(2), key=INFER),
    Look("inspect", "no-key", _DIALOG, key=""),
    Look("live", "normal", ".tile", roi=showroom.LIVE),
    Look("live", "judged", ".tile", roi=showroom.LIVE, after=_judge_live),
    Look("live", "spanish", ".tile", roi=showroom.LIVE, language="es"),
    Look("live", "undrawn", ".verdict", roi=showroom.NEW),
    Look("live", "loading", ".verdict", roi=showroom.LIVE, before=holding("layout")),
    Look("live", "away", ".tile", roi=showroom.LIVE, after=_go_away),
    Look("live", "infer", ".tile", roi=showroom.LIVE, key=INFER),
    Look("live", "no-key", _DIALOG, key=""),
    Look("review", "empty", "text=No part yet", roi=showroom.BORE),
    Look("review", "no-key", _DIALOG, key=""),
    Look("health", "normal", "tbody td"),
    Look("health", "drift", "text=no, they changed", roi=showroom.DRIFTING),
    Look("health", "empty", "text=not fitted yet", roi=showroom.NEW),
    Look("health", "loading", "text=Loading…", before=holding("drift", "versions")),
    Look("health", "error", _ALERT, before=failing("drift", "versions")),
    Look("health", "infer", "tbody td", key=INFER),
    Look("health", "no-key", _DIALOG, key=""),
]


class Browser:
    """A browser before a service in which every state is there."""

    def __init__(self, context: Any, server: Server) -> None:
        self.context = context
        self.server = server

    @contextlib.contextmanager
    def showing(self, look: Look) -> Iterator[Page]:
        """A tab that shows a look."""
        page: Page = self.context.new_page()
        page.set_viewport_size({"width": 1440, "height": look.height})
        if look.key:
            page.add_init_script(f"sessionStorage.setItem('roi-anomaly-key', '{look.key}')")
        page.add_init_script(_TIMELESS)
        page.add_init_script(_AWAKE)
        chosen = f"setItem('language', '{look.language}')" if look.language else "removeItem('language')"
        page.add_init_script(f"localStorage.{chosen}")
        look.before(page)
        roi = look.roi or showroom.READY
        query = httpx.QueryParams(recipe=roi["recipe_id"], role=roi["role_id"], roi=roi["roi_id"])
        page.goto(f"{self.server.address}/#/{look.screen}" + ("" if look.screen == "line" else f"?{query}"))
        found = page.locator(look.wait)
        expect(found.first).to_be_visible(timeout=_LOAD_MS)
        if look.n > 1:
            expect(found).to_have_count(look.n, timeout=_LOAD_MS)
        page.evaluate(_ONE_FONT)
        look.after(page)
        yield page
        self.context.set_offline(False)
        page.unroute_all(behavior="ignoreErrors")
        page.close()
