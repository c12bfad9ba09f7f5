"""Examples of replies with several forms, for ``/docs``."""

from typing import Any

from backend.api.schemas.inspection import HEATMAP_EXAMPLE

Replies = dict[int | str, dict[str, Any]]

_INFERENCE = {
    "role_id": "Master1",
    "roi_id": "Pattern",
    "recipe_id": "default",
    "model_key": "Pattern",
    "score": 0.6121,
    "heatmap_png_base64": HEATMAP_EXAMPLE,
    "token_shape": [32, 32],
    "model": {
        "role_id": "Master1",
        "recipe_id": "default",
        "model_key": "Pattern",
        "layout": "current",
        "memory_id": "9f86d081884c7d659a2feaa0c55ad015",
    },
    "request_id": "0f8fad5b-d9cb-469f-a165-70867728950e",
}
_REGION = {
    "bbox": [41, 100, 23, 17],
    "x": 41,
    "y": 100,
    "w": 23,
    "h": 17,
    "area_px": 250.0,
    "area_mm2": 10.0,
    "contour": [[41, 100], [41, 116], [63, 116], [63, 100]],
}
INFER_EXAMPLES: dict[str, Any] = {
    "calibrated": {
        "value": {
            **_INFERENCE,
            "threshold": 0.5512,
            "decision": "ng",
            "calibration": "applied",
            "regions": [_REGION],
        }
    },
    "before calibration": {"value": {**_INFERENCE, "calibration": "none", "regions": []}},
}
METRICS_EXAMPLE: Replies = {
    200: {"content": {"text/plain": {"example": 'requests_total{endpoint="/infer",method="POST",status="200"} 42.0\n'}}}
}
METADATA_EXAMPLE: Replies = {
    200: {
        "description": "as they were sent",
        "content": {"application/json": {"example": {"filename": "part7.png", "label": "ok", "mm_per_px": 0.2}}},
    }
}
