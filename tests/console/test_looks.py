"""What every screen looks like in every state, and that axe finds nothing in it.

`pytest tests/console/test_looks.py --renew-looks` takes new pictures and words; look at each before you commit it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.console import languages, showroom, wording
from tests.console.line import FULL, INFER, Serve
from tests.console.looking import MOST, check, difference, renew, small
from tests.console.states import LOOKS, Browser, Change, Look

_LEAST_CONTRAST = 4.5

_ALSO = """(rule) => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(rule);
  document.adoptedStyleSheets = [document.adoptedStyleSheets[0], sheet];
}"""
_SHOWN_ALIKE = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.data.replace(/\\b[0-9a-f]{8}\\b/g, "0123abcd");
    if (text !== node.data) node.data = text;
  }
  // The sixth digit of a score depends on the CPU, and a zero at the end is not shown.
  for (const field of document.querySelectorAll("input"))
    if (/^\\d\\.\\d{6}$/.test(field.value)) field.value = String(Number(Number(field.value).toFixed(5)));
}"""
_SETTLED = """() => new Promise((resolve) => {
  let changed_at = performance.now();
  const observer = new MutationObserver(() => { changed_at = performance.now(); });
  observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
  const begun = performance.now();
  const look = () => {
    const now = performance.now();
    const isSeen = (element) => element.checkVisibility() && element.getBoundingClientRect().top < innerHeight;
    const empty = [...document.querySelectorAll(".sample-picture:empty, .thumb:empty")].filter(isSeen);
    const waits = empty.length || [...document.images].some((image) => !image.complete);
    const isStill = now - changed_at > 200 || now - begun > 2000; // Live writes the same again and again
    if ((isStill && !waits) || now - begun > 30000) { observer.disconnect(); resolve(null); }
    else setTimeout(look, 50);
  };
  look();
})"""

# All of WCAG 2 up to 2.2 AA, and what axe holds for good practice; no rule is left out.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_AXE = {"runOnly": _RULES, "resultTypes": ["violations", "incomplete"]}
# axe cannot tell what lies below the visible part of an element that scrolls, so it sees the screen in full length.
_IN_FULL = """(isFull) => {
  document.body.style.height = isFull ? "auto" : "";
  document.querySelector("main").style.overflow = isFull ? "visible" : "";
}"""
# What stands on a picture or on stripes has an outline, or is measured below.
_ON_PICTURE = """(node) => node.matches("svg text, .verdict *")"""
_TRIES, _ANSWER_MS = 5, 30_000
_VARIANTS = {
    "": (1440, 0, "light"),
    "-dark": (1440, 0, "dark"),
    "-390": (390, 844, "light"),
    "-2560": (2560, 1300, "light"),
}


