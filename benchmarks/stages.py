"""Where the time goes: stages of a fit and of an inference, in process, beside the bare forward pass."""

import statistics
import tempfile
import time

import cv2

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.roi_key import RoiKey
from backend.common.telemetry import RequestRecord, recording
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from harness.images import solar_cells
from harness.measuring import print_table

_RUNS = 9
_FIT_IMAGES = 34


def main() -> None:
    """Print the tables."""
    configure_logging("warning", "console")
    with tempfile.TemporaryDirectory() as folder:
        service = InspectionService.open(load_settings(models_dir=folder))
        key = RoiKey("Benchmark", "Cell")
        cells = solar_cells(_FIT_IMAGES)
        named = [NamedImage("cell.png", cv2.imencode(".png", cell)[1].tobytes) for cell in cells]

        record = RequestRecord("fit")
        start = time.perf_counter()
        with recording(record):
            fit(service, key, named, mm_per_px=0.5)
        total = time.perf_counter() - start
        print_table(
            f"/fit_ok of {_FIT_IMAGES} cells of 300×300 pixels",
            ("stage", "seconds", "share"),
            [(name, f"{ms / 1000:.2f}", f"{ms / 1000 / total:.1%}") for name, ms in record.timings_ms.items()]
            + [("all", f"{total:.2f}", "100 %")],
        )

        rows = []
        for side in (300, 512, 2048):
            image = cv2.resize(cells[0], (side, side), interpolation=cv2.INTER_CUBIC)
            upload = NamedImage("cell.png", cv2.imencode(".png", image)[1].tobytes)
            records, wholes, bare = [], [], []
            for _ in range(_RUNS):
                start = time.perf_counter()
                service.features.extract(image)
                bare.append((time.perf_counter() - start) * 1000)
                records.append(RequestRecord("infer"))
                start = time.perf_counter()
                with recording(records[-1]):
                    infer(service, key, upload, Scoring(0.5))
                wholes.append((time.perf_counter() - start) * 1000)
            stages = ("decode", "preprocess", "extract", "search", "post", "encode")
            medians = [statistics.median(record.timings_ms[stage] for record in records) for stage in stages]
            whole, alone = statistics.median(wholes), statistics.median(bare)
            rows.append((f"{side}×{side}", *(f"{ms:.1f}" for ms in (*medians, whole, alone)), f"{whole / alone:.2f}"))
        print_table(
            f"/infer without HTTP, median milliseconds of {_RUNS} interleaved runs",
            ("ROI", *stages, "all", "extract alone", "all / extract alone"),
            rows,
        )


if __name__ == "__main__":
    main()
