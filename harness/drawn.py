"""A recipe whose ROIs were drawn, fitted and calibrated, as the console does it in a service."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from backend.commands.watch.crop import Roi

ROLE = "Inspection"


def ids_of(recipe: str, number: int) -> dict[str, str]:
    """The ids of the ROI of this number, from 1, as the console gives them."""
    roi_id = f"inspection-{number}"
    return {"recipe_id": recipe, "role_id": ROLE, "roi_id": roi_id, "model_key": roi_id}


def layout_of(rois: Mapping[str, Roi], size: tuple[int, int], mm_per_px: float) -> dict[str, Any]:
    """The layout of a recipe.

    Args:
        rois: by name.
        size: width and height of the pictures in which they were drawn.
        mm_per_px: millimetres per pixel.
    """
    drawn = [
        {name: value for name, value in ids_of("", number).items() if name != "recipe_id"}
        | {"name": title, "mm_per_px": mm_per_px, "roi": dataclasses.asdict(roi)}
        | {"picture": {"width": size[0], "height": size[1]}}
        for number, (title, roi) in enumerate(rois.items(), 1)
    ]
    return {"format": "roi-anomaly-console", "version": 1, "rois": drawn}


def cut_text(roi: Roi, anchor_id: str | None = None) -> str:
    """How crops were cut, as the console notes it: JavaScript writes whole numbers without a point."""
    cut = [*roi.cut, *([] if anchor_id is None else [anchor_id])]
    numbers = [int(value) if isinstance(value, float) and value.is_integer() else value for value in cut]
    return json.dumps(numbers, separators=(",", ":"))


def put_layout(client: httpx.Client, recipe: str, layout: dict[str, Any]) -> None:
    """Store a layout in place of the one that is there.

    Raises:
        httpx.HTTPStatusError: the service refuses it.
    """
    found = client.get("/layout", params={"recipe_id": recipe})
    condition = {"If-Match": found.headers["ETag"]} if found.is_success else {"If-None-Match": "*"}
    client.put("/layout", params={"recipe_id": recipe}, json=layout, headers=condition).raise_for_status()


def fit_drawn(
    client: httpx.Client,
    ids: Mapping[str, str],
    roi: Roi,
    crops: Sequence[bytes],
    mm_per_px: float,
    *,
    anchor_id: str | None = None,
    **form: str,
) -> None:
    """Store crops of good parts in place of those that are there, fit on them and choose a threshold.

    Args:
        client: of the service, with a key that may do everything.
        ids: see `ids_of`.
        roi: how they were cut.
        crops: image files.
        mm_per_px: millimetres per pixel.
        anchor_id: of the anchor by which they were found; None where there is none.
        form: further fields of the fit.

    Raises:
        httpx.HTTPStatusError: the service refuses it.
    """
    client.delete("/datasets/clear", params={**ids, "label": "ok"}).raise_for_status()
    shape = {"shape_json": json.dumps(roi.shape)} if roi.shape else {}
    metas: list[dict[str, Any]] = [
        {"filename": f"{number}.png", "mm_per_px": mm_per_px, "console_cut": cut_text(roi, anchor_id), **shape}
        for number in range(len(crops))
    ]
    files = [("images", (meta["filename"], crop)) for meta, crop in zip(metas, crops, strict=True)]
    client.post("/datasets/ok/upload", data={**ids, "metas": json.dumps(metas)}, files=files).raise_for_status()
    fields = {**ids, "mm_per_px": str(mm_per_px), "use_dataset": "true", **form}
    client.post("/fit_ok", files={name: (None, value) for name, value in fields.items()}).raise_for_status()
    body = {**ids, "require_ng": False, "default_mm_per_px": mm_per_px, "rule": "recommended"}
    client.post("/calibrate_dataset", json=body).raise_for_status()
