"""A fit that ends without a model and without a reply: the console says so."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from harness.server import Server, free_port
from tests.console.line import NO_LAYOUT_YET, ROI, Serve, Watched, done, metas, on_port
from tests.factories import encoded, smooth_parts

_FIT_MS = 120_000
_N_SAMPLES = 60
"""So that the fit takes seconds."""
_SAY_MS = 10_000
# The head of a reply, and an error instead of its body.
_BROKEN_REPLY = """async (status) => {
  const { call } = await import("/console/api.js");
  const real = fetch;
  const body = () => new ReadableStream({ start: (stream) => stream.error(new TypeError("network error")) });
  globalThis.fetch = async () => new Response(body(), { status });
  try {
    return await call("runs", { quiet: true });
  } catch (problem) {
    return [problem.name, problem.status, problem.code];
  } finally {
    globalThis.fetch = real;
  }
}"""
_PROBLEM = """async () => {
  const { call } = await import("/console/api.js");
  return call("runs", { quiet: true }).catch((problem) => [problem.name, problem.status, problem.message]);
}"""
_AWAY = "Whether the fit goes on shows when it is back."


def _store_samples(server: Server, folder: Path) -> None:
    files = [folder / f"part{number}.png" for number in range(_N_SAMPLES)]
    with server.client() as client:
        form = [
            ("images", (file.name, encoded(one))) for file, one in zip(files, smooth_parts(len(files)), strict=True)
        ]
        done(client.post("/datasets/ok/upload", data=ROI | {"metas": metas(files)}, files=form))


def _begin(page: Page) -> None:
    page.get_by_role("button", name=re.compile("^Fit (again )?on")).click()
    expect(page.get_by_text("Looking at picture")).to_be_visible(timeout=_FIT_MS)


@pytest.mark.parametrize(
    ("has_model", "what_is_left"),
    [
        pytest.param(False, "There is no model yet.", id="first fit", marks=pytest.mark.long),
        pytest.param(True, "The model before it is still in use.", id="second fit"),
    ],
)
def test_a_service_that_is_killed_in_a_fit_is_said_to_have_stopped(
    has_model: bool,
    what_is_left: str,
    chromium: Any,
    serve: Serve,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, port = tmp_path / "models", free_port()
    if has_model:
        shutil.copytree(models, folder)
    with on_port(serve, port, folder, monkeypatch) as server:
        _store_samples(server, tmp_path)
        watched = Watched(chromium, server)
        watched.open("samples")
        _begin(watched.page)
        server.process.kill()
        expect(watched.page.get_by_text(_AWAY)).to_be_visible(timeout=_SAY_MS)
    with on_port(serve, port, folder, monkeypatch):
        said = f"The service stopped during the fit. {what_is_left} Start the fit again."
        expect(watched.page.get_by_text(said)).to_be_visible(timeout=_FIT_MS)
        _begin(watched.page)
        expect(watched.page.get_by_text(said)).to_be_hidden()
        watched.page.reload()  # its reply is lost, and the fit is not
        expect(watched.page.get_by_text("Looking at picture")).to_be_visible(timeout=_FIT_MS)
        watched.page.get_by_role("button", name="Cancel").click()
        expect(watched.page.get_by_text("The fit ended without a new model.")).to_be_visible(timeout=_FIT_MS)
        watched.close(NO_LAYOUT_YET, *(text for text in watched.complaints if text.startswith("ERR_")))


def test_a_fit_that_was_cancelled_elsewhere_is_told_after_a_reload(
    chromium: Any, judging: Server, tmp_path: Path
) -> None:
    _store_samples(judging, tmp_path)
    watched = Watched(chromium, judging)
    watched.open("samples")
    _begin(watched.page)
    watched.page.reload()
    expect(watched.page.get_by_text("Looking at picture")).to_be_visible(timeout=_FIT_MS)
    with judging.client() as client:
        (run,) = done(client.get("/runs"))["runs"]
        done(client.post("/runs/cancel", json={"run_id": run["run_id"]}))
    said = "The fit ended without a new model. The model before it is still in use. Start the fit again."
    expect(watched.page.get_by_text(said)).to_be_visible(timeout=_FIT_MS)
    watched.close(NO_LAYOUT_YET)


def test_a_page_of_somebody_else_is_no_lost_connection(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("samples")
    watched.page.route(re.compile("/runs$"), lambda route: route.fulfill(body="<h1>Please log in</h1>"))
    told = watched.page.evaluate(_PROBLEM)
    assert told == [
        "ApiError",
        200,
        "The reply (status 200) is none of the service. Check what stands between this computer and it.",
    ]
    watched.close(NO_LAYOUT_YET)


@pytest.mark.parametrize("status", [200, 503])
def test_a_reply_that_breaks_off_counts_as_no_answer(status: int, chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("samples")
    assert watched.page.evaluate(_BROKEN_REPLY, status) == ["ApiError", 0, "unreachable"]
    watched.close(NO_LAYOUT_YET)


def test_a_fit_whose_end_could_not_be_told_is_not_begun(chromium: Any, judging: Server) -> None:
    watched = Watched(chromium, judging)
    watched.open("samples")
    page = watched.page
    fits: list[str] = []
    page.on("request", lambda request: request.url.endswith("/fit_ok") and fits.append(request.url))
    button = page.get_by_role("button", name=re.compile("^Fit again on"))
    expect(button).to_be_visible(timeout=_FIT_MS)
    is_versions = re.compile(r"/versions\?")
    page.route(is_versions, lambda route: route.abort())
    button.click()
    expect(page.get_by_text("The service does not answer. Check that it runs")).to_be_visible(timeout=_FIT_MS)
    expect(button).to_be_enabled(timeout=_FIT_MS)
    assert fits == []
    page.unroute(is_versions)
    button.click()
    expect(page.get_by_text("Fitted on 10 good pictures.")).to_be_visible(timeout=_FIT_MS)
    assert len(fits) == 1
    watched.close(NO_LAYOUT_YET, "ERR_FAILED /versions")
