"""Drift of real scores: the rate of false alarms, and the number of parts until a real drift is detected.

``python -m benchmarks.drift DATASET …`` takes folders in MVTec layout. Every image goes through the network once per
variation; productions are then drawn from their scores with replacement.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from backend.calib import calibrate, choose_threshold
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.roi_key import RoiKey
from backend.disk.drift_files import DriftFiles
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.scores.drift_detector import ALARM_AT, DriftDetector, reference_of, tolerated_rate
from backend.service.drift import DriftLog
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import judge
from backend.service.pictures import NO_PICTURES
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from benchmarks.splits import open_split
from harness.images import Image, png
from harness.measuring import at_most, print_table

_FITTED, _HELD_OUT, _DEFECTS = 60, 60, 16
_KEY = RoiKey("Benchmark", "Drift")
_MM_PER_PX = 0.5
_DEFECTIVE_TOLERATED = 0.1
_DEFECT_SHARE = 0.03
_NO_CHANGE_RUNS, _NO_CHANGE_PARTS = 100, 1_000
_LEVELS = (10_000, 100_000, int(ALARM_AT))
_CHANGE_RUNS, _CHANGE_PARTS = 40, 1_000
_BEFORE = (0, 100)


def _gamma(image: Image, gamma: float) -> Image:
    return np.asarray(np.round(255 * (image / 255.0) ** gamma), np.uint8)


def _jpeg(image: Image, quality: int) -> Image:
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)


def _shifted(image: Image, share: float) -> Image:
    move = np.array([[1, 0, share * image.shape[1]], [0, 1, 0]], np.float64)
    size = (image.shape[1], image.shape[0])
    return np.asarray(cv2.warpAffine(image, move, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


_VARIATIONS: dict[str, Callable[[Image], Image]] = {
    "brightness × 0.9": lambda image: cv2.convertScaleAbs(image, alpha=0.9),
    "brightness × 1.1": lambda image: cv2.convertScaleAbs(image, alpha=1.1),
    "brightness × 0.7": lambda image: cv2.convertScaleAbs(image, alpha=0.7),
    "gamma 0.8": lambda image: _gamma(image, 0.8),
    "gamma 1.25": lambda image: _gamma(image, 1.25),
    "lost focus: blur σ 1 % of the width": lambda image: cv2.GaussianBlur(image, (0, 0), image.shape[1] / 100),
    "JPEG, quality 80": lambda image: _jpeg(image, 80),
    "shift by 2 % of the width": lambda image: _shifted(image, 0.02),
    "shift by 10 % of the width": lambda image: _shifted(image, 0.1),
}

Scores = dict[str, list[float]]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path, nargs="+", help="folder with train/good, test/good and test/<defect>")
    parser.add_argument("--scores", type=Path, help="JSON file that keeps the scores for the next run")
    arguments = parser.parse_args()
    configure_logging("warning", "console")
    kept: dict[str, Scores] = {}
    if arguments.scores and arguments.scores.exists():
        kept = json.loads(arguments.scores.read_text())
    for folder in arguments.dataset:
        if folder.name not in kept:
            kept[folder.name] = _scores_of(folder)
            if arguments.scores:
                arguments.scores.write_text(json.dumps(kept))
    _print_costs()
    names = [folder.name for folder in arguments.dataset]
    _print_shifts({name: kept[name] for name in names})
    _print_false_alarms({name: kept[name] for name in names})
    for before in _BEFORE:
        _print_delays({name: kept[name] for name in names}, before)


def _scores_of(folder: Path) -> Scores:
    """Scores of good images, of the same ones varied, and of defective ones, against a bank of other images."""
    rng = np.random.default_rng(0)
    split = open_split(folder)
    good = [*split.train, *split.good]
    good = [good[index] for index in rng.permutation(len(good))]
    n_fitted = min(_FITTED, len(good) // 3)
    fitted, held_out = good[:n_fitted], good[n_fitted : n_fitted + _HELD_OUT]
    defective = [split.defective[index] for index in rng.permutation(len(split.defective))[:_DEFECTS]]
    with tempfile.TemporaryDirectory() as models:
        service = InspectionService.open(load_settings(models_dir=models))
        fit(service, _KEY, [NamedImage(path.name, path.read_bytes) for path in fitted], mm_per_px=_MM_PER_PX)
        model = service.fitted(_KEY)

        def scored(paths: list[Path], vary: Callable[[Image], Image] | None = None) -> Iterator[float]:
            for path in tqdm(paths, desc=folder.name, mininterval=5):
                content = path.read_bytes()
                if vary is not None:
                    content = png(vary(np.asarray(cv2.imread(str(path)), np.uint8)))
                image = NamedImage(path.name, io.BytesIO(content).getvalue)
                result = judge(service, model, image, Scoring(_MM_PER_PX), wanted=NO_PICTURES)
                yield result.inference.score

        scores = {"good": list(scored(held_out)), "defective": list(scored(defective))}
        for name, vary in _VARIATIONS.items():
            scores[name] = list(scored(held_out, vary))
    return scores


def _print_shifts(sets: dict[str, Scores]) -> None:
    rows = []
    for name in ("good", "defective", *_VARIATIONS):
        cells = []
        for scores in sets.values():
            mean, spread = statistics.fmean(scores["good"]), statistics.stdev(scores["good"])
            threshold = choose_threshold(scores["good"], scores["defective"])
            rejected = statistics.fmean(score >= threshold for score in scores[name])
            cells.append(f"{(statistics.fmean(scores[name]) - mean) / spread:+.1f} σ, {rejected:.0%}")
        rows.append((name, *cells))
    print_table("Mean score beside unchanged good parts, and share at or above the threshold", ("", *sets), rows)


def _print_false_alarms(sets: dict[str, Scores]) -> None:
    rows = []
    for n_ok in (10, 30, 100):
        cells = []
        for scores in sets.values():
            rng = np.random.default_rng(n_ok)
            most = []
            for _ in range(_NO_CHANGE_RUNS):
                detector, peak = _beginning(scores, rng, n_ok), 0.0
                for _ in range(_NO_CHANGE_PARTS):
                    _produce(detector, rng, scores, scores["good"], 1)
                    peak = max(peak, detector.evidence)
                most.append(peak)
            shares = [(level, float(np.mean(np.asarray(most) >= level))) for level in _LEVELS]
            cells.append(", ".join(at_most(_NO_CHANGE_PARTS / level, share) for level, share in shares))
        rows.append((n_ok, *cells))
    levels = ", ".join(f"{level:,}" for level in _LEVELS)
    print_table(
        f"No change, {_DEFECT_SHARE:.0%} defective: share of {_NO_CHANGE_RUNS} times {_NO_CHANGE_PARTS:,} parts "
        f"whose evidence reached {levels}",
        ("OK scores of the calibration", *sets),
        rows,
    )


def _print_delays(sets: dict[str, Scores], before: int) -> None:
    rows = []
    for name in _VARIATIONS:
        cells = []
        for scores in sets.values():
            rng = np.random.default_rng(before)
            delays, directions = [], []
            for _ in range(_CHANGE_RUNS):
                detector = _beginning(scores, rng, len(scores["good"]))
                if _produce(detector, rng, scores, scores["good"], before)[1] is None:
                    delay, direction = _produce(detector, rng, scores, scores[name], _CHANGE_PARTS)
                    delays.append(delay)
                    directions.append(direction)
            low, median, high = np.percentile(delays, (5, 50, 95))
            seen = [direction for direction in directions if direction is not None]
            share = len(seen) / len(directions)
            cells.append(
                f"{median:.0f} ({low:.0f}–{high:.0f}) {statistics.mode(seen)}" if share > 0.95 else f"{share:.0%} seen"
            )
        rows.append((name, *cells))
    print_table(
        f"Parts from the change to the alarm after {before:,} unchanged parts, median (5 %–95 %) of {_CHANGE_RUNS}; "
        f"else the share that was seen within {_CHANGE_PARTS:,}",
        ("change", *sets),
        rows,
    )


def _print_costs() -> None:
    """What recording costs an inference, and the thread that adds the scores to the file."""
    with tempfile.TemporaryDirectory() as models:
        store = ModelStore(Path(models))
        rows = np.random.default_rng(0).normal(size=(100, 384)).astype(np.float32)
        store.save_memory(_KEY, PatchCoreMemory.build(l2_normalize(rows), (10, 10), 1.0), {})
        model = store.load(_KEY)
        assert model is not None
        calibration = calibrate([0.6], [], mm_per_px=1, area_mm2_thr=1, score_percentile=99, memory_id=model.memory_id)
        store.save_calibration(_KEY, calibration)
        log = DriftLog(DriftFiles(Path(models)), store, _DEFECTIVE_TOLERATED)
        log.begin(_KEY, calibration, np.random.default_rng(0).normal(0.45, 0.03, 100).tolist())
        model = store.load(_KEY)
        assert model is not None
        recorded, added = [], []
        for _ in range(50):
            start = time.perf_counter()
            for _ in range(20):
                log.record(_KEY, model, 0.45)
            recorded.append((time.perf_counter() - start) / 20)
            start = time.perf_counter()
            log.flush()
            added.append(time.perf_counter() - start)
        log.close()
        (file,) = (Path(models) / ".drift").glob("*/*.json")
        cells = (
            f"{statistics.median(recorded) * 1e6:.1f}",
            f"{statistics.median(added) * 1e3:.1f}",
            f"{file.stat().st_size:,}",
        )
    print_table(
        "Cost, median of 50",
        ("µs of an inference for its record", "ms of the thread for a file and 20 records", "bytes of the file"),
        [cells],
    )


def _beginning(scores: Scores, rng: np.random.Generator, n_ok: int) -> DriftDetector:
    reference = rng.choice(scores["good"], n_ok).tolist()
    threshold = choose_threshold(reference, scores["defective"])
    below = reference_of(reference, threshold)
    tolerated = tolerated_rate(_DEFECTIVE_TOLERATED, n_ok, n_ok - sum(below.values()))
    return DriftDetector.starting(below, threshold, tolerated)


def _produce(
    detector: DriftDetector, rng: np.random.Generator, scores: Scores, good: list[float], n_parts: int
) -> tuple[int, str | None]:
    """Feed parts until the alarm; how many that took, and which alarm."""
    for number in range(n_parts):
        defective = rng.random() < _DEFECT_SHARE
        detector.add(float(rng.choice(scores["defective"] if defective else good)), rng.random())
        if detector.alarm is not None:
            return number + 1, detector.alarm
    return n_parts, None


if __name__ == "__main__":
    main()