@pytest.fixture(scope="module")
def browser(chromium: Any, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Every state, made once."""
    folder = tmp_path_factory.mktemp("looks")
    with serve(folder=folder, API_KEYS=FULL, INFER_KEYS=INFER, INPUT_SIZE="448") as server:
        context = chromium.new_context(locale="en-GB", timezone_id="UTC")
        page = context.new_page()
        page.add_init_script(f"sessionStorage.setItem('roi-anomaly-key', '{FULL}')")
        showroom.furnish(server, page, folder)
        page.close()
        yield Browser(context, server)
        context.close()


def picture_of(page: Page, *, is_below: bool = False) -> bytes:
    """The top or the end of a screen, once nothing changes any more."""
    page.evaluate(_SETTLED)
    page.evaluate(_SHOWN_ALIKE)
    page.locator("main").evaluate("(main, isBelow) => main.scrollTo(0, isBelow ? main.scrollHeight : 0)", is_below)
    png: bytes = page.screenshot(animations="disabled", caret="hide")
    return png


def seen(page: Page, look: Look) -> tuple[bytes, list[str]]:
    """A picture and the words of the same moment, in which the service answers, unless it is away."""
    is_away = look.state == "away"
    for _ in range(_TRIES):
        if not is_away:
            for text in wording.AWAY:
                expect(page.get_by_text(text)).to_have_count(0, timeout=_ANSWER_MS)
        png, said = picture_of(page, is_below=look.is_below), wording.words(page)
        if is_away or not any(away in text for text in said for away in wording.AWAY):
            break
    return png, said


def flaws(page: Page) -> list[str]:
    """What axe finds, and where it cannot tell a contrast that it could."""
    page.evaluate(_IN_FULL, True)
    found = Axe().run(page, options=_AXE).response
    page.evaluate(_IN_FULL, False)
    named = [(rule["id"], node) for rule in found["violations"] for node in rule["nodes"]]
    named += [(f"{rule['id']} is not known", node) for rule in found["incomplete"] for node in rule["nodes"]]
    return [
        f"{rule}: {node['html'][:160]}"
        for rule, node in named
        if not (rule == "color-contrast is not known" and page.locator(node["target"][0]).first.evaluate(_ON_PICTURE))
    ]


_ALIKE = ("loading", "error", "no-key", "infer")
"""States that every screen shows in the same way."""


def _looks() -> list[Any]:
    """Each look; of a state that is alike everywhere, those of two screens each time, the others before a release."""
    return [
        pytest.param(look, id=look.name, marks=pytest.mark.long)
        if look.state in _ALIKE and look.screen not in ("line", "inspect")
        else pytest.param(look, id=look.name)
        for look in LOOKS
    ]


@pytest.mark.parametrize("look", _looks())
def test_it_looks_as_it_did_and_axe_finds_nothing(
    look: Look, browser: Browser, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    problems = []
    with browser.showing(look) as page:
        for variant, (width, height, scheme) in _VARIANTS.items():
            if variant and look.state != "normal":
                break
            page.set_viewport_size({"width": width, "height": height or look.height})
            page.emulate_media(color_scheme=scheme)
            # At once, as people see it: a colour that only comes after its ground cannot be read meanwhile.
            problems += [f"{look.name}{variant}: {flaw}" for flaw in flaws(page)]
            name = look.name + variant
            png, said = seen(page, look)
            if request.config.getoption("--renew-looks"):
                renew(name, png)
                wording.renew(name.removesuffix("-dark"), said)
            problems += [
                *_problem(check, name, png, tmp_path),
                *_problem(wording.check, name.removesuffix("-dark"), said),
            ]
    assert not problems, "\n".join(problems)


def _problem(check_it: Callable[..., None], *args: object) -> list[str]:
    try:
        check_it(*args)
    except AssertionError as problem:
        return [str(problem)]
    return []


_BROKEN = {
    "line": {
        "a text lies over another": ".card-facts { margin-top: -24px }",
        "the icons are gone": ".icon { visibility: hidden }",
        "a state has the colour of another": ".badge.warn { background: var(--good-soft); color: var(--good) }",
    },
    "threshold": {
        "a panel is gone": ".near-sides .panel:last-child { visibility: hidden }",
        "a sentence is gone": ".sentence { visibility: hidden }",
    },
    "inspect": {
        "the verdict has the colour of another": '.verdict[data-word="ng"] { background: #0a6b3d }',
        "the screen is not marked": ".nav-link[aria-current] { background: none; color: inherit; box-shadow: none }",
        "the heat is gone": ".heat-colours { visibility: hidden }",
    },
}
_HARMLESS = {
    "all lies a pixel lower": ".main { position: relative; top: 1px }",
    "letters are a little farther apart, and no line breaks elsewhere": ".main { letter-spacing: .001em }",
}
_OTHER_DIGITS = r"""() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    node.data = node.data.replace(/(\d\.\d\d)(\d\d)\b/g, (_, first, last) => first + String(199 - last).slice(1));
}"""


@pytest.mark.parametrize("screen", _BROKEN)
def test_a_picture_tells_what_is_broken_from_what_is_not(screen: str, browser: Browser) -> None:
    look = next(look for look in LOOKS if look.screen == screen)
    with browser.showing(look) as page:
        before = small(picture_of(page))

        def found(rule: str) -> float:
            page.evaluate(_ALSO, rule)
            return float(difference(picture_of(page), before).max())

        broken = {name: found(rule) for name, rule in _BROKEN[screen].items()}
        harmless = {name: found(rule) for name, rule in _HARMLESS.items()}
        page.evaluate(_OTHER_DIGITS)
        harmless["scores end in other digits"] = found("")
    assert min(broken.values()) > MOST, (broken, harmless)
    assert max(harmless.values()) <= MOST, (broken, harmless)


_OTHER_WORD = """() => { document.querySelector(".sentence").firstChild.data += " And more."; }"""


def test_the_words_tell_a_changed_sentence_and_not_other_digits(browser: Browser) -> None:
    look = next(look for look in LOOKS if look.name == "threshold-normal")
    with browser.showing(look) as page:
        page.evaluate(_SETTLED)
        page.evaluate(_OTHER_DIGITS)
        wording.check(look.name, wording.words(page))
        page.evaluate(_OTHER_WORD)
        with pytest.raises(AssertionError, match=r"\+ At 0\.0.* And more\."):
            wording.check(look.name, wording.words(page))


def test_words_on_stripes_can_be_read(browser: Browser) -> None:
    look = next(look for look in LOOKS if look.name == "inspect-empty")
    with browser.showing(look) as page:
        ground = page.locator(".verdict").evaluate("(node) => getComputedStyle(node).backgroundImage")
        stripes = set(re.findall(r"rgb\((\d+), (\d+), (\d+)\)", ground))
        words = [
            page.locator(f".verdict-{name}")
            .evaluate("(node) => getComputedStyle(node).color")
            .strip("rgb()")
            .split(", ")
            for name in ("word", "reason")
        ]
    assert len(stripes) == 2
    assert min(_contrast(word, stripe) for word in words for stripe in stripes) >= _LEAST_CONTRAST


_SAY_ALL = [
    *("line-normal", "line-new", "line-empty", "line-infer-empty", "line-no-key", "roi-normal", "roi-infer"),
    *("roi-empty", "samples-normal", "samples-large", "samples-detail", "samples-empty", "threshold-normal"),
    *("threshold-none", "inspect-feedback", "inspect-no-threshold", "live-normal", "live-undrawn", "review-empty"),
    *("health-normal", "health-drift"),
]
"""Looks that show every text that the others show, and more."""
_OF_THE_SERVICE = [
    r"about [\d.]+ % of good parts score above [\d.]+, estimated from \d+ OK scores",
    r"(?:The score|part-0002.png scores|the image scores) [\d.]+.*?(?=$|⟦)",
]


def _saying() -> list[Any]:
    """The looks of `_SAY_ALL`: a normal one of each screen each time, the others before a release."""
    by_name = {look.name: look for look in LOOKS}
    return [
        pytest.param(by_name[name], id=name, marks=() if name.endswith("-normal") else pytest.mark.long)
        for name in _SAY_ALL
    ]


@pytest.mark.parametrize("look", _saying())
def test_every_text_on_every_screen_comes_from_the_catalogue(look: Look, browser: Browser) -> None:
    with browser.showing(replace(look, before=_both(languages.pseudo, look.before))) as page:
        page.evaluate(_SETTLED)
        assert languages.unmarked(page, *_OF_THE_SERVICE) == set()


def _both(one: Change, other: Change) -> Change:
    def change(page: Page) -> None:
        one(page)
        other(page)

    return change


@pytest.mark.parametrize(
    "look", [look for look in LOOKS if look.state in ("normal", "drift")], ids=lambda look: look.name
)
def test_no_text_is_cut_off_in_spanish(look: Look, browser: Browser) -> None:
    wait = look.wait if look.state == "normal" else ".badge.bad"
    with browser.showing(replace(look, language="es", wait=wait)) as page:
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            page.evaluate(_SETTLED)
            assert languages.too_wide(page) == [], width


@pytest.mark.parametrize(
    ("locale", "name", "threshold"), [("es-ES", "Línea", ","), ("es-MX", "Línea", "."), ("fr-FR", "Line", ".")]
)
def test_the_language_is_the_browsers_until_a_person_chooses(
    locale: str, name: str, threshold: str, chromium: Any, browser: Browser
) -> None:
    context = chromium.new_context(locale=locale)
    try:
        page = context.new_page()
        page.add_init_script(f"sessionStorage.setItem('roi-anomaly-key', '{FULL}')")
        loaded: list[str] = []
        page.on("request", lambda request: loaded.extend(re.findall(r"/texts/(.*)", request.url)))
        page.goto(f"{browser.server.address}/#/line")
        now, other = ("es", "en") if name == "Línea" else ("en", "es")
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", now)
        expect(
            page.locator(".card-facts").filter(has_text=re.compile(rf"\b0\{threshold}\d{{4}}$")).first
        ).to_be_visible(timeout=_ANSWER_MS)
        assert {file.removeprefix("later/") for file in loaded} == {f"{now}.js"}
        n_before = len(loaded)
        page.get_by_role("button", name={"en": "English", "es": "Español"}[other]).click()
        expect(page.locator("html")).to_have_attribute("lang", other)
        page.reload()
        expect(page.get_by_role("link", name={"en": "Line", "es": "Línea"}[other], exact=True)).to_be_visible()
        expect(page.locator("html")).to_have_attribute("lang", other)
        assert {file for file in loaded[n_before:] if not file.startswith("later/")} == {f"{other}.js"}
    finally:
        context.close()


def test_a_text_with_a_number_has_the_forms_that_the_browser_asks_for(browser: Browser) -> None:
    look = next(look for look in LOOKS if look.name == "line-spanish")
    with browser.showing(look) as page:
        counted = """async () => {
          const { t, score, number, percentUp, written } = await import(new URL("console/texts.js", document.baseURI));
          const forms = [1, 2, 0, 1000000].map((n) => t("drop.added", { n }));
          const numbers = [score(0.51239), number(0.025), percentUp(0.0123), written(0.8)];
          return [...forms, ...numbers, t("anchor.range", { field: "x", low: 0.5, high: 0.99 })];
        }"""
        said = page.evaluate(counted)
    assert said == [
        *("1 imagen añadida", "2 imágenes añadidas", "0 imágenes añadidas", "1000000 de imágenes añadidas"),
        *("0,5124", "0,025", "1,3", "0,8", "x tiene que estar entre 0,5 y 0,99."),
    ]


def _contrast(one: Sequence[str], other: Sequence[str]) -> float:
    """As WCAG 2 has it."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Sequence[str]) -> float:
    shares = [int(channel) / 255 for channel in colour]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
