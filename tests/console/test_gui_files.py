"""The desktop GUI's layout opened and saved in the console: it reaches the GUI's models, and their very scores."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import expect

from backend.commands.watch.crop import Roi
from backend.commands.watch.gui_crop import gui_crop
from harness.server import Server
from tests.console.gui_layout_file import RECT, config, gui_layout, roi_model
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Serve, Watched, done, metas

_LOAD_MS = 30_000
_JUDGE_MS = 60_000
RECIPE = {"recipe_id": "My Layout 1"}
IDS = ROI | RECIPE
FILE = "My Layout 1.layout.json"


class Gui:
    """The desktop GUI, as far as the service sees it: crops of a ROI at 17°, under the recipe of its layout."""

    def __init__(self, folder: Path, parts: Parts) -> None:
        height, width = self.image(parts.good[0]).shape[:2]
        size = {"BaseImgW": width, "BaseImgH": height}
        x, y = width / 2 + 0.5, height / 2 - 3.25
        self.roi = {"kind": "rect", "cx": x, "cy": y, "w": width // 2, "h": height // 2 + 0.5, "angle_deg": 17}
        drawn = roi_model(RECT, 4, x, y, Width=self.roi["w"], Height=self.roi["h"], AngleDeg=17, **size)
        lid = roi_model(RECT, 4, x + 3, y, Width=40, Height=30, **size)
        layout = {
            "Inspection1": drawn,
            "Inspection2": lid,
            "InspectionRois": [config(1, Name="Nut", Enabled=True), config(2, Name="Lid")],
        }
        self.layout = gui_layout(**layout)
        self.file = folder / FILE
        self.file.write_text(json.dumps(self.layout), encoding="utf-8")
        self.preset = folder / "preset.json"
        self.preset.write_text(json.dumps({"MmPerPx": 0.25, "Rois": []}), encoding="utf-8")
        self.master = folder / "front.png"
        self.master.write_bytes(self.crop(parts.good[0]))

    @staticmethod
    def image(file: Path) -> np.ndarray:
        image = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        assert image is not None
        return np.asarray(image, np.uint8)

    def crop(self, file: Path) -> bytes:
        """A PNG."""
        return cv2.imencode(".png", gui_crop(self.image(file), Roi(**self.roi))[0])[1].tobytes()

    def fit(self, server: Server, parts: Parts) -> None:
        with server.client() as client:
            for label, files in (("ok", parts.good), ("ng", parts.bad)):
                form = [("images", (file.name, self.crop(file))) for file in files]
                done(client.post(f"/datasets/{label}/upload", data=IDS | {"metas": metas(files)}, files=form))
            fit = IDS | {"mm_per_px": "1", "use_dataset": "true"}
            done(client.post("/fit_ok", files={name: (None, value) for name, value in fit.items()}))
            body = IDS | {"require_ng": False, "default_mm_per_px": 1, "rule": "recommended"}
            done(client.post("/calibrate_dataset", json=body))

    def score(self, server: Server, file: Path) -> float:
        with server.client() as client:
            form = IDS | {"mm_per_px": "1", "trial": "true"}
            reply = done(client.post("/infer", data=form, files={"image": (file.name, self.crop(file))}))
        return float(reply["score"])


@pytest.fixture(scope="module")
def gui(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Gui:
    return Gui(tmp_path_factory.mktemp("gui"), parts)


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory, serve: Serve, gui: Gui, parts: Parts) -> Iterator[Server]:
    """A service with the GUI's model."""
    with serve(folder=tmp_path_factory.mktemp("station")) as server:
        gui.fit(server, parts)
        yield server


@pytest.fixture
def watched(chromium: Any, station: Server) -> Iterator[Watched]:
    """A console before it; its recipe has no layout."""
    with station.client() as client:
        empty = {"format": "roi-anomaly-console", "version": 1, "rois": []}
        stored = client.get("/layout", params=RECIPE)
        condition = {"If-Match": stored.headers["ETag"]} if stored.is_success else {"If-None-Match": "*"}
        done(client.put("/layout", params=RECIPE, json=empty, headers=condition))
    watched = Watched(chromium, station)
    watched.open("line", IDS)
    expect(watched.page.locator(".card").first).to_be_visible(timeout=_LOAD_MS)
    yield watched
    watched.close(NO_LAYOUT_YET, "412 /layout", "404 /datasets/meta")


