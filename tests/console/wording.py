"""The words of a screen beside those that were read, exactly: a picture shows where they stand, and not each of them.

What may change with the run or the processor is replaced by the same in all: names of models, numbers that scores and
areas decide, and names of files, which stand in the order of scores. Where a word stands does not count, nor its font.
"""

import difflib
import re

from playwright.sync_api import Page

from backend.web import console_files
from tests.console.looking import FOLDER

# Whatever a person sees or hears on the screen, in the order of the page; of a field what it holds.
_SAID = """() => {
  const said = [document.title];
  const names = ["label", "description", "valuetext", "roledescription"].map((name) => `aria-${name}`);
  names.push("title", "placeholder", "alt");
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.nodeType === Node.TEXT_NODE ? node.parentElement : node;
    if (element.closest("option, noscript") || !element.checkVisibility({ visibilityProperty: true })) continue;
    if (element !== node) said.push(node.data);
    else {
      said.push(...names.map((name) => node.getAttribute(name) ?? ""));
      if (node.matches("select")) said.push(node.selectedOptions[0]?.label ?? "");
      else if (node.matches("input:not([type=file], [type=checkbox], [type=radio])")) said.push(node.value);
    }
  }
  return said.map((text) => text.replace(/\\s+/g, " ").trim()).filter((text) => text);
}"""
_ALIKE = [
    (r"\b[0-9a-f]{8}\b", "0123abcd"),
    (r"\b[a-z]+-\d{3,4}\.png\b", "part.png"),
    (r"\d+(?:[.,]\d+)?(?= mm²)", "0.0"),
    (r"\d+[.,]\d+", "0.0"),
    (r"\(\d+, \d+\)", "(0, 0)"),  # the place of the largest distance
    (r"\d+(?= regions? reach)", "0"),
    (r"\d+(?= of its patches join)|(?<=which then has )\d+|(?<=, part )\d+", "0"),
]
"""What may differ, and what stands for it."""
_OF_A_REGION = "0.0 mm²"
"""Beside each region on the picture, of which there may be one more or less."""
AWAY = [
    text
    for language in ("en", "es")
    for text in re.findall(r'"lamp.away_title": "(.*)"', console_files()[f"texts/{language}.js"].decode())
]
"""What a screen says in each language for a moment where this machine has too much to do."""


def words(page: Page) -> list[str]:
    """What a page says now, a line for each text."""
    said: list[str] = page.evaluate(_SAID)
    return [text for text in map(_alike, said) if text != _OF_A_REGION]


def _alike(text: str) -> str:
    for pattern, instead in _ALIKE:
        text = re.sub(pattern, instead, text)
    return text


def renew(name: str, said: list[str]) -> None:
    """Keep the words of a screen as those to compare with."""
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in said), encoding="utf-8", newline="\n")


def check(name: str, said: list[str]) -> None:
    """Compare the words of a screen with those that were read.

    Args:
        name: of the look.
        said: its words.

    Raises:
        AssertionError: they differ, or nobody has read them; the message has the lines that differ.
    """
    kept = FOLDER / f"{name}.txt"
    assert kept.exists(), f"nobody has read the words of {name} yet: run with --renew-looks, and read them"
    read = kept.read_text(encoding="utf-8").splitlines()
    changed = [line for line in difflib.ndiff(read, said) if line[0] in "+-"]
    assert not changed, "\n".join([f"{name} says something else. If it is meant, renew it", *changed])
