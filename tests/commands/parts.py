"""What the tests of fit, calibrate and infer share: a ROI, its images in parts/, and records as they are read."""

import csv
import json
import os
from pathlib import Path

from backend.commands.records import Conditions, Record
from backend.common.config import Settings
from backend.service.calibrate import calibrate
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY

ROI = ("Master1", "Pattern", "--mm-per-px", "0.2")
CIRCLE = '{"kind":"circle","cx":100,"cy":80,"r":60}'
PARTS = ["parts/1.png", "parts/2.jpg", "parts/a/1.png", "parts/a/10.bmp"]
CONDITIONS = Conditions(
    threshold=0.1 + 0.2,
    calibration="applied",
    score_percentile=99.0,
    area_mm2_thr=1.0,
    mm_per_px=0.2,
    shape={"kind": "circle", "cx": 1.5, "cy": 2.0, "r": 1.0},
    blur_sigma=1.0,
    memory_id="3a224370079da8cabe8c3994fb14503d",
    role_id="Máster, 1",
    roi_id='the "Pattern"',
)
REGION = {"bbox": [1, 2, 3, 4], "x": 1, "y": 2, "w": 3, "h": 4, "area_px": 7.0, "area_mm2": 0.28, "contour": [[1, 2]]}
RECORDS = [
    Record("parts/ä.png", "ab" * 32, CONDITIONS, 12.5, 1 / 3, "ng", [REGION, {**REGION, "area_mm2": 0.1}]),
    Record('parts/two\nlines, "quoted"\r\n.png', "cd" * 32, CONDITIONS, 1.0, 0.1, "ok", []),
    Record(os.fsdecode(b"parts/latin\xe4.png"), None, CONDITIONS, 0.1, error='parts/x.png: "cut"\nand damaged'),
    Record("parts/4.png", "ef" * 32, CONDITIONS, 3.0, 0.25, "ok", []),
]


def service(work, features, **settings):
    return InspectionService(Settings(**settings), features, ModelStore(work / "models"))


def named(path):
    return NamedImage(str(path), Path(path).read_bytes)


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def without_ms(content):
    """Records of a JSON lines or CSV file, but for the milliseconds."""
    text = content.decode()
    rows = records(text) if text.startswith("{") else list(csv.DictReader(text.splitlines()))
    return [{name: value for name, value in row.items() if name != "ms"} for row in rows]


def calibrated(work, features, threshold):
    calibrate(service(work, features), KEY, [threshold], [], mm_per_px=0.2, area_mm2_thr=0.5)