def choose(watched: Watched, *files: Path) -> Any:
    """Choose files to open; the panel that comes."""
    with watched.page.expect_file_chooser() as chooser:
        watched.page.get_by_role("button", name="Open a layout of the desktop GUI").click()
    chooser.value.set_files(list(files))
    return watched.page.get_by_role("form", name="Open a layout of the desktop GUI")


def layout_of(server: Server, recipe: str = RECIPE["recipe_id"]) -> dict[str, Any]:
    with server.client() as client:
        return done(client.get("/layout", params={"recipe_id": recipe}))


def stored(watched: Watched, *files: Path) -> None:
    panel = choose(watched, *files)
    panel.get_by_role("button", name="Store this layout").click()
    expect(watched.page.get_by_text(f"The layout {FILE} is stored")).to_be_visible(timeout=_LOAD_MS)


def test_nothing_is_stored_before_a_person_says_so(watched: Watched, station: Server, gui: Gui) -> None:
    panel = choose(watched, gui.file)
    rows = panel.locator("tbody tr")
    expect(rows).to_have_count(2, timeout=_LOAD_MS)
    expect(rows.first).to_contain_text("as the desktop GUI cuts: its model is stored")
    expect(rows.last).to_contain_text("as the console cuts")
    expect(panel).to_contain_text("No file of the GUI itself was at hand")
    expect(panel).to_contain_text("Thresholds of the file are not taken over")
    panel.get_by_role("button", name="Cancel").click()
    expect(panel).to_have_count(0)
    assert layout_of(station)["rois"] == []


def test_the_gui_model_gives_the_same_score_to_the_last_digit(
    watched: Watched, station: Server, gui: Gui, parts: Parts
) -> None:
    stored(watched, gui.file)
    watched.open("inspect", IDS)
    replies: list[Any] = []
    watched.page.on("response", lambda reply: reply.url.endswith("/infer") and replies.append(reply))
    # Until then the screen before it is still there, which has a field for files, too.
    expect(watched.page.get_by_text("Drop pictures to judge here")).to_be_visible(timeout=_LOAD_MS)
    watched.page.locator("input[type=file][accept]").last.set_input_files(parts.fresh)
    judged = watched.page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(parts.fresh), timeout=_JUDGE_MS)
    scores = [reply.json()["score"] for reply in replies]
    assert scores == [gui.score(station, file) for file in parts.fresh]


