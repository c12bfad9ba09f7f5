"""A models folder and a browser with every state of the console, of drawn pictures: nothing of anybody is shown."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import numpy.typing as npt
from playwright.sync_api import Page, expect

from backend.block_memory import BlockMemory, Landings, Memory
from backend.common.roi_key import RoiKey
from backend.disk.datasets import LABELS, DatasetStore, Label, Sample
from backend.disk.drift_files import DriftFiles
from backend.disk.fitted import FittedRoi
from backend.disk.memory_file import memory_id
from backend.patchcore import PatchCoreMemory
from backend.service.drift import DriftLog
from backend.storage import ModelStore
from harness.server import Server
from tests.console.line import FULL, done
from tests.factories import encoded

WIDTH, HEIGHT = 400, 300
N_GOOD, N_BAD = 16, 5
N_ROIS, N_STORED = 200, 10_000
MM_PER_PX = 0.25
_WORK_MS = 120_000
_ROLE = "Inspection"
_ANCHOR = "hole"


def ids(recipe: str, roi: str = "inspection-1") -> dict[str, str]:
    """The ids of a ROI, as requests name it."""
    return {"recipe_id": recipe, "role_id": _ROLE, "roi_id": roi, "model_key": roi}


LINE = "washer m8"
READY, BORE, UNCALIBRATED, UNFITTED, DRAWN, DRIFTING = (ids(LINE, f"inspection-{number}") for number in range(1, 7))
"""ROIs of one recipe: that judges; the same without pictures in the browser; without a threshold; with pictures alone;
without pictures; whose parts changed."""
_NAMES = ("Washer, whole", "Bore", "Rim", "Thread", "Marking", "Bolt holes")
NEW, MANY, STORED, LIVE, LARGE = ids("new product"), ids("board"), ids("archive"), ids("press"), ids("plate")
"""A ROI that is only named; the first of 200; one of 10,000 images; one that judges alone; a large one."""


def washer(seed: int, defect: str = "") -> npt.NDArray[np.uint8]:
    """A drawn part on a belt, uint8 [300, 400, 3].

    Args:
        seed: of its place, turn and noise.
        defect: ``"scratch"``, ``"stain"`` or ``"chip"``; none for a good part.
    """
    rng = np.random.default_rng(seed)
    picture = np.full((HEIGHT, WIDTH, 3), (150, 146, 140), np.uint8)
    x, y = rng.normal((200, 150), 1.0)
    turn = rng.normal(0, 2)

    def disc(radius: float, grey: int, along: float = 0.0, angle: float = 0.0) -> None:
        where = x + along * np.cos(np.deg2rad(angle)), y + along * np.sin(np.deg2rad(angle))
        centre = int(where[0] * 16), int(where[1] * 16)
        cv2.circle(picture, centre, int(radius * 16), (grey + 6, grey + 2, grey), -1, cv2.LINE_AA, 4)

    disc(104, 92)
    disc(100, 196)
    disc(84, 176)
    disc(46, 92)
    disc(42, 140)
    for hole in range(6):
        disc(9, 88, 66, 60 * hole + turn)
    if defect == "scratch":
        cv2.polylines(picture, [np.array([(232, 196), (262, 178), (276, 142)])], False, (240, 242, 244), 3, cv2.LINE_AA)
    elif defect == "stain":
        cv2.ellipse(picture, (148, 190), (24, 15), 30, 0, 360, (52, 66, 92), -1, cv2.LINE_AA)
    elif defect == "chip":
        cv2.fillPoly(picture, [np.array([(286, 92), (250, 104), (262, 128), (312, 118)])], (150, 146, 140), cv2.LINE_AA)
    soft = cv2.GaussianBlur(picture, (0, 0), 1.0).astype(np.int16)
    return np.clip(soft + rng.normal(0, 2.0, picture.shape) + rng.normal(0, 1), 0, 255).astype(np.uint8)


def drawn_parts(folder: Path) -> tuple[Path, list[Path]]:
    """Pictures of parts as files: a folder with good/ and bad/ for samples, and fresh ones to be judged."""
    defects = ("scratch", "stain", "chip")
    pictures = {f"parts/good/washer-{n + 1:03}.png": washer(n) for n in range(N_GOOD)}
    pictures |= {f"parts/bad/{defects[n % 3]}-{n + 1:03}.png": washer(100 + n, defects[n % 3]) for n in range(N_BAD)}
    fresh = ("", "stain", "scratch", "")
    pictures |= {f"fresh/part-{n + 1:04}.png": washer(200 + n, defect) for n, defect in enumerate(fresh)}
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture)
    return folder / "parts", sorted((folder / "fresh").iterdir())


def _place(cx: float, cy: float, w: float, h: float, kind: str = "rect", r_inner: float = 10) -> dict[str, Any]:
    """Where a ROI lies, in pixels; a circle or a ring is as wide as `w`."""
    return {"kind": kind, "cx": cx, "cy": cy, "w": w, "h": h, "r": w / 2, "r_inner": r_inner, "angle_deg": 0}


_WHOLE = _place(200, 150, 240, 240)
_PLACES = [
    _WHOLE,
    _place(200, 150, 88, 88, "circle"),
    _place(40, 250, 60, 60, "annulus", 18),
    _place(40, 60, 60, 40),
    _place(360, 60, 60, 40),
    _place(360, 250, 60, 40),
]
_GRID = [_place(10 + 20 * (number % 20), 15 + 30 * (number // 20), 16, 24) for number in range(N_ROIS)]


def layout(
    rois: Sequence[dict[str, str]],
    names: Sequence[str],
    places: Sequence[dict[str, Any]],
    picture: tuple[int, int] = (WIDTH, HEIGHT),
) -> dict[str, Any]:
    """A layout of the console."""
    facts = {"mm_per_px": MM_PER_PX, "picture": {"width": picture[0], "height": picture[1]}}
    return {
        "format": "roi-anomaly-console",
        "version": 1,
        "rois": [
            {name: roi[name] for name in ("role_id", "roi_id", "model_key")} | {"name": called, "roi": place} | facts
            for roi, called, place in zip(rois, names, places, strict=True)
        ],
    }


def put_layout(client: httpx.Client, recipe: str, content: dict[str, Any]) -> None:
    """Store a layout."""
    done(client.put("/layout", params={"recipe_id": recipe}, json=content, headers={"If-None-Match": "*"}))


def _cut_by_anchor(datasets: DatasetStore, roi: dict[str, str], samples: Sequence[Sample]) -> None:
    """Store what a model was fitted on as cut where an anchor was found."""
    folder = datasets.folder(_key(roi)) / "ok"
    folder.mkdir(parents=True)
    for sample in samples:
        os.link(sample.path, folder / sample.path.name)
        metadata = sample.metadata()
        cut = json.dumps([*json.loads(metadata["console_cut"]), _ANCHOR], separators=(",", ":"))
        text = json.dumps(metadata | {"console_cut": cut})
        (folder / f"{sample.path.name}.json").write_text(text, encoding="utf-8")


def _anchored(client: httpx.Client, recipe: str, content: dict[str, Any]) -> None:
    """Store a layout whose ROIs follow a bolt hole and what lies around it."""
    cx, cy, side = 258, 108, 72
    frame = {"cx": cx, "cy": cy, "w": side, "h": side, "search_px": 12, "search_deg": 6, "least_score": 0.8}
    template = washer(0)[cy - side // 2 : cy + side // 2, cx - side // 2 : cx + side // 2]
    name = {"recipe_id": recipe, "name": f"anchor-{_ANCHOR}"}
    kind = {"Content-Type": "image/png"}
    done(client.put("/layout/picture", params=name, content=encoded(template), headers=kind))
    put_layout(
        client, recipe, content | {"anchor": {"id": _ANCHOR, **frame, "picture": {"width": WIDTH, "height": HEIGHT}}}
    )


def furnish(server: Server, page: Page, folder: Path) -> None:
    """Bring a ROI from pictures to a threshold in the console, and make the other states of it.

    Args:
        server: with the key `FULL`.
        page: in the browser that keeps the pictures.
        folder: for the pictures.
    """
    parts, fresh = drawn_parts(folder)
    with server.client() as client:
        client.headers["X-API-Key"] = FULL
        rois = READY, BORE, UNCALIBRATED, UNFITTED, DRAWN, DRIFTING
        put_layout(client, LINE, layout(rois, _NAMES, _PLACES))
        _store(page, server.address, parts)
        fit = READY | {"mm_per_px": str(MM_PER_PX), "use_dataset": "true", "profile": "recommended"}
        done(client.post("/fit_ok", files={name: (None, value) for name, value in fit.items()}))
        for choice in ({"threshold": 0.5}, {"rule": "recommended"}):  # so that Health has a model to roll back to
            body = READY | {"require_ng": False, "default_mm_per_px": MM_PER_PX} | choice
            done(client.post("/calibrate_dataset", json=body))
        _copy_states(server.models)
        names = [f"Joint {n + 1}" for n in range(N_ROIS)]
        put_layout(client, MANY["recipe_id"], layout(_many(), names, _GRID))
        put_layout(client, STORED["recipe_id"], layout([STORED], ["Ten thousand"], [_WHOLE]))
        large = layout([LARGE], ["Plate"], [_place(1224, 1024, 2400, 2000)], (2448, 2048))
        put_layout(client, LARGE["recipe_id"], large)
        _anchored(client, LIVE["recipe_id"], layout([LIVE], ["Washer, whole"], [_WHOLE]))
    page.goto(
        f"{server.address}/#/inspect?{httpx.QueryParams(recipe=READY['recipe_id'], role=_ROLE, roi=READY['roi_id'])}"
    )
    page.locator("input[type=file][accept]").first.set_input_files(fresh)
    expect(page.locator(".part")).to_have_count(len(fresh), timeout=_WORK_MS)


def _store(page: Page, address: str, parts: Path) -> None:
    query = httpx.QueryParams(recipe=READY["recipe_id"], role=_ROLE, roi=READY["roi_id"])
    page.goto(f"{address}/#/roi?{query}")
    expect(page.locator(".drop:visible")).to_be_visible(timeout=_WORK_MS)  # or it is drawn before the layout is known
    page.locator("input[webkitdirectory]").first.set_input_files(parts)
    expect(page.locator(".strip-cell")).to_have_count(N_GOOD + N_BAD, timeout=_WORK_MS)
    page.goto(f"{address}/#/samples?{query}")
    for name, all_of_it in (("parts/good", "All good"), ("parts/bad", "All bad")):
        page.locator(".folder-row", has_text=name).get_by_role("button", name=all_of_it).click()
    expect(page.get_by_text("All decisions are stored")).to_be_visible(timeout=_WORK_MS)


def _many() -> list[dict[str, str]]:
    return [ids(MANY["recipe_id"], f"inspection-{n + 1}") for n in range(N_ROIS)]


def _copy_states(models: Path) -> None:
    """What takes long by hand: 200 ROIs, 10,000 images, and parts that changed, by the service's own storage."""
    store, datasets = ModelStore(models), DatasetStore(models)
    ready = store.load(_key(READY))
    assert ready is not None
    assert ready.calibration is not None
    samples = {label: datasets.samples(_key(READY), label) for label in LABELS}
    small = _small(ready.memory)
    for number, roi in enumerate(_many()):
        _fill(datasets, roi, "ok", samples["ok"], 12)
        if number % 7 != 3:
            _save(store, roi, small, ready, is_calibrated=number % 7 != 5)
    _fill(datasets, STORED, "ok", samples["ok"], N_STORED - 200)
    _fill(datasets, STORED, "ng", samples["ng"], 200)
    _fill(datasets, LARGE, "ok", samples["ok"], 12)
    _save(store, STORED, ready.memory, ready)
    _save(store, LIVE, ready.memory, ready)
    _cut_by_anchor(datasets, LIVE, samples["ok"])
    for scores in datasets.folder(_key(READY)).glob(".scores-*"):  # of the same pictures by the same memory bank
        shutil.copy(scores, datasets.folder(_key(STORED)))
    for roi, n_good in ((BORE, 24), (UNCALIBRATED, 12), (UNFITTED, 11), (DRIFTING, 40)):
        _fill(datasets, roi, "ok", samples["ok"], n_good)
        if roi is not UNFITTED:
            _save(store, roi, ready.memory, ready, is_calibrated=roi is not UNCALIBRATED)
    log = DriftLog(DriftFiles(models), store, 0.01)
    rng = np.random.default_rng(5)
    for roi, shift in ((READY, 0.0), (DRIFTING, 0.02)):
        fitted = store.load(_key(roi))
        assert fitted is not None
        assert fitted.calibration is not None
        for at, share in enumerate(rng.normal(0.955, 0.012, 400)):  # of the threshold
            log.record(_key(roi), fitted, fitted.calibration.threshold * float(share + (shift if at >= 200 else 0)))
    log.close()


