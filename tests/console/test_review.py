"""Review: verdicts of a shift, what a person says of them, what is learnt of it, and the folder for evaluate."""

import base64
import contextlib
import csv
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from harness.pages import pages
from harness.server import Server
from tests.console.conftest import PAGES
from tests.console.line import NO_LAYOUT_YET, ROI, Parts, Serve, Watched, done

_LOAD_MS = 30_000
_JUDGE_MS = 90_000
_EVALUATE_S = 300


@pytest.fixture
def watched(chromium: Any, judging: Server) -> Iterator[Watched]:
    watched = Watched(chromium, judging)
    yield watched
    watched.close(NO_LAYOUT_YET)


def judge(watched: Watched, files: list[Path]) -> dict[str, str]:
    """Judge pictures in Inspect, and open Review; their verdicts by name."""
    watched.open("inspect")
    watched.page.locator("input[type=file][accept]").first.set_input_files(files)
    judged = watched.page.locator(".part[data-word=ok], .part[data-word=ng]")
    expect(judged).to_have_count(len(files), timeout=_JUDGE_MS)
    words = {cell.get_attribute("title"): cell.get_attribute("data-word") for cell in judged.all()}
    watched.page.get_by_role("navigation").get_by_role("link", name="Review").click()
    expect(parts_of(watched)).to_have_count(len(files), timeout=_LOAD_MS)
    return words


def parts_of(watched: Watched) -> Any:
    return watched.page.locator(".review-part")


def part(watched: Watched, name: str) -> Any:
    return watched.page.locator(f'.review-part[data-name="{name}"]')


def test_parts_keep_verdict_and_mark_over_a_reload(watched: Watched, parts: Parts) -> None:
    words = judge(watched, parts.fresh)
    assert {
        card.get_attribute("data-name"): card.get_attribute("data-word") for card in parts_of(watched).all()
    } == words
    first, second = parts.fresh[0].name, parts.fresh[-1].name
    part(watched, first).get_by_role("button", name=f"{first} is bad").click()
    part(watched, second).get_by_role("button", name=f"{second} is good").click()
    for name, truth in ((first, "bad"), (second, "good")):  # shown once it is stored
        expect(part(watched, name)).to_have_attribute("data-truth", truth)
    watched.page.reload()
    expect(part(watched, first)).to_have_attribute("data-truth", "bad", timeout=_LOAD_MS)
    expect(part(watched, first).locator("img")).to_have_js_property("complete", True)
    expect(part(watched, second)).to_have_attribute("data-truth", "good")
    part(watched, second).get_by_role("button", name=f"{second} is good").click()  # again: taken back
    expect(part(watched, second)).to_have_attribute("data-truth", "")


def test_filters_show_what_they_say(watched: Watched, parts: Parts) -> None:
    words = judge(watched, parts.fresh)
    page = watched.page
    for word, label in (("ng", "NG"), ("ok", "OK")):
        page.get_by_label("Verdict").select_option(label=label)
        expect(parts_of(watched)).to_have_count(list(words.values()).count(word))
    page.get_by_label("Verdict").select_option(label="All")
    page.get_by_label("Only marked").check()
    expect(page.get_by_text("No part is like that")).to_be_visible()
    page.get_by_label("Only marked").uncheck()
    page.get_by_label("Until").fill("2020-01-01T00:00")
    expect(parts_of(watched)).to_have_count(0)
    page.get_by_label("Until").fill("2120-01-01T00:00")
    page.get_by_label("From").fill("2020-01-01T00:00")
    expect(parts_of(watched)).to_have_count(len(words))


def test_marks_become_feedback_after_what_they_would_change(watched: Watched, judging: Server, parts: Parts) -> None:
    bad = parts.fresh[0]
    words = judge(watched, [bad])
    wrong = "bad" if words[bad.name] == "ok" else "good"
    with judging.client() as client:
        form = ROI | {"mm_per_px": "1", "verdict": wrong, "dry_run": "true"}
        told = done(client.post("/feedback", data=form, files={"image": (bad.name, bad.read_bytes())}))
    part(watched, bad.name).get_by_role("button", name=f"{bad.name} is {wrong}").click()
    page = watched.page
    page.get_by_role("button", name="What would 1 wrong verdict change?").click()
    row = page.locator("section.panel tbody tr")
    before, after = (f"{told[when]['threshold']:.4f}" for when in ("before", "after"))
    expect(row).to_contain_text(f"{before} → {after}", timeout=_JUDGE_MS)
    with judging.client() as client:
        assert done(client.get("/manifest", params=ROI))["calib"]["threshold"] == told["before"]["threshold"]
    page.get_by_role("button", name="Learn it").click()
    expect(page.get_by_text("1 part was learnt")).to_be_visible(timeout=_JUDGE_MS)
    with judging.client() as client:
        assert done(client.get("/manifest", params=ROI))["calib"]["threshold"] == told["after"]["threshold"]
    expect(part(watched, bad.name)).to_contain_text("learnt")
    expect(part(watched, bad.name).get_by_role("button", name="is bad")).to_be_disabled()
    expect(page.get_by_role("button", name="What would")).to_have_count(0)


def test_what_the_service_refuses_to_learn_stands_in_its_row(watched: Watched, judging: Server, parts: Parts) -> None:
    name = parts.good[0].name
    words = judge(watched, parts.good[:1])
    assert words == {name: "ok"}
    part(watched, name).get_by_role("button", name=f"{name} is bad").click()
    watched.page.get_by_role("button", name="What would 1 wrong verdict change?").click()
    expect(watched.page.locator("section.panel tbody tr")).to_contain_text("memory bank", timeout=_JUDGE_MS)
    expect(watched.page.get_by_role("button", name="Learn it")).to_be_disabled()
    watched.complaints = [text for text in watched.complaints if text != "409 /feedback"]