def test_the_switch_on_the_roi_screen_cuts_as_the_console_does(
    watched: Watched, station: Server, gui: Gui, parts: Parts
) -> None:
    stored(watched, gui.file)
    watched.open("roi", IDS)
    expect(watched.page.get_by_text("Drop a folder of camera pictures here")).to_be_visible(timeout=_LOAD_MS)
    watched.page.locator("input[type=file][accept]").first.set_input_files(parts.good[:2])
    switch = watched.page.get_by_label("Cut as the desktop GUI does")
    expect(switch).to_be_checked(timeout=_LOAD_MS)
    assert layout_of(station)["rois"][0]["roi"]["crop"] == "gui"
    field = watched.page.get_by_label("Centre x (px)")
    field.fill(str(gui.roi["cx"] + 1))
    field.press("Enter")
    expect(watched.page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    assert layout_of(station)["rois"][0]["roi"]["crop"] == "gui"  # a drag leaves the switch alone
    switch.uncheck()
    expect(watched.page.get_by_text("Saved", exact=True)).to_be_visible(timeout=_LOAD_MS)
    roi = layout_of(station)["rois"][0]["roi"]
    assert (roi["cx"], "crop" in roi) == (gui.roi["cx"] + 1, False)


def test_a_recipe_is_one_however_its_file_is_spelt(watched: Watched, gui: Gui) -> None:
    stored(watched, gui.file)
    picker = watched.page.locator("#recipe")
    expect(picker).to_have_value("my layout 1")
    assert [name.lower() for name in picker.locator("option").all_inner_texts()].count("my layout 1") == 1
    expect(watched.page.locator(".card")).to_have_count(2)


def test_scale_and_pictures_of_masters_come_from_their_own_files(
    watched: Watched, station: Server, gui: Gui, tmp_path: Path
) -> None:
    other = tmp_path / "other line.layout.json"
    other.write_text(gui.file.read_text())
    panel = choose(watched, other, gui.preset, gui.master)
    expect(panel.get_by_label("Scale, mm per pixel")).to_have_value("0.25", timeout=_LOAD_MS)
    expect(panel).to_contain_text("front.png is stored as the picture of master 1")
    panel.get_by_role("button", name="Store this layout").click()
    expect(watched.page.get_by_text("is stored in recipe “other line”")).to_be_visible(timeout=_LOAD_MS)
    assert [roi["mm_per_px"] for roi in layout_of(station, "other line")["rois"]] == [0.25, 0.25]
    with station.client() as client:
        query = {"recipe_id": "other line", "name": "gui-master-1"}
        assert client.get("/layout/picture", params=query).content == gui.master.read_bytes()


def test_a_saved_layout_is_the_one_that_was_opened(watched: Watched, gui: Gui) -> None:
    stored(watched, gui.file)
    watched.page.get_by_role("button", name="Save as a layout of the desktop GUI").click()
    panel = watched.page.get_by_role("region", name="Save as a layout of the desktop GUI")
    expect(panel).to_contain_text("The file holds 2 ROIs.")
    with watched.page.expect_download() as download:
        panel.get_by_role("link", name=f"Save {FILE}").click()
    assert download.value.suggested_filename == FILE
    assert json.loads(Path(download.value.path()).read_text(encoding="utf-8")) == gui.layout


def test_a_roi_that_is_there_already_is_kept_unless_chosen(watched: Watched, station: Server, gui: Gui) -> None:
    stored(watched, gui.file)
    before = layout_of(station)["rois"]
    changed = json.loads(json.dumps(gui.layout))
    changed["Inspection1"]["X"] += 9
    changed["Inspection2"]["Y"] += 9
    gui_file = gui.file.with_name("changed") / FILE
    gui_file.parent.mkdir(exist_ok=True)
    gui_file.write_text(json.dumps(changed))
    panel = choose(watched, gui_file)
    choices = panel.locator("tbody select")
    expect(choices).to_have_count(2, timeout=_LOAD_MS)
    choices.last.select_option("take")
    panel.get_by_role("button", name="Store this layout").click()
    expect(watched.page.get_by_text(f"The layout {FILE} is stored").last).to_be_visible(timeout=_LOAD_MS)
    expect(panel).to_have_count(0)
    after = layout_of(station)["rois"]
    assert after[0] == before[0]
    assert after[1]["roi"]["cy"] == before[1]["roi"]["cy"] + 9


def test_a_change_at_another_station_meanwhile_is_never_overwritten(
    watched: Watched, station: Server, gui: Gui
) -> None:
    panel = choose(watched, gui.file)
    expect(panel.locator("tbody tr")).to_have_count(2, timeout=_LOAD_MS)
    with station.client() as client:
        there = client.get("/layout", params=RECIPE)
        theirs = {
            "role_id": "Inspection",
            "roi_id": "inspection-2",
            "model_key": "inspection-2",
            "name": "Theirs",
            "mm_per_px": 1,
            "roi": None,
            "picture": None,
        }
        content = done(there) | {"rois": [theirs]}
        done(client.put("/layout", params=RECIPE, json=content, headers={"If-Match": there.headers["ETag"]}))
    panel.get_by_role("button", name="Store this layout").click()
    expect(panel.get_by_role("alert")).to_contain_text("Another station changed the layout")
    assert layout_of(station)["rois"] == [theirs]
    expect(panel.locator("tbody select")).to_have_count(1)
    panel.get_by_role("button", name="Store this layout").click()
    expect(panel).to_have_count(0, timeout=_LOAD_MS)
    assert [roi["name"] for roi in layout_of(station)["rois"]] == ["Theirs", "Nut"]


def test_the_gui_finds_the_part_by_the_anchor_or_by_a_chosen_roi(watched: Watched, station: Server) -> None:
    anchor = {"id": "a", "cx": 60, "cy": 50, "w": 40, "h": 30, "search_px": 20, "search_deg": 5, "least_score": 0.7}
    size = {"width": 512, "height": 512}
    drawn = {"kind": "circle", "cx": 200, "cy": 150, "w": 9, "h": 9, "r": 35, "r_inner": 0, "angle_deg": 0}
    roi = {"roi_id": "inspection-2", "model_key": "inspection-2", "name": "Lid", "mm_per_px": 1, "roi": drawn}
    content = {
        "format": "roi-anomaly-console",
        "version": 1,
        "rois": [roi | {"role_id": "Inspection", "picture": size}],
        "anchor": anchor | {"picture": size},
    }
    with station.client() as client:
        done(client.put("/layout", params={"recipe_id": "anchored"}, json=content, headers={"If-None-Match": "*"}))
    watched.page.reload()
    watched.page.get_by_role("button", name="Save as a layout of the desktop GUI").click()
    panel = watched.page.get_by_role("region", name="Save as a layout of the desktop GUI")
    panel.locator("#gui-save-recipe").select_option("anchored")
    pattern = panel.get_by_label("By what shall the GUI find the part?")
    expect(pattern).to_have_value("anchor", timeout=_LOAD_MS)

    def saved() -> dict[str, Any]:
        with watched.page.expect_download() as download:
            panel.get_by_role("link", name="Save anchored.layout.json").click()
        layout: dict[str, Any] = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        return layout

    def rect(master: dict[str, Any]) -> list[float]:
        return [master[key] for key in ("X", "Y", "Width", "Height")]

    by_anchor = saved()
    assert rect(by_anchor["Master1Pattern"]) == [60, 50, 40, 30]
    assert rect(by_anchor["Master1Search"]) == [60, 50, 80, 70]
    pattern.select_option(label="By the picture of “Lid”")
    assert rect(saved()["Master1Pattern"]) == [200, 150, 70, 70]
    pattern.select_option(label="Not set: draw Master 1 in the GUI")
    expect(panel).to_contain_text("the GUI switches every ROI off")
    assert "Master1Pattern" not in saved()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a.layout.json": '{"Inspection1": {'}, "a.layout.json cannot be read: it is damaged"),
        ({"a.layout.json": '{"answer": 42}'}, "a.layout.json is neither a layout, nor a preset.json"),
        ({"preset.json": '{"MmPerPx": 0.2}'}, "There is no layout among these files"),
        (
            {"a.json": '{"Inspection1": {}}', "b.json": '{"Inspection1": {}}'},
            "There are several layouts among these files",
        ),
        ({"a.json": '{"Inspection1": {}}', "front.png": ""}, "the layout does not say of which master"),
    ],
)
def test_files_that_are_no_layout_are_refused_with_a_sentence(
    watched: Watched, files: dict[str, str], words: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    panel = choose(watched, *(tmp_path / name for name in files))
    expect(watched.page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(panel).to_have_count(0)


def test_a_reserved_name_is_asked_for_anew(watched: Watched, station: Server, gui: Gui, tmp_path: Path) -> None:
    last = tmp_path / "last.layout.json"
    last.write_text(gui.file.read_text())
    panel = choose(watched, last)
    expect(panel.get_by_role("alert")).to_contain_text("reserved")
    expect(panel.get_by_role("button", name="Store this layout")).to_be_disabled()
    name = panel.get_by_label("Recipe", exact=True)
    name.fill("from last")
    name.press("Tab")
    expect(panel.locator("tbody tr")).to_have_count(2, timeout=_LOAD_MS)
    panel.get_by_role("button", name="Store this layout").click()
    expect(panel).to_have_count(0, timeout=_LOAD_MS)
    assert len(layout_of(station, "from last")["rois"]) == 2