def _key(roi: dict[str, str]) -> RoiKey:
    return RoiKey(roi["role_id"], roi["roi_id"], roi["recipe_id"], roi["model_key"])


def _small(memory: Memory) -> Memory:
    """A memory bank of the same kind with a few embeddings, to be stored 200 times."""
    assert isinstance(memory, BlockMemory)
    banks = [PatchCoreMemory.build(bank.embeddings[:32].copy(), bank.token_hw, 1.0) for bank in memory.banks]
    return BlockMemory(tuple(banks), (Landings.none(32),) * len(banks))


def _save(
    store: ModelStore, roi: dict[str, str], memory: Memory, like: FittedRoi, *, is_calibrated: bool = True
) -> None:
    assert like.calibration is not None
    metadata = {name: value for name, value in like.metadata.items() if name not in roi}  # it says whose it is
    calibration = replace(like.calibration, memory_id=memory_id(memory)) if is_calibrated else None
    store.save_memory(_key(roi), memory, metadata, calibration=calibration)


def _fill(datasets: DatasetStore, roi: dict[str, str], label: Label, samples: Sequence[Sample], n: int) -> None:
    """Store images `n` times in all, each a hard link to one of `samples`: what counts is how many there are."""
    folder = datasets.folder(_key(roi)) / label
    folder.mkdir(parents=True)
    for number in range(n):
        path = samples[number % len(samples)].path
        name = f"2026110{1 + LABELS.index(label)}-080000-{number:06}-{number:08x}"
        for suffix in (".png", ".png.json"):
            os.link(path.with_name(path.stem + suffix), folder / (name + suffix))
