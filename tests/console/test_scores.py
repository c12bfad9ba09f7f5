"""The service's scores of what the console cuts out, with the real network."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.commands.watch.crop import Roi, crop
from backend.network.weights import Weights
from harness.forms import Form
from harness.pages import pages
from harness.server import serving
from tests.console.conftest import PAGES, Visit
from tests.console.pictures import decode, saved, swapped_profile

SIDE = 300
ROIS = [
    Roi("rect", 150, 150, w=180, h=140),
    Roi("rect", 148.5, 151.25, w=180, h=140, angle_deg=-23.7),
    Roi("annulus", 151, 149, r=100, r_inner=30, angle_deg=12.5),
]
IDS = {"role_id": "Console", "roi_id": "Crop", "mm_per_px": "0.2"}


def judged(client: Any, content: bytes, roi: Roi) -> dict[str, Any]:
    shape = {"shape": json.dumps(roi.shape)} if roi.shape else {}
    reply = Form.of("image", [content], **IDS, **shape).post(client, "/infer").raise_for_status().json()
    return {name: reply[name] for name in ("score", "heatmap_png_base64", "regions")}


@pytest.mark.slow
@pytest.mark.parametrize("visit", ["chromium", pytest.param("firefox", marks=pytest.mark.long)], indirect=True)
def test_the_crop_of_the_console_scores_as_numpys_to_the_last_digit(
    visit: Visit, images: list[np.ndarray], weights: Weights, tmp_path: Path
):
    parts = [Image.fromarray(cv2.resize(image, (SIDE, SIDE))[..., ::-1]) for image in images[:2]]
    pictures = {f"{number}.jpg": saved(part, "JPEG", quality=92) for number, part in enumerate(parts)}
    pictures["profile.png"] = saved(parts[0], "PNG", icc_profile=swapped_profile())
    asked = [(file, roi) for file in pictures for roi in ROIS]
    with pages(PAGES) as server:
        server.files.update(pictures)
        server.cases = [{"file": file, "roi": dataclasses.asdict(roi)} for file, roi in asked]
        visit(server, "/pages/compare.html")
        of_browser = [server.results[str(index)][1] for index in range(len(asked))]
    cut = [crop(decode(pictures[file]), roi) for file, roi in asked]
    of_numpy = [cv2.imencode(".png", image)[1].tobytes() for image in cut]
    with serving(folder=tmp_path, as_set=False, WEIGHTS=str(weights.path)) as service, service.client() as client:
        Form.of("images", of_numpy[:2], **IDS).post(client, "/fit_ok").raise_for_status()
        for (_, roi), browsers, numpys in zip(asked, of_browser, of_numpy, strict=True):
            assert browsers != numpys  # other bytes, and the same pixels
            assert judged(client, browsers, roi) == judged(client, numpys, roi)
        other = cv2.imencode(".png", cut[0] ^ 1)[1].tobytes()
        assert judged(client, other, ROIS[0])["score"] != judged(client, of_numpy[0], ROIS[0])["score"]
