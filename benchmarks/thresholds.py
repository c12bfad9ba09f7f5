"""The promises of thresholds on real images: good ones are split at random into fit, calibration and new ones.

``python -m benchmarks.thresholds FOLDER...``: data sets in MVTec layout (``train/good``, ``test/good``,
``test/<type>``). The network sees every image once. Prints how often the stated bounds held on the new images, the
rates there, and whether choosing the percentile pays. A bound that holds for the true rate with 95 % holds somewhat
less often for the share of a few new images, because chance adds to the true rate.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from backend.calib import ThresholdOptions, calibrate
from backend.commands.image_files import find_images
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.infer import to_image_grid
from backend.patchcore import PatchCoreMemory
from backend.scores.percentile_choice import CANDIDATES, PREFERRED, choose_percentile
from backend.service.inspection import InspectionService
from backend.utils import decode_image, percentile
from harness.measuring import print_table

Scores = npt.NDArray[np.float64]  # [images, candidates]
_SPLITS = 20
_DRAWS = 50
_SIZES = ((10, 10), (30, 20), (60, 50), (100, 80))  # of the calibration: good, defective
_MIN_FRESH = 5
_P99 = CANDIDATES.index(PREFERRED)


@dataclass(frozen=True)
class Embedded:
    """An image after the network: patch embeddings float32 [N, D], and its size (rows, columns)."""

    embeddings: npt.NDArray[np.float32]
    image_hw: tuple[int, int]
    is_good: bool


def embed(service: InspectionService, folder: Path) -> list[Embedded]:
    """Every image of a data set, once."""
    images = [Path(path) for part in ("train", "test") for path in find_images([str(folder / part)])[0].values()]
    embedded = []
    for path in tqdm(images, desc=folder.name):
        pixels = decode_image(path.read_bytes(), path.name, service.limits)
        embeddings, _ = service.features.extract(pixels)
        embedded.append(Embedded(embeddings, (pixels.shape[0], pixels.shape[1]), path.parent.name == "good"))
    return embedded


def splits(service: InspectionService, images: Sequence[Embedded]) -> Iterator[tuple[Scores, Scores]]:
    """Scores of the good images that were not in the fit, and of the defective ones, for fits on a random third."""
    settings = service.settings
    good, defective = ([image for image in images if image.is_good is wanted] for wanted in (True, False))
    for seed in tqdm(range(_SPLITS), desc="fits"):
        order = np.random.default_rng(seed).permutation(len(good))
        fitted, rest = order[: len(good) // 3], order[len(good) // 3 :]
        memory = PatchCoreMemory.build(
            np.concatenate([good[place].embeddings for place in fitted]),
            service.features.token_hw,
            settings.coreset_rate,
        )

        def score(image: Embedded, memory: PatchCoreMemory = memory) -> list[float]:
            distances = memory.distances(image.embeddings).reshape(memory.token_hw)
            return percentile(to_image_grid(distances, image.image_hw, settings.blur_sigma), *CANDIDATES)

        yield np.array([score(good[place]) for place in rest]), np.array([score(image) for image in defective])


def draws(ok: Scores, ng: Scores, n_ok: int, n_ng: int) -> Iterator[tuple[Scores, Scores, Scores, Scores]]:
    """Random calibrations: good, defective, then the fresh ones of both."""
    rng = np.random.default_rng(n_ok)
    for _ in range(_DRAWS):
        ok, ng = rng.permutation(ok), rng.permutation(ng)
        yield ok[:n_ok], ng[:n_ng], ok[n_ok:], ng[n_ng:]


def promised(scored: Sequence[tuple[Scores, Scores]], n_ok: int, n_ng: int) -> list[tuple[object, ...]]:
    """One row per rule: realised rates, bounds, how often they held."""
    rules: dict[str, tuple[bool, dict[str, Any]]] = {
        "p99(OK)": (False, {}),
        "midpoint": (True, {}),
        "target 5 %": (True, {"options": ThresholdOptions(target_false_reject_rate=0.05)}),
    }
    rows = []
    for rule, (with_ng, options) in rules.items():
        rejected, escaped = [], []
        for ok, ng in scored:
            for known_ok, known_ng, fresh_ok, fresh_ng in draws(ok[:, _P99], ng[:, _P99], n_ok, n_ng):
                calibration = calibrate(
                    known_ok.tolist(),
                    known_ng.tolist() if with_ng else [],
                    mm_per_px=1,
                    area_mm2_thr=0,
                    score_percentile=PREFERRED,
                    memory_id=None,
                    **options,
                )
                promise = calibration.promise
                assert promise is not None, "these scores are not of the fit"
                rejected.append((np.mean(fresh_ok >= calibration.threshold), promise.false_reject_rate_at_most))
                escaped.append((np.mean(fresh_ng < calibration.threshold), promise.escape_rate_at_most))
        rows.append((rule, f"{n_ok} / {n_ng if with_ng else 0}", *_held(rejected), *_held(escaped if with_ng else [])))
    return rows


def _held(rates: Sequence[tuple[Any, Any]]) -> tuple[str, str, str]:
    if not rates:
        return "", "", ""
    realised, bounds = np.array(rates, np.float64).T
    return f"{realised.mean():.1%}", f"{bounds.mean():.1%}", f"{np.mean(realised <= bounds):.1%}"


def chosen(scored: Sequence[tuple[Scores, Scores]], n_ok: int, n_ng: int) -> tuple[object, ...]:
    """What choosing the percentile changes on fresh images, beside always taking the best of the calibration."""
    gains, gains_of_best, errors, others = [], [], [], 0
    for ok, ng in scored:
        for known_ok, known_ng, fresh_ok, fresh_ng in draws(ok, ng, n_ok, n_ng):
            tables = [dict(zip(CANDIDATES, scores.T.tolist(), strict=True)) for scores in (known_ok, known_ng)]
            choice = choose_percentile(*tables)
            fresh = [dict(zip(CANDIDATES, scores.T.tolist(), strict=True)) for scores in (fresh_ok, fresh_ng)]
            auroc = {item.score_percentile: item.auroc for item in choose_percentile(*fresh).candidates}
            # Of equals the preferred one, as ours does.
            best = max(choice.candidates, key=lambda item: (item.auroc, item.score_percentile == PREFERRED))
            gains.append(auroc[choice.chosen] - auroc[PREFERRED])
            gains_of_best.append(auroc[best.score_percentile] - auroc[PREFERRED])
            others += choice.chosen != PREFERRED
            before, after = (_balanced_error(tables, fresh, percent) for percent in (PREFERRED, choice.chosen))
            errors.append(after - before)
    return (
        f"{n_ok} / {n_ng}",
        f"{others / len(gains):.1%}",
        f"{np.mean(gains):+.4f}",
        f"{min(gains):+.3f}",
        f"{np.mean(errors):+.2%}",
        f"{np.mean(gains_of_best):+.4f}",
        f"{min(gains_of_best):+.3f}",
    )


def _balanced_error(
    known: Sequence[dict[float, list[float]]], fresh: Sequence[dict[float, list[float]]], percent: float
) -> float:
    """Mean of both error rates on fresh images, at the midpoint threshold."""
    ok, ng = (scores[percent] for scores in known)
    threshold = (np.percentile(ok, 99) + np.percentile(ng, 5)) / 2
    rates = np.mean(np.array(fresh[0][percent]) >= threshold), np.mean(np.array(fresh[1][percent]) < threshold)
    return float(np.mean(rates))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thresholds", description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    folders = parser.parse_args().folders
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    promises, choices = [], []
    for folder in folders:
        scored = list(splits(service, embed(service, folder)))
        n_ok, n_ng = len(scored[0][0]), len(scored[0][1])
        for size in _SIZES:
            if size[0] + _MIN_FRESH <= n_ok and size[1] + _MIN_FRESH <= n_ng:
                promises += [(folder.name, *row) for row in promised(scored, *size)]
                choices.append((folder.name, *chosen(scored, *size)))
    print_table(
        f"Rates on fresh images and their bounds at 95 %, {_SPLITS} fits x {_DRAWS} calibrations",
        ("data set", "rule", "OK / NG", "rejected", "at most", "held", "escaped", "at most", "held"),
        promises,
    )
    print_table(
        "Choosing the percentile: change on fresh images against 99, and that of the best in the calibration",
        ("data set", "OK / NG", "other than 99", "AUROC", "worst", "balanced error", "AUROC of best", "worst"),
        choices,
    )


if __name__ == "__main__":
    main()
