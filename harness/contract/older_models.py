"""A models folder of older backends, layouts L0 to L4, for a service and for ``migrate``."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from harness.contract.pictures import crop, part, scratched

OLDER_DIMENSION, DIMENSION = 1152, 384
OLDER_GRID, GRID = (32, 32), (8, 8)  # that of `INPUT_SIZE` in `checkout`
CALIBRATION = {"threshold": 0.75, "p99_ok": 0.6, "p5_ng": 0.9, "mm_per_px": 0.2, "area_mm2_thr": 1.0}


def stem(role: str, roi: str) -> str:
    """The name that L2 and later give the files of a ROI."""
    return "__".join(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (role, roi))


def write_models(root: Path) -> None:
    """Write a model of each layout that the service refuses, some that it serves, and damaged files."""
    _memory(root / "Old L0/Pattern/memory.npz")
    _json(root / "Old L0/Pattern/calib.json", CALIBRATION)
    _memory(root / "Old_L1_Pattern.npz")
    _memory(root / f"{stem('Old L2', 'Pattern')}.npz")
    _memory(root / f"recipes/Line 3/Key3/{stem('Old L3', 'Pattern')}.npz", metadata=np.array('{"role":"Old L3"}'))
    _memory(root / f"recipes/line-4/Pattern/{stem('Old L4', 'Pattern')}.npz")
    _json(root / "recipes/line-4/recipe_meta.json", {"mm_per_px": 0.5, "created_at_utc": "2026-01-07T10:11:12Z"})
    _memory(root / f"{stem('Old served', 'Pattern')}.npz", DIMENSION, GRID)
    _json(root / f"{stem('Old served', 'Pattern')}_calib.json", {**CALIBRATION, "score_percentile": 99})
    _memory(root / f"{stem('Old grid', 'Pattern')}.npz", DIMENSION, (37, 37))
    _memory(root / f"{stem('Old length', 'Pattern')}.npz", DIMENSION, GRID, length=2)
    _bytes(root / f"{stem('Damaged', 'Memory')}.npz", b"PK\x03\x04 and no more")
    _memory(root / f"{stem('Damaged', 'Calibration')}.npz", DIMENSION, GRID)
    _bytes(root / f"{stem('Damaged', 'Calibration')}_calib.json", b'{"thresh')


def write_folder_to_migrate(root: Path) -> None:
    """Write models, calibrations, locked recipes and stored images, of which one is none."""
    write_models(root)
    for label, of in (("ok", part), ("ng", scratched)):
        folder = root / f"recipes/Line 3/datasets/{stem('Old L3', 'Pattern')}/{label}"
        for number in range(4):
            name = f"shot {number}"
            _bytes(folder / f"{name}.png", crop(number, of))
            shape = json.dumps({"kind": "circle", "cx": 75, "cy": 60, "r": 50.5})
            _json(folder / f"{name}.json", {"filename": f"{name}.png", "mm_per_px": 0.2, "shape_json": shape})
    for number in range(2):
        _bytes(root / f"datasets/Old L2/Pattern/ok/{number}.png", crop(number))
    _bytes(root / "datasets/Old L2/Pattern/ok/3.png", b"this is no image")
    _bytes(root / "datasets/Old L2/Pattern/ng/CON.png", crop(5, scratched))
    for number in range(3):
        _bytes(root / f"recipes/line-4/datasets/{stem('Master', 'Inspection_1')}/ok/{number}.png", crop(number))
    _json(root / "recipes/broken/recipe_meta.json", {"mm_per_px": None})


def _memory(
    path: Path,
    dimension: int = OLDER_DIMENSION,
    grid: tuple[int, int] = OLDER_GRID,
    *,
    length: float = 1.0,
    **more: Any,
) -> None:
    embeddings = np.random.default_rng(dimension).normal(size=(40, dimension)).astype(np.float32)
    embeddings *= length / np.linalg.norm(embeddings, axis=1, keepdims=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, emb=embeddings, token_h=grid[0], token_w=grid[1], **more)


def _json(path: Path, value: object) -> None:
    _bytes(path, json.dumps(value).encode())


def _bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
