"""Live with a camera and with a watched folder, on the real screen before the real service; and without either."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harness.server import Server
from harness.two_cells import RECIPE, ROIS, ids, pictures
from tests.console.line import Serve, done
from tests.console.live import JUDGE_MS, Live, fake_camera, line_of_two_cells, words, write_video

PICTURES = pictures(4)
_SCENE_S = 10
_LOOK_MS = 200
_PICKS_OWN_FOLDER = """globalThis.showDirectoryPicker = async () =>
  (await navigator.storage.getDirectory()).getDirectoryHandle("line", { create: true });
globalThis.write = async (name, base64) => {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle("line", { create: true });
  const stream = await (await folder.getFileHandle(name, { create: true })).createWritable();
  await stream.write(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
  await stream.close();
};"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Iterator[Server]:
    with line_of_two_cells(serve, tmp_path_factory.mktemp("two-cells"), ALLOWED_HOSTS="127.0.0.1,line.test") as server:
        yield server


def test_a_camera_is_judged_its_pictures_become_samples_and_its_end_shows(
    launch: Callable[..., Any], line: Server, tmp_path: Path
) -> None:
    write_video(tmp_path / "camera.y4m", PICTURES[:2], _SCENE_S)  # a good part, then one with a bad right ROI
    live = Live(launch(*fake_camera(tmp_path / "camera.y4m")), line)
    live.show()
    live.page.get_by_role("button", name="Start").click()
    expect(live.verdict()).to_have_attribute("data-word", "ok", timeout=JUDGE_MS)
    expect(live.verdict()).to_have_text("NGRight", timeout=JUDGE_MS)
    expect(live.verdict()).to_have_attribute("data-word", "ok", timeout=JUDGE_MS)
    assert "passed over" in live.facts()
    live.page.get_by_role("button", name="Take a picture for Left").click()
    expect(live.page.get_by_text("Left has 1 picture in this browser")).to_be_visible()
    live.page.evaluate("document.querySelector('video').srcObject.getTracks()[0].stop()")
    expect(live.verdict()).to_have_attribute("data-word", "none", timeout=JUDGE_MS)
    expect(live.verdict()).to_contain_text("ended")
    live.open("roi", {"recipe_id": RECIPE, "role_id": "Inspection", "roi_id": "left"})
    expect(live.page.locator(".strip-cell")).to_have_count(1)
    live.close()


def test_a_watched_folder_is_judged_file_by_file_also_over_a_reload(chromium: Any, line: Server) -> None:
    live = Live(chromium, line)
    live.page.add_init_script(_PICKS_OWN_FOLDER)
    live.show()
    arrive(live, 0, 1)
    live.choose("Watched folder")
    live.page.get_by_role("button", name="Choose the folder to watch").click()
    live.is_judged(2)
    assert live.parts() == words(PICTURES[:2])
    live.page.reload()
    arrive(live, 2)
    live.page.get_by_role("button", name="Go on watching line").click()
    live.is_judged(1)
    arrive(live, 3)
    live.is_judged(2)
    assert live.parts() == words(PICTURES[2:])
    assert len(live.answered()) == 8
    live.close()


def test_a_part_that_is_asked_about_again_after_a_reload_counts_once(chromium: Any, line: Server) -> None:
    live = Live(chromium, line)
    live.page.add_init_script(_PICKS_OWN_FOLDER)
    live.refuse = lambda number, route: number == 2  # no answer about the second ROI
    live.show()
    before = n_parts(line)
    arrive(live, 0)
    live.choose("Watched folder")
    live.page.get_by_role("button", name="Choose the folder to watch").click()
    live.is_asked(2)
    live.page.reload()
    live.page.get_by_role("button", name="Go on watching line").click()
    live.is_judged(1)
    assert [asked.roi for asked in live.asked] == ["left", "right", "left", "right"]
    assert len({asked.part_id for asked in live.asked}) == 1
    assert {asked.request.headers["x-request-id"] for asked in live.asked} == {live.asked[0].part_id}
    arrive(live, 1)
    live.is_judged(2)
    wanted = {roi: n + 2 for roi, n in before.items()}
    for _ in range(JUDGE_MS // _LOOK_MS):
        if all(n >= wanted[roi] for roi, n in n_parts(line).items()):
            break
        live.page.wait_for_timeout(_LOOK_MS)  # they are written behind, in the order of the parts
    assert n_parts(line) == wanted
    live.open("review", ids("left"))
    expect(live.page.locator(".review-part")).to_have_count(2)
    live.close()


def n_parts(line: Server) -> dict[str, int]:
    """How many parts of each ROI count."""
    with line.client() as client:
        return {roi: done(client.get("/drift", params=ids(roi)))["n_parts"] for roi in ROIS}


def arrive(live: Live, *numbers: int) -> None:
    """Write pictures into the watched folder."""
    for number in numbers:
        picture = PICTURES[number]
        live.page.evaluate("([name, png]) => write(name, png)", [picture.name, base64.b64encode(picture.png).decode()])


def test_without_tls_to_another_machine_the_page_says_why_and_takes_a_drop(
    launch: Callable[..., Any], line: Server, tmp_path: Path
) -> None:
    live = Live(launch("--host-resolver-rules=MAP line.test 127.0.0.1"), f"http://line.test:{line.port}")
    live.show()
    expect(live.page.get_by_text("Browsers give a camera only to pages that come over TLS")).to_be_visible()
    live.choose("Watched folder")
    expect(live.page.get_by_text("Browsers watch a folder only for pages that come over TLS")).to_be_visible()
    live.page.locator("input[type=file][accept]").set_input_files([PICTURES[1].write(tmp_path)])
    expect(live.verdict()).to_have_text("NGRight", timeout=JUDGE_MS)
    live.close()
