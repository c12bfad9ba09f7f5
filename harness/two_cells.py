"""A recipe of two ROIs on one picture, and pictures for it: two solar cells side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np

from harness.images import Image, png, solar_cells

RECIPE = "two cells"
ROIS = ("left", "right")
_SIDE = 300
_N_GOOD = 10
_FORMAT = {"format": "roi-anomaly-console", "version": 1}


@dataclass(frozen=True)
class Picture:
    """A picture of both ROIs.

    Attributes:
        name: of its file.
        png: the file, 300 × 600 pixels.
        crops: by ROI, what is cut out of it, uint8 [300, 300, 3], BGR.
        bad: the ROIs that show a defect.
    """

    name: str
    png: bytes
    crops: dict[str, Image]
    bad: frozenset[str]

    def write(self, folder: Path) -> Path:
        """Write it as a file of `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / self.name
        file.write_bytes(self.png)
        return file


def ids(roi: str) -> dict[str, str]:
    """The fields that name a ROI of the recipe."""
    return {"recipe_id": RECIPE, "role_id": "Inspection", "roi_id": roi, "model_key": roi}


def pictures(count: int) -> list[Picture]:
    """Pictures that all differ; of each four one has a defect in the right ROI, and one has one in the left."""
    cells = solar_cells(2 * _N_GOOD)
    made = []
    for number in range(count):
        bad = {1: frozenset({"right"}), 3: frozenset({"left"})}.get(number % 4, frozenset())
        at = number % _N_GOOD
        crops = {"left": cells[at].copy(), "right": cells[at + _N_GOOD].copy()}
        for roi, crop in crops.items():
            crop[0, :16] = [[60 + 90 * (number >> bit & 1)] * 3 for bit in range(16)]  # no two pictures are the same
            if roi in bad:
                cv2.circle(crop, (150, 150), 34, (255, 255, 255), -1)
        made.append(Picture(f"part-{number:04}.png", png(np.hstack([crops["left"], crops["right"]])), crops, bad))
    return made


def prepare(client: httpx.Client) -> None:
    """Store samples of both ROIs, fit and calibrate them, and store the layout in which the console draws them.

    Raises:
        httpx.HTTPStatusError: the service refused something.
    """
    cells = solar_cells(2 * _N_GOOD)
    for roi, good in zip(ROIS, (cells[:_N_GOOD], cells[_N_GOOD:]), strict=True):
        form = [("images", (f"{number}.png", png(cell))) for number, cell in enumerate(good)]
        client.post("/datasets/ok/upload", data=ids(roi), files=form).raise_for_status()
        fit = ids(roi) | {"mm_per_px": "1", "use_dataset": "true", "profile": "recommended"}
        client.post("/fit_ok", files={name: (None, value) for name, value in fit.items()}).raise_for_status()
        body = ids(roi) | {"require_ng": False, "default_mm_per_px": 1, "rule": "recommended"}
        client.post("/calibrate_dataset", json=body).raise_for_status()
    layout = _FORMAT | {"rois": [_drawn(roi, at) for at, roi in enumerate(ROIS)]}
    client.put("/layout", params={"recipe_id": RECIPE}, json=layout, headers={"If-None-Match": "*"}).raise_for_status()


def _drawn(roi: str, at: int) -> dict[str, Any]:
    names = {name: value for name, value in ids(roi).items() if name != "recipe_id"}
    half = _SIDE / 2
    place = {"cx": half + at * _SIDE, "cy": half, "w": _SIDE, "h": _SIDE, "r": half, "r_inner": 0, "angle_deg": 0}
    size = {"width": 2 * _SIDE, "height": _SIDE}
    return names | {"name": roi.capitalize(), "mm_per_px": 1, "roi": {"kind": "rect"} | place, "picture": size}
