"""``calib.json``: the file of a calibration, by this service or an older backend."""

import json
import math
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import structlog

from backend.calib import Calibration, DecideBy, Rule
from backend.common.errors import DamagedCalibration, StorageError
from backend.common.files import MAX_JSON_FILE_BYTES, read_small
from backend.scores.promise import Promise

_FORMAT_VERSION = 1
_POSITIONS = ("unusual", "lowered_by", "pixel_unusual")
_TEXTS = ("memory_id", "why", "pixel_why")
_TRUTHS = ("overlap", "pixel_overlap")
# What `threshold` is called where regions decide. Versions that know no such decisions find no threshold then, and
# decide nothing: by the score alone they would decide otherwise than was asked for.
_SCORE_THRESHOLD = "score_threshold"
_MOST_POSITIONS = 1000

log: Any = structlog.get_logger(__name__)


def calibration_bytes(calibration: Calibration) -> bytes:
    """The file of a calibration. Long lists of positions are cut, because files above a MiB are not read."""
    values = calibration.as_dict()
    values |= {name: values[name][:_MOST_POSITIONS] for name in _POSITIONS if name in values}
    if calibration.decide_by is not None:
        values = {_SCORE_THRESHOLD if name == "threshold" else name: value for name, value in values.items()}
    text = json.dumps({**values, "version": _FORMAT_VERSION}, indent=2, allow_nan=False)
    return text.encode()


def read_calibration(path: Path) -> Calibration | None:
    """Read a calibration; None if there is no file, or no threshold in it.

    Raises:
        DamagedCalibration: it is damaged.
        StorageError: it cannot be read.
    """
    content = read_calibration_bytes(path)
    return None if content is None else parse_calibration(content)


def read_calibration_bytes(path: Path) -> bytes | None:
    """The bytes of a calibration; returns and raises as `read_calibration`."""
    try:
        return read_small(path, MAX_JSON_FILE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise StorageError(f"the stored calibration cannot be read ({exc.strerror})") from exc
    except ValueError as exc:
        raise DamagedCalibration("the stored calib.json is damaged: calibrate this ROI again") from exc


def parse_calibration(content: bytes) -> Calibration | None:
    """A calibration from its bytes; returns and raises as `read_calibration`."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise DamagedCalibration("the stored calib.json is damaged: calibrate this ROI again") from exc
    if not isinstance(values, dict):
        raise DamagedCalibration("the stored calib.json is damaged: calibrate this ROI again")
    # Older backends wrote NaN into numbers they did not have, and left keys out.
    numbers = {name: value for name, value in values.items() if _is_finite_number(value)}
    if not 0 < numbers.get("score_percentile", 99) <= 100:
        del numbers["score_percentile"]
    if numbers.get("area_mm2_thr", 0) < 0:
        del numbers["area_mm2_thr"]
    known: dict[str, Any] = {}
    if "decide_by" in values:
        known["decide_by"] = values["decide_by"]
        numbers["threshold"] = numbers.get(_SCORE_THRESHOLD, math.nan)
        if values["decide_by"] not in _BY_REGIONS or not numbers.keys() >= _REGION_NUMBERS:
            raise DamagedCalibration(
                "the stored calib.json says that regions decide, but not how, or a newer version of this service "
                "wrote the file: update, or calibrate this ROI again"
            )
    if "threshold" not in numbers:
        log.warning("calibration.without_threshold")
        return None
    known |= {name: numbers[name] for name in _CALIBRATION_NUMBERS & numbers.keys()}
    known |= {name: values[name] for name in _TEXTS if isinstance(values.get(name), str)}
    known |= {name: values[name] for name in _TRUTHS if isinstance(values.get(name), bool)}
    if values.get("rule") in get_args(Rule):
        known["rule"] = values["rule"]
    for name in _POSITIONS:
        if isinstance(values.get(name), list) and all(type(position) is int for position in values[name]):
            known[name] = tuple(values[name])
    return Calibration(**known, promise=Promise.read(values.get("promise")))


_CALIBRATION_NUMBERS = {field.name for field in fields(Calibration)} - {
    *("promise", "rule", "decide_by"),
    *_POSITIONS,
    *_TEXTS,
    *_TRUTHS,
}
_BY_REGIONS = tuple(name for name in get_args(DecideBy) if name != "score")
_REGION_NUMBERS = {_SCORE_THRESHOLD, "pixel_threshold", "area_mm2_thr"}


def _is_finite_number(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond any float
        return False
