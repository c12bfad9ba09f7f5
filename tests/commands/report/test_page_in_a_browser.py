"""The page as a browser runs it: the line moves, and counts, sentence and gallery follow."""

import json
import re
import shutil
import subprocess

import pytest

from tests.commands.report.sections import IMAGES, html, section

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium")]

# What is read of the page after some script has run.
READ = """
const all = (query, of) => [...document.querySelectorAll(query)].map(of);
const found = {
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
document.title = "";
document.body.replaceChildren(JSON.stringify(found));
"""
LINE = 'const svg = document.querySelector(".histogram"), line = document.querySelector(".line");'
POINT = """
const box = svg.getBoundingClientRect();
const to = (x, kind) => svg.dispatchEvent(
  new PointerEvent(kind, { clientX: box.left + x * box.width / 900, pointerId: 1, bubbles: true }));
"""


@pytest.fixture
def after(tmp_path):
    """What the page shows after a script."""

    def run(script, page=None):
        path = tmp_path / "page.html"
        content = page or html(section())
        path.write_text(content.replace("</body>", f"<script>{{{script}{READ}}}</script></body>"), encoding="utf-8")
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={tmp_path / 'browser'}", "--dump-dom", path.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        body = re.search(r"<body>(.*)</body>", done.stdout, re.DOTALL)
        return json.loads(body[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))

    return run


def test_it_opens_at_the_threshold_and_shows_wrong_decisions_first(after):
    found = after("")
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


def test_a_button_moves_the_line_and_all_that_follows_it(after):
    found = after('document.querySelectorAll("[data-to]")[1].click();')
    assert (found["field"], found["now"], found["pressed"]) == ("0.4000", "0.4000", ["recommended rule 0.4000"])
    assert found["counts"] == {"good": "2 of 4 · 50.0 %", "defective": "1 of 5 · 20.0 %", "train": "1 of 4 · 25.0 %"}
    assert [card for card in found["cards"] if card[1]] == found["cards"][:3]


def test_dragging_moves_the_line_to_the_pointer(after):
    found = after(
        f"{LINE}{POINT}svg.setPointerCapture = () => 0; svg.hasPointerCapture = () => true; "
        'to(200, "pointerdown"); to(450, "pointermove"); to(450, "pointerup");'
    )
    assert found["x"].startswith("translate(450.00 ")
    low, high = 0.2 - 0.03, 0.95 + 0.03
    expected = low + (high - low) * (450 - 14) / 872
    assert float(found["now"]) == pytest.approx(expected, abs=1e-3)
    assert found["focus"] == "line", "so that arrow keys go on from there"


@pytest.mark.parametrize(
    ("key", "steps"), [("ArrowRight", 1), ("ArrowLeft", -1), ("ArrowUp", 1), ("PageUp", 20), ("PageDown", -20)]
)
def test_keys_move_the_line(after, key, steps):
    found = after(f'{LINE}line.dispatchEvent(new KeyboardEvent("keydown", {{ key: "{key}" }}));')
    assert float(found["now"]) == pytest.approx(0.5 + steps * 0.81 / 500, abs=1e-4)


def test_a_number_that_is_typed_is_taken(after):
    typed = 'const field = document.querySelector("[data-threshold]"); field.value = "0.6"; '
    found = after(typed + 'field.dispatchEvent(new Event("input")); field.dispatchEvent(new Event("change"));')
    assert found["counts"]["good"] == "0 of 4 · 0.0 %"
    assert found["field"] == "0.6000"


def test_the_filter_shows_escapes_alone(after):
    chosen = 'const filter = document.querySelector("[data-filter]"); filter.value = "escape"; filter.onchange();'
    assert after(chosen)["cards"] == [["bent/0.png", "escape"], ["hole/0.png", "escape"]]


def test_images_of_the_fit_alone_have_a_line_and_no_sentence(after):
    found = after('document.querySelectorAll("[data-to]")[1].click();', html(section(images=IMAGES[:4], cards=[])))
    assert (found["field"], found["counts"], found["cards"]) == ("0.4000", {"train": "1 of 4 · 25.0 %"}, [])
    assert found["sentence"] == ""
