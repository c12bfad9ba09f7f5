"""``GET /rois``: the time of a list of many ROIs, just after the start and later, against reading their banks.

``python -m benchmarks.rois`` stores 200 ROIs, each with a model of 34 images, a calibration, statistics of its
production and 39 stored images; ``--rois`` another number.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from backend.calib import calibrate
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.roi_key import RoiKey
from backend.disk.datasets import LABELS, NewSample
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.service.inspection import InspectionService
from backend.service.roi_list import list_rois
from backend.storage import ModelStore
from harness.measuring import interleaved, print_table

_N_IMAGES, _N_NG = 34, 5
_BANK = (697, 384)
_PAGE = 200
_ROUNDS = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rois", type=int, default=_PAGE)
    n_rois = parser.parse_args().rois
    configure_logging("error", "console")
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(models_dir=folder)
        service = InspectionService.open(settings)
        keys = [RoiKey(f"Master{number % 10}", f"Roi {number}", "line 1") for number in range(n_rois)]
        for key in keys:
            _store(service, key)
        first = _seconds(lambda: list_rois(_beside(service), None, 0, _PAGE))
        later = interleaved(
            {"names": lambda: list_rois(service, None, 0, 1), "list": lambda: list_rois(service, None, 0, _PAGE)},
            _ROUNDS,
        )
        banks = _seconds(lambda: [ModelStore(Path(folder)).load(key) for key in keys[:_PAGE]])
    rows = [
        ("the first list of a process", first),
        ("a later one", later["list"]),
        ("of these, the names of all ROIs", later["names"]),
        ("the memory banks, read once", banks),
    ]
    print_table(
        f"GET /rois of {n_rois} ROIs without HTTP, the first {min(n_rois, _PAGE)} of them described",
        ("", "milliseconds"),
        [(name, f"{1000 * seconds:.0f}") for name, seconds in rows],
    )


def _beside(service: InspectionService) -> InspectionService:
    """Another process: it has read nothing yet."""
    return InspectionService(service.settings, service.features, ModelStore(service.settings.models_dir))


def _store(service: InspectionService, key: RoiKey) -> None:
    rng = np.random.default_rng(0)
    rows = l2_normalize(rng.normal(size=_BANK).astype(np.float32))
    memory = PatchCoreMemory(rows, service.features.token_hw)
    scores = dict.fromkeys(("95", "98", "99", "99.5", "99.9", "100"), 0.43)
    image = {"name": "part.png", "sha256": "0" * 64, "pixels_sha256": "1" * 64, "height": 300, "width": 300}
    images = [{**image, "n_unique": 64, "shape": None, "scores": scores} for _ in range(_N_IMAGES)]
    metadata = {"extractor": service.features.identity.as_dict(), "images": images, "mm_per_px": 0.2}
    identity = service.store.save_memory(key, memory, {**metadata, "n_images": _N_IMAGES, "blur_sigma": 1.0})
    ok_scores = rng.normal(0.43, 0.03, _N_IMAGES).tolist()
    calibration = calibrate(
        ok_scores, [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=identity, blur_sigma=1.0
    )
    service.store.save_calibration(key, calibration)
    service.drift.begin(key, calibration, ok_scores)
    for label, number in zip(LABELS, (_N_IMAGES, _N_NG), strict=True):
        service.datasets.add(key, label, [NewSample(lambda: b"image", ".png", {"filename": "a.png"})] * number)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
