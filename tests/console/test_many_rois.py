"""Two hundred ROIs on Line: found by a few letters, and only what is in sight is asked for."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import expect

from tests.console.line import ROI, Serve, Watched, done

N_ROIS = 200
_LOAD_MS = 30_000


def _multiply(models: Path) -> None:
    """A picture of the first ROI for each of the others."""
    folder = models / "@recipes" / ROI["recipe_id"] / "datasets" / ROI["role_id"]
    picture = min((folder / ROI["roi_id"] / "ok").glob("*.jpg"), default=None)
    picture = picture or min((folder / ROI["roi_id"] / "ok").glob("*.png"))
    for number in range(2, N_ROIS + 1):
        roi_id = f"inspection-{number}"
        own = folder / roi_id / "ok"
        own.mkdir(parents=True)
        shutil.copy(picture, own)
        metadata = json.loads(Path(f"{picture}.json").read_text(encoding="utf-8"))
        text = json.dumps(metadata | {"roi_id": roi_id})
        (own / f"{picture.name}.json").write_text(text, encoding="utf-8")


def _layout() -> dict[str, Any]:
    roi = {"kind": "rect", "cx": 150, "cy": 150, "w": 100, "h": 100, "r": 50, "r_inner": 10, "angle_deg": 0}
    rois = [
        {
            "role_id": ROI["role_id"],
            "roi_id": f"inspection-{number}",
            "model_key": f"inspection-{number}",
            "name": f"Screw {number}",
            "mm_per_px": 1,
            "roi": roi,
            "picture": {"width": 300, "height": 300},
        }
        for number in range(1, N_ROIS + 1)
    ]
    return {"format": "roi-anomaly-console", "version": 1, "rois": rois}


def test_of_two_hundred_rois_one_is_found_by_letters(chromium: Any, models: Path, serve: Serve, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    _multiply(tmp_path / "models")
    with serve(folder=tmp_path) as server:
        with server.client() as client:
            query, headers = {"recipe_id": ROI["recipe_id"]}, {"If-None-Match": "*"}
            done(client.put("/layout", params=query, json=_layout(), headers=headers))
        watched = Watched(chromium, server)
        page = watched.page
        asked: Counter[str] = Counter()
        page.on("request", lambda request: asked.update([httpx.URL(request.url).path]))
        page.goto(server.address)
        cards = page.locator(".card")
        expect(cards).to_have_count(N_ROIS, timeout=_LOAD_MS)
        expect(cards.first.locator("img")).to_be_visible(timeout=_LOAD_MS)
        seen = page.locator(".card img")
        for _ in range(_LOAD_MS // 200):  # the pictures of all cards in sight, on a machine of any speed
            if asked["/datasets/file"] == asked["/datasets/list"] == seen.count():
                break
            page.wait_for_timeout(200)
        n_seen = seen.count()
        assert 0 < n_seen < N_ROIS / 4
        assert asked["/datasets/file"] == asked["/datasets/list"] == n_seen
        assert asked["/rois"] == asked["/layout"] == 1

        find = page.get_by_label("Find")
        find.fill("screw 17")
        expect(page.get_by_text(f"11 of {N_ROIS} ROIs")).to_be_visible()  # 17, and 170 to 179
        assert [title.removeprefix("Screw ")[:2] for title in cards.locator("h2").all_inner_texts()] == ["17"] * 11
        find.fill("ready to inspect")
        expect(cards).to_have_count(1)
        find.fill("nowhere")
        expect(page.get_by_text(f"0 of {N_ROIS} ROIs")).to_be_visible()
        find.fill("screw 200")
        cards.get_by_role("heading").get_by_role("link").press("Enter")
        expect(page.get_by_role("heading", name="Samples")).to_be_visible(timeout=_LOAD_MS)
        expect(page.locator(".sample img")).to_have_count(1, timeout=_LOAD_MS)
        before = Counter(asked)
        page.go_back()
        expect(page.locator(".card img")).to_have_count(n_seen, timeout=_LOAD_MS)
        assert asked["/datasets/file"] - before["/datasets/file"] == n_seen  # once each, though the list was read anew
        watched.close()
