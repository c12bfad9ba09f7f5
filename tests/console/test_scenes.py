"""The whole journey on parts that lie in larger scenes: what is judged is the part itself, pixel for pixel.

Parts are pasted without resampling, so the crop of a ROI is known exactly: the part, or, turned by an odd angle, what
NumPy cuts.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Page, expect

from backend.commands.watch.crop import Roi, crop
from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, Serve, Watched, done
from tests.console.scenes import SIDE, Image, Parts, Place, parts

N_GOOD, N_BAD, N_FRESH = 12, 3, 5
LEAST_OK = 4
"""Of `N_FRESH` good parts."""
_MS = 120_000
_MOST_LEVELS = 12
"""Between a cell of the strip, which is made of a small picture, and the crop, on average."""


@dataclass(frozen=True)
class Recipe:
    """What a recipe's ROI shows.

    Attributes:
        name: of recipe and ROI.
        quarters: by how many quarters of a turn the parts lie turned.
        roi: on a part, that is on a picture of nothing else.
    """

    name: str
    quarters: int
    roi: Roi


WHOLE = Roi("rect", SIDE / 2, SIDE / 2, w=SIDE, h=SIDE)
RECIPES = [
    pytest.param(Recipe("turned by 90 degrees", 1, WHOLE), id="turned by 90 degrees", marks=pytest.mark.long),
    pytest.param(Recipe("tilted", 0, Roi("rect", 100, 100, w=130, h=110, angle_deg=17.3)), id="tilted"),
]


@pytest.fixture(scope="module")
def tiles() -> Parts:
    return parts(N_GOOD, N_BAD, N_FRESH)


@pytest.fixture(scope="module")
def service(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(folder=tmp_path_factory.mktemp("scenes")) as server:
        yield server


class Line:
    """The scenes of a recipe as files, and what the ROI must show of each.

    Attributes:
        roi: in the scenes.
        folder: with good/ and bad/.
        fresh: files to inspect, good ones first.
        expected: by file name, the crop.
    """

    def __init__(self, recipe: Recipe, tiles: Parts, folder: Path) -> None:
        rng = np.random.default_rng([ord(letter) for letter in recipe.name])
        place = Place.at_random(rng, recipe.quarters)
        self.roi = recipe.roi
        if recipe.quarters:
            cx, cy = place.centre
            self.roi = Roi("rect", cx, cy, w=SIDE, h=SIDE, angle_deg=90.0 * recipe.quarters)
        else:
            self.roi = Roi(**asdict(recipe.roi) | {"cx": recipe.roi.cx + place.x, "cy": recipe.roi.cy + place.y})
        self.folder = folder / "scenes"
        self.expected: dict[str, Image] = {}

        def written(where: Path, prefix: str, images: Sequence[Image]) -> list[Path]:
            where.mkdir(parents=True, exist_ok=True)
            paths = [where / f"{prefix}-{number:02}.png" for number in range(len(images))]
            for path, part in zip(paths, images, strict=True):
                cv2.imwrite(str(path), place.scene(part, rng))
                self.expected[path.name] = crop(part, recipe.roi)
            return paths

        written(self.folder / "good", "good", tiles.good)
        written(self.folder / "bad", "bad", tiles.bad)
        self.fresh = written(folder / "fresh", "fresh-good", tiles.fresh_good)
        self.fresh += written(folder / "fresh", "fresh-bad", tiles.fresh_bad)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_parts_in_scenes_are_judged_as_the_parts_themselves(
    recipe: Recipe, chromium: Any, service: Server, tiles: Parts, tmp_path: Path
) -> None:
    line = Line(recipe, tiles, tmp_path)
    if recipe.quarters:  # nothing is interpolated: the ROI shows the very part
        scene = cv2.imread(str(line.fresh[0]))
        assert np.array_equal(crop(np.asarray(scene, np.uint8), line.roi), tiles.fresh_good[0])
    watched = Watched(chromium, service)
    page = watched.page
    key = _begin(page, service, recipe.name)
    _draw(page, line)
    _fit(page)
    with service.client() as client:
        _stored_crops_are(client, key, line)
        replies = _inspect(page, line)
        assert [reply["score"] for reply in replies] == [
            _score(client, key, line.expected[path.name]) for path in line.fresh
        ]
    decisions = [reply["decision"] for reply in replies]
    assert decisions[N_FRESH:] == ["ng"] * N_BAD
    assert decisions[:N_FRESH].count("ok") >= LEAST_OK
    watched.close(NO_LAYOUT_YET)


def _begin(page: Page, service: Server, recipe: str) -> dict[str, str]:
    """A new ROI of a new recipe; its ids."""
    page.goto(service.address)
    page.get_by_role("button", name="New ROI").click()
    page.get_by_label("Recipe", exact=True).and_(page.locator("input")).fill(recipe)
    page.get_by_label("Name").fill(recipe)
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("Drop a folder of camera pictures here")).to_be_visible()
    named = httpx.QueryParams(page.url.partition("?")[2])
    return {"recipe_id": named["recipe"], "role_id": named["role"], "roi_id": named["roi"], "model_key": named["roi"]}


def _draw(page: Page, line: Line) -> None:
    page.locator("input[webkitdirectory]").first.set_input_files(line.folder)
    cells = page.locator(".strip-cell")
    expect(cells).to_have_count(N_GOOD + N_BAD, timeout=_MS)
    expect(page.get_by_label("Width (px)")).to_be_visible(timeout=_MS)
    box = page.locator(".roi-stage").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    values = {"Width (px)": line.roi.w, "Height (px)": line.roi.h, "Angle (°)": line.roi.angle_deg}
    for label, value in values.items():
        _type(page, label, value)
    page.mouse.move(*middle)  # by the mouse to about the place, and there exactly by its numbers
    page.mouse.down()
    page.mouse.move(middle[0] + 60, middle[1] + 40, steps=4)
    page.mouse.up()
    for label, value in {"Centre x (px)": line.roi.cx, "Centre y (px)": line.roi.cy}.items():
        _type(page, label, value)
    expect(page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_MS)
    for label, value in {**values, "Centre x (px)": line.roi.cx, "Centre y (px)": line.roi.cy}.items():
        assert float(page.get_by_label(label).input_value()) == value
    _strip_shows_the_parts(page, line)
    page.get_by_role("link", name="Mark good and bad").click()


def _type(page: Page, label: str, value: float) -> None:
    field = page.get_by_label(label)
    field.fill(f"{value:g}")
    field.press("Enter")


def _strip_shows_the_parts(page: Page, line: Line) -> None:
    """Each cell shows the crop of its own picture, about."""
    for cell in page.locator(".strip-cell").all():
        cell.scroll_into_view_if_needed()
        expected = line.expected[cell.locator(".strip-name").inner_text()]
        page.wait_for_timeout(100)
        url: str = cell.locator("canvas").evaluate("(canvas) => canvas.toDataURL()")
        content = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
        shown = cv2.imdecode(content, cv2.IMREAD_COLOR)
        alike = cv2.resize(expected, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert float(np.abs(shown.astype(float) - alike).mean()) < _MOST_LEVELS


def _fit(page: Page) -> None:
    for folder, all_of_it in (("scenes/good", "All good"), ("scenes/bad", "All bad")):
        page.locator(".folder-row", has_text=folder).get_by_role("button", name=all_of_it).click(timeout=_MS)
    expect(page.get_by_text("All decisions are stored")).to_be_visible(timeout=_MS)
    page.get_by_role("button", name=re.compile("^Fit on")).click()
    page.get_by_role("link", name="Set the threshold").click(timeout=_MS)
    page.get_by_role("button", name="Score the pictures and choose one").click(timeout=_MS)
    expect(page.locator(".stored strong")).to_be_visible(timeout=_MS)
    page.get_by_role("main").get_by_role("link", name="Inspect").click()


def _stored_crops_are(client: httpx.Client, key: dict[str, str], line: Line) -> None:
    classes = done(client.get("/datasets/list", params=key))["classes"]
    named = {(label, file): name for label in ("ok", "ng") for file, name in classes[label]["uploaded_as"].items()}
    assert len(named) == N_GOOD + N_BAD
    for (label, file), name in named.items():
        content = client.get("/datasets/file", params=key | {"label": label, "filename": file}).content
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert np.array_equal(stored, line.expected[name]), name


def _inspect(page: Page, line: Line) -> list[dict[str, Any]]:
    """What the service replied about the fresh scenes, as the page shows it."""
    replies: list[Any] = []
    page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    expect(page.get_by_text("Drop pictures or choose them below.")).to_be_visible(timeout=_MS)
    page.locator("input[type=file][accept]").first.set_input_files(line.fresh)
    judged = page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(line.fresh), timeout=_MS)
    names = [cell.get_attribute("title") for cell in judged.all()]
    order = [path.name for path in sorted(line.fresh)]
    assert names == order
    by_name = dict(zip(order, (reply.json() for reply in replies), strict=True))
    words = {name: cell.get_attribute("data-word") for name, cell in zip(order, judged.all(), strict=True)}
    assert words == {name: reply["decision"] for name, reply in by_name.items()}
    return [by_name[path.name] for path in line.fresh]


def _score(client: httpx.Client, key: dict[str, str], part: npt.NDArray[np.uint8]) -> float:
    """As a client in Python has it, which cuts with NumPy."""
    form = key | {"mm_per_px": "1", "trial": "true"}
    files = {"image": ("part.png", cv2.imencode(".png", part)[1].tobytes())}
    score: float = done(client.post("/infer", data=form, files=files))["score"]
    return score
