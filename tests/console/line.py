"""A service with real parts, and a browser before it that notices everything that goes wrong on a page."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import expect

import harness.server
from demo.cells import split_cells
from harness.server import Server
from tests.factories import SHARED

HAZELNUT = SHARED / "data" / "hazelnut"
FULL, INFER = "full-key-of-the-tests", "infer-key-of-the-tests"
ROI = {"recipe_id": "default", "role_id": "Inspection", "roi_id": "inspection-1", "model_key": "inspection-1"}
# What a page says where the service was asked for a layout and there is none yet.
NO_LAYOUT_YET = "404 /layout"
Serve = Callable[..., AbstractContextManager[Server]]
"""Starts a service; takes `folder` and settings, as `harness.server.serving` does."""

_TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy ${event.violatedDirective} ${event.blockedURI}`);
});"""


class Parts:
    """Real parts as files: good ones to fit on, good and bad ones to look at.

    Attributes:
        folder: with folders good/ and bad/, of the parts that become samples.
        fresh: files of good parts that were in no fit, then of bad ones.
    """

    def __init__(self, folder: Path, n_good: int = 10, n_bad: int = 4) -> None:
        self.folder = folder / "parts"
        good, bad, fresh = _hazelnuts(n_good, n_bad) if HAZELNUT.is_dir() else _cells(n_good, n_bad)
        self.good = _written(self.folder / "good", good)
        self.bad = _written(self.folder / "bad", bad)
        self.fresh = _written(folder / "fresh", fresh)


def _hazelnuts(n_good: int, n_bad: int) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    def read(place: str, prefix: str) -> list[tuple[str, bytes]]:
        return [(prefix + file.name, file.read_bytes()) for file in sorted((HAZELNUT / place).glob("*.jpg"))]

    train = [part for part in read("train/good", "good-") if part[0] != "good-01.jpg"]  # which has another size
    test, bad = read("test/good", "fresh-good-"), read("test/colour", "bad-")
    return dict(train[:n_good]), dict(bad[:n_bad]), dict(test[:2] + bad[n_bad : n_bad + 2])


def _cells(n_good: int, n_bad: int) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    split = split_cells(n_good, n_bad, 2)
    named = {cell.name: cell.png for part in (split.fit, split.calibrate, split.test) for cell in part}
    good = [cell.name for cell in split.fit]
    bad = [cell.name for cell in split.calibrate if cell.defective]
    fresh = [cell.name for cell in split.test]
    return tuple({name: named[name] for name in names} for names in (good, bad, fresh))  # type: ignore[return-value]


def _written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return sorted(folder.iterdir())


@contextlib.contextmanager
def on_port(serve: Serve, port: int, models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A service on a port that was chosen, so that a page finds it again after it was ended."""
    monkeypatch.setattr(harness.server, "free_port", lambda: port)
    with serve(MODELS_DIR=str(models)) as server:
        yield server


def prepare(server: Server, parts: Parts, key: str = "") -> None:
    """Store whole pictures as samples of `ROI`, fit and calibrate, as any client may."""
    with server.client() as client:
        client.headers["X-API-Key"] = key
        for label, files in (("ok", parts.good), ("ng", parts.bad)):
            form = [("images", (file.name, file.read_bytes())) for file in files]
            done(client.post(f"/datasets/{label}/upload", data=ROI | {"metas": metas(files)}, files=form))
        fit = ROI | {"mm_per_px": "1", "use_dataset": "true", "profile": "recommended"}
        done(client.post("/fit_ok", files={name: (None, value) for name, value in fit.items()}))
        calibrate(client)


def metas(files: Sequence[Path]) -> str:
    """The metadata of uploads, one array."""
    return json.dumps([{"filename": file.name, "mm_per_px": 1} for file in files])


def calibrate(client: httpx.Client, **choice: Any) -> dict[str, Any]:
    """Choose a threshold from the stored samples."""
    body = ROI | {"require_ng": False, "default_mm_per_px": 1} | (choice or {"rule": "recommended"})
    return done(client.post("/calibrate_dataset", json=body))


def done(reply: httpx.Response) -> dict[str, Any]:
    """The JSON of a reply that succeeded.

    Raises:
        AssertionError: it did not.
    """
    assert reply.is_success, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


class Watched:
    """A page of a browser of its own, and what it complains about.

    Attributes:
        page: playwright's.
        complaints: of the console, of scripts, and of the page's policy, shortened to what is told apart.
    """

    def __init__(self, browser: Any, server: Server | str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1440, "height": 1000}, **context)
        self.complaints: list[str] = []
        self.address = server if isinstance(server, str) else server.address
        self.page = self.tab()

    def tab(self) -> Any:
        """Another page of the same browser."""
        page = self.context.new_page()
        page.add_init_script(_TELL_VIOLATIONS)
        page.on("pageerror", lambda error: self.complaints.append(f"script {error}"))
        page.on("console", self._heard)
        return page

    def _heard(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        text: str = message.text
        if text.startswith("Failed to load resource"):
            path = httpx.URL(message.location["url"]).path
            status = text.partition("status of ")[2][:3] or text.rpartition("::")[2]
            text = f"{status} {path}"
        self.complaints.append(text)

    def open(self, screen: str = "line", roi: dict[str, str] = ROI) -> None:
        """Open a screen."""
        query = httpx.QueryParams(recipe=roi["recipe_id"], role=roi["role_id"], roi=roi["roi_id"])
        self.page.goto(f"{self.address}/#/{screen}?{query}")

    def close(self, *allowed: str) -> None:
        """Close the browser.

        Raises:
            AssertionError: the pages complained about something else than `allowed`.
        """
        self.context.close()
        left = [text for text in self.complaints if text not in allowed]
        assert not left, left


def drawing(chromium: Any, address: Server | str, parts: Parts, roi: dict[str, str] = ROI) -> Watched:
    """A station on which the ROI is the whole picture."""
    watched = Watched(chromium, address)
    watched.open("roi", roi)
    watched.page.locator("input[type=file][accept]").first.set_input_files(parts.good[:2])
    expect(watched.page.get_by_label("Width (px)")).to_be_visible(timeout=30_000)
    expect(watched.page.get_by_text("Saved", exact=True)).to_be_visible(timeout=30_000)
    return watched
