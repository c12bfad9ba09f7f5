"""A fit that is cancelled in the console ends in the service, too."""

import re
from typing import Any

from playwright.sync_api import expect

from harness.server import Server
from tests.console.line import NO_LAYOUT_YET, ROI, Watched, done, metas
from tests.factories import encoded, smooth_parts

_FIT_MS = 60_000
_N_MORE = 60
"""Samples beside the ten that are stored, so that the fit takes seconds."""


def test_cancelled_fit_ends_and_the_model_before_it_stays(chromium: Any, judging: Server, tmp_path: Any) -> None:
    files = [tmp_path / f"more{number}.png" for number in range(_N_MORE)]
    with judging.client() as client:
        form = [("images", (file.name, encoded(part))) for file, part in zip(files, smooth_parts(_N_MORE), strict=True)]
        done(client.post("/datasets/ok/upload", data=ROI | {"metas": metas(files)}, files=form))
        before = done(client.get("/state", params=ROI))
    watched = Watched(chromium, judging)
    watched.open("samples")
    page = watched.page
    page.get_by_role("button", name=re.compile("^Fit (again )?on")).click()
    cancel = page.get_by_role("button", name="Cancel")
    expect(page.get_by_text("Looking at picture")).to_be_visible(timeout=_FIT_MS)
    cancel.click()
    expect(page.get_by_text("The fit was cancelled. Nothing was stored")).to_be_visible(timeout=_FIT_MS)
    expect(cancel).to_be_hidden()
    with judging.client() as client:
        assert done(client.get("/runs"))["runs"] == []
        assert done(client.get("/state", params=ROI)) | {"request_id": ""} == before | {"request_id": ""}
    watched.close(NO_LAYOUT_YET, "409 /fit_ok")
