"""The console in a language that marks each text of the catalogue, so that a text of anything else is seen."""

import re
from functools import partial

from playwright.sync_api import Page, Route

from backend.web import console_files
from tests.console import showroom

MARKS = "⟦⟧"
_MARKED = re.compile(r"⟦[^⟦⟧]*⟧")
_WORD = re.compile(r"[^\W\d_]{2,}")
_PSEUDO = """
const marked = (text) => `⟦${text.replace(/\\{\\w+\\}/g, "⟧$&⟦")}⟧`;
const both = (entry) => typeof entry === "string"
  ? marked(entry)
  : Object.fromEntries(Object.entries(entry).map(([form, text]) => [form, marked(text)]));
export default Object.fromEntries(Object.entries(texts).map(([key, entry]) => [key, both(entry)]));
"""
# Whatever a person reads or hears, hidden or not.
_SAID = """() => {
  const said = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  const names = ["label", "description", "valuetext", "roledescription"].map((name) => `aria-${name}`);
  names.push("title", "placeholder", "alt");
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.nodeType === Node.TEXT_NODE) { if (!node.parentElement.closest("noscript")) said.push(node.data); }
    else said.push(...names.map((name) => node.getAttribute(name) ?? ""));
  }
  return said.filter((text) => /\\p{L}{2}/u.test(text));
}"""
# Across the page, or cut off inside a control or a head of a table; what scrolls by itself is meant to.
_TOO_WIDE = """() => {
  const { scrollWidth, clientWidth } = document.querySelector("main");
  const wide = document.documentElement.scrollWidth > innerWidth || scrollWidth > clientWidth ? ["the page"] : [];
  const scrolls = (node) => ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
  const texts = "h1, h2, p, label, legend, th, td, summary, .verdict-word, .verdict-reason";
  for (const node of document.querySelectorAll(`button, .button, .nav-link, .badge, .chip, ${texts}`)) {
    if (!node.checkVisibility() || node.closest(".sr") || node.matches(".sr, .sr *")) continue;
    const box = node.getBoundingClientRect();
    if (!box.width || node.parentElement.closest("svg, canvas")) continue;
    let held = node.parentElement;
    while (held && !scrolls(held)) held = held.parentElement;
    const isCut = node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).display !== "inline";
    const isOutside = !held && (box.left < -1 || box.right > innerWidth + 1);
    if (isCut || isOutside) wide.push(`${node.tagName} ${node.className}: ${node.textContent.slice(0, 60)}`);
  }
  return wide;
}"""
_DATA = [
    *("Washer, whole", "Bore", "Rim", "Thread", "Marking", "Bolt holes", "Ten thousand", "Plate"),
    *(showroom.LINE, "new product", "board", "archive", "press", "plate", "Inspection", "default"),
    r"Joint \d+",
    r"inspection-\d+",
    r"[\w-]+\.png",
    r"parts/(?:good|bad)",
    r"(?:EN|ES|English|Español)",  # each language by its own name
    r"\d+ Nov \d+",
    r"[0-9a-f]{8}",
    r"\b(?:mm|px|cpu)\b",
]
"""Names that people gave, files, ids, times, units, and on what the service computes."""


def pseudo(page: Page) -> None:
    """Load the English catalogue with each text in marks, and what is put into it outside of them."""
    for file in ("texts/en.js", "texts/later/en.js"):
        body = console_files()[file].decode().replace("export default {", "const texts = {") + _PSEUDO
        page.route(f"**/console/{file}", partial(_answer, body))


def _answer(body: str, route: Route) -> None:
    route.fulfill(body=body, content_type="text/javascript")


def unmarked(page: Page, *of_the_service: str) -> set[str]:
    """What the page says beside marked texts and data.

    Args:
        page: in the marking language.
        of_the_service: patterns of what the service said.
    """
    said: list[str] = page.evaluate(_SAID)
    assert any(MARKS[0] in text for text in said), "the page is not in the language that marks"
    data = re.compile("|".join([*of_the_service, *_DATA]))
    return {text for text in said if _WORD.search(data.sub(" ", _MARKED.sub(" ", text)))}


def too_wide(page: Page) -> list[str]:
    """Texts that are cut off, or reach beyond the window."""
    found: list[str] = page.evaluate(_TOO_WIDE)
    return found
