"""What the tests of fit, calibrate and infer share: a ROI, its images in parts/, and records as they are read."""

import csv
import json
from pathlib import Path

from backend.common.config import Settings
from backend.service.calibrate import calibrate
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY

ROI = ("Master1", "Pattern", "--mm-per-px", "0.2")
CIRCLE = '{"kind":"circle","cx":100,"cy":80,"r":60}'
PARTS = ["parts/1.png", "parts/2.jpg", "parts/a/1.png", "parts/a/10.bmp"]


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
