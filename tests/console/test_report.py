"""The page of `evaluate` and `inspect` in a browser: the line moves, and counts, sentence and gallery follow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.commands.report.content import Decided, ScoredImage, Words
from tests.commands.report.sections import IMAGES, html, section

READ = """() => {
  const all = (query, of) => [...document.querySelectorAll(query)].map(of);
  return {
    counts: Object.fromEntries(all("[data-count]", (cell) => [cell.dataset.count, cell.textContent])),
    sentence: document.querySelector("[data-sentence]").textContent,
    field: document.querySelector("[data-threshold]").value,
    now: document.querySelector(".line").getAttribute("aria-valuenow"),
    x: document.querySelector(".line").getAttribute("transform"),
    pressed: all('[aria-pressed="true"]', (button) => button.textContent.trim()),
    cards: all("[data-gallery] .card:not([hidden])",
      (card) => [card.querySelector("span").textContent, card.querySelector("em").textContent]),
    focus: document.activeElement.getAttribute("class"),
    requests: performance.getEntriesByType("resource").map((entry) => entry.name),
  };
}"""
Opened = Callable[[str], Any]


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Opened]:
    """Opens a page from a file; `shown` tells what it shows."""
    with chromium.new_context() as context:

        def opened(content: str) -> Any:
            path = tmp_path / "page.html"
            path.write_text(content, encoding="utf-8")
            page = context.new_page()
            page.goto(path.as_uri())
            return page

        yield opened


@pytest.fixture
def page(opened: Opened) -> Any:
    """A page with all kinds of images but parts that nobody has judged."""
    return opened(html(section()))


def shown(page: Any) -> dict[str, Any]:
    found: dict[str, Any] = page.evaluate(READ)
    return found


def test_it_opens_at_the_threshold_and_shows_wrong_decisions_first(page: Any):
    found = shown(page)
    assert found["counts"] == {"good": "1 of 4 · 25.0 %", "defective": "2 of 5 · 40.0 %", "train": "1 of 4 · 25.0 %"}
    assert found["sentence"].startswith(
        "At 0.5000 (contract rule), 1 of 4 good parts is rejected (25.0 %, 95 % confidence: 0.6 to 80.6 %)"
    )
    assert "Of those that pass: bent 1 of 2, hole 1 of 3." in found["sentence"]
    assert found["cards"][:4] == [
        ["good/3.png", "false reject"],
        ["bent/0.png", "escape"],
        ["hole/0.png", "escape"],
        ["good/2.png", ""],
    ]
    assert found["requests"] == []


def test_a_button_moves_the_line_and_all_that_follows_it(page: Any):
    page.locator("[data-to]").nth(1).click()
    found = shown(page)
    assert (found["field"], found["now"], found["pressed"]) == ("0.4000", "0.4000", ["recommended rule 0.4000"])
    assert found["counts"] == {"good": "2 of 4 · 50.0 %", "defective": "1 of 5 · 20.0 %", "train": "1 of 4 · 25.0 %"}
    assert [card for card in found["cards"] if card[1]] == found["cards"][:3]


def test_dragging_moves_the_line_to_the_pointer(page: Any):
    box = page.locator(".histogram").bounding_box()
    page.mouse.move(box["x"] + 200 * box["width"] / 900, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 450 * box["width"] / 900, box["y"] + 60, steps=3)
    page.mouse.up()
    page.mouse.move(box["x"], box["y"] + 60)  # the line stays
    found = shown(page)
    low, high = 0.2 - 0.03, 0.95 + 0.03
    assert float(found["now"]) == pytest.approx(low + (high - low) * (450 - 14) / 872, abs=1e-3)
    assert float(found["x"].removeprefix("translate(").split()[0]) == pytest.approx(450, abs=1)
    assert found["focus"] == "line", "so that arrow keys go on from there"


@pytest.mark.parametrize(
    ("key", "steps"), [("ArrowRight", 1), ("ArrowLeft", -1), ("ArrowUp", 1), ("PageUp", 20), ("PageDown", -20)]
)
def test_keys_move_the_line(page: Any, key: str, steps: int):
    page.locator(".line").focus()
    page.keyboard.press(key)
    assert float(shown(page)["now"]) == pytest.approx(0.5 + steps * 0.81 / 500, abs=1e-4)


def test_a_number_that_is_typed_is_taken(page: Any):
    page.locator("[data-threshold]").fill("0.6")
    page.keyboard.press("Tab")
    found = shown(page)
    assert found["counts"]["good"] == "0 of 4 · 0.0 %"
    assert found["field"] == "0.6000"


def test_the_filter_shows_escapes_alone(page: Any):
    page.locator("[data-filter]").select_option("escape")
    assert shown(page)["cards"] == [["bent/0.png", "escape"], ["hole/0.png", "escape"]]


def test_images_of_the_fit_alone_have_a_line_and_no_sentence(opened: Opened):
    page = opened(html(section(images=IMAGES[:4], cards=[])))
    page.locator("[data-to]").nth(1).click()
    found = shown(page)
    assert (found["field"], found["counts"], found["cards"]) == ("0.4000", {"train": "1 of 4 · 25.0 %"}, [])
    assert found["sentence"] == ""


def test_the_sentence_is_in_the_words_of_the_command(opened: Opened):
    words = Words(
        {"train": "good image", "defective": "bad image", "part": "part"},
        ng=Decided("NG", "is NG", "are NG"),
        ok=Decided("OK", "is OK", "are OK"),
    )
    images = [
        *IMAGES[:4],
        *(image for image in IMAGES if image.label == "bent"),
        ScoredImage("parts/1.png", "part", "part", 0.6),
    ]
    page = opened(html(section(words=words, images=images)))
    sentence = shown(page)["sentence"]
    assert sentence.startswith("At 0.5000 (contract rule), 1 of 2 bad images is OK (50.0 %")
    assert sentence.endswith(", and 1 of 1 part is NG (100.0 %).")
    assert page.locator("[data-decision]").all_text_contents() == ["NG", "OK", "NG", "NG"]
    page.locator("[data-to]").nth(1).click()
    assert "0 of 2 bad images are OK" in shown(page)["sentence"]