_PICKS_OWN_FOLDER = """globalThis.showDirectoryPicker = async () =>
  (await navigator.storage.getDirectory()).getDirectoryHandle("shift", { create: true })"""
_READ_OWN_FOLDER = """async () => {
  const found = {};
  const read = async (folder, path) => {
    for await (const [name, handle] of folder) {
      if (handle.kind === "directory") await read(handle, `${path}${name}/`);
      else found[path + name] = new Uint8Array(await (await handle.getFile()).arrayBuffer()).toBase64();
    }
  };
  const root = await navigator.storage.getDirectory();
  for await (const [, made] of await root.getDirectoryHandle("shift")) await read(made, "");
  return found;
}"""


def test_evaluate_reads_what_is_packed(watched: Watched, parts: Parts, tmp_path: Path) -> None:
    words = judge(watched, parts.fresh)
    escaped, rejected = (next(name for name, word in words.items() if word == wanted) for wanted in ("ok", "ng"))
    part(watched, escaped).get_by_role("button", name=f"{escaped} is bad").click()
    part(watched, rejected).get_by_role("button", name=f"{rejected} is good").click()
    page = watched.page
    page.evaluate("globalThis.showDirectoryPicker = undefined")  # as in Firefox
    page.get_by_role("button", name="Pack for evaluate").click()
    with page.expect_download(timeout=_LOAD_MS) as download:
        page.get_by_role("link", name="Save inspection-1.zip").click(timeout=_LOAD_MS)
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "line")
    page.evaluate(_PICKS_OWN_FOLDER)
    page.get_by_role("button", name="Pack for evaluate").click()
    expect(page.get_by_text("They are in the folder shift/inspection-1_20")).to_be_visible(timeout=_LOAD_MS)
    packed = {
        file.relative_to(tmp_path / "line").as_posix(): base64.b64encode(file.read_bytes()).decode()
        for file in (tmp_path / "line").rglob("*.*")
    }
    assert page.evaluate(_READ_OWN_FOLDER) == packed
    rows = list(csv.DictReader((tmp_path / "line" / "verdicts.csv").open(encoding="utf-8", newline="")))
    assert {row["name"]: row["verdict"] for row in rows} == words
    kind = {"ok": "good", "ng": "rejected"}
    expected = {name: kind[word] for name, word in words.items()} | {escaped: "escaped", rejected: "good"}
    assert {row["name"]: row["file"].split("/")[1] for row in rows} == expected
    originals = {file.name: file.read_bytes() for file in parts.fresh}
    assert all((tmp_path / "line" / row["file"]).read_bytes() == originals[row["name"]] for row in rows)
    trained = {file.read_bytes() for file in (tmp_path / "line" / "train" / "good").iterdir()}
    assert trained == {file.read_bytes() for file in parts.good}
    command = [sys.executable, "-m", "backend", "evaluate", str(tmp_path / "line"), "--out", str(tmp_path / "out")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_EVALUATE_S, check=False)
    assert ran.returncode == 0, ran.stderr
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["categories"]
    assert found["n_train"] == len(parts.good)
    assert found["n_good"] + found["n_defective"] == len(parts.fresh)


def test_parts_of_the_history_alone_are_shown_and_not_marked(
    chromium: Any, models: Path, serve: Serve, parts: Parts, tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "models")
    with serve(folder=tmp_path, HISTORY="10") as server:
        with server.client() as client:
            form = {"image": (parts.fresh[0].name, parts.fresh[0].read_bytes())}
            reply = done(client.post("/infer", data=ROI | {"mm_per_px": "1"}, files=form))
        watched = Watched(chromium, server)
        card = parts_of(watched)
        for _ in range(10):  # a judgement is kept within two seconds
            watched.open("review")
            watched.page.reload()
            watched.page.wait_for_load_state("networkidle")
            if card.count():
                break
        expect(card).to_have_attribute("data-word", reply["decision"], timeout=_LOAD_MS)
        expect(card).to_contain_text("Its picture is not in this browser")
        expect(card.get_by_role("button")).to_have_count(0)
        expect(card.locator("img")).to_have_js_property("naturalWidth", 256)
        watched.close(NO_LAYOUT_YET)


_FILL = """async ([roi, n]) => {
  const { changeJudged, judgedParts, keepJudged, lost } = await import("/judged.js");
  const part = (id) => ({ id, name: id, crop: new Blob(["crop"]), shape: null, mm_per_px: 1 });
  const reply = (decision) => ({ decision, score: 0.5, threshold: 0.6 });
  await keepJudged(roi, part("marked"), reply("ok"));
  await changeJudged((await judgedParts(roi))[0], { truth: "bad" });
  await keepJudged(roi, part("rejected"), reply("ng"));
  for (let k = 0; k < n; k++) await keepJudged(roi, part(`part ${k}`), reply("ok"));
  await keepJudged(roi, part("marked"), reply("ng"));  // judged again
  const parts = await judgedParts(roi);
  const marked = parts.find(({ id }) => id === "marked");
  return { n: parts.length, marked, names: parts.map(({ id }) => id), lost: lost.n };
}"""


def test_a_browser_keeps_so_many_parts_and_the_marked_ones_longest(chromium: Any) -> None:
    with pages(PAGES) as server, contextlib.closing(chromium.new_page()) as page:
        page.goto(f"{server.address}/pages/compare.html")
        found = page.evaluate(_FILL, [ROI, 1080])
    assert 1000 <= found["n"] < 1040
    assert {"marked", "rejected", "part 1079"} <= set(found["names"])
    assert "part 0" not in found["names"]
    assert (found["marked"]["truth"], found["marked"]["decision"], found["lost"]) == ("bad", "ng", 0)
