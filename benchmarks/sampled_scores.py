"""Scores of a sample of the images of a fit, compared with those of all: their cost, and whether they are equal.

``python -m benchmarks.sampled_scores FOLDER …``: all good images of data sets in MVTec layout, fitted with both
profiles. The limit above which a fit is too large to score all of its images is lowered until every set is too large.
``CORESET_RATE`` is of the contract's profile, as for the service.
"""

import argparse
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.bank import block_bank, building, leave_one_out_sample
from backend.bank.building import Bank, build_bank
from backend.calib import choose_threshold
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import (
    PROFILES,
    RECOMMENDED,
    RECOMMENDED_BLOCKS,
    ProfileName,
    coreset_rate_of,
    score_percentile_of,
)
from backend.infer import image_scores
from backend.service.inspection import InspectionService
from benchmarks.decisions import Embedded, embed
from benchmarks.splits import open_split
from harness.measuring import print_table

# So that some fifth of the images are scored.
_SHARE = 5


def built(service: InspectionService, images: Embedded, profile: ProfileName) -> tuple[Bank, float, float]:
    """A bank of all images, the CPU seconds until it was selected, and those that the scores took."""
    dim = service.features.dim if profile != RECOMMENDED else images.tokens.shape[2]
    steps: list[float] = []

    def on_progress(step: str, *_done: int) -> None:
        if step == "coreset":
            steps[:] = [time.process_time()]

    embeddings = np.ascontiguousarray(images.tokens[:, :, -dim:]).reshape(-1, dim)
    start = time.process_time()
    bank = build_bank(
        embeddings,
        [str(number) for number in range(len(images.tokens))],
        service.features.token_hw,
        coreset_rate_of(profile, service.settings.coreset_rate),
        None,
        contextlib.nullcontext,
        on_progress,
        n_blocks=len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1,
    )
    return bank, steps[0] - start, time.process_time() - steps[0]


def scores_of(
    service: InspectionService, images: Embedded, profile: ProfileName, bank: Bank
) -> npt.NDArray[np.float64]:
    """The image scores that a fit replies with, nan for images that it did not score."""
    percentile = score_percentile_of(profile, service.settings.score_percentile)
    found = np.full(len(images.sizes), np.nan)
    assert bank.held_out.distances is not None
    for number, image_hw in enumerate(images.sizes):
        row = bank.held_out.row_of(number)
        if row is not None:
            distances = bank.held_out.distances[row].reshape(service.features.token_hw)
            found[number] = image_scores(distances, image_hw, None, service.settings.blur_sigma, [percentile])[0]
    return found


def row_of(service: InspectionService, name: str, images: Embedded, profile: ProfileName) -> tuple[str, ...]:
    """A line of the table."""
    before, coreset_s, all_s = built(service, images, profile)
    every = scores_of(service, images, profile, before)
    per_image, n_bank = images.tokens.shape[1], len(before.memory.embeddings)
    n_blocks = len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1
    times_its_own = 1 if n_bank == len(every) * per_image else 4  # as `choose_sample` counts
    limit = len(every) * per_image * n_bank * n_blocks // _SHARE * times_its_own
    modules = (building, block_bank, leave_one_out_sample)
    kept = [module.MOST_PRODUCTS for module in modules]
    try:
        for module in modules:
            module.MOST_PRODUCTS = limit
        after, _, sample_s = built(service, images, profile)
    finally:
        for module, most in zip(modules, kept, strict=True):
            module.MOST_PRODUCTS = most
    some = scores_of(service, images, profile, after)
    is_scored = ~np.isnan(some)
    difference = np.abs(some - every)[is_scored]
    bound = np.subtract(after.covering_radii, before.covering_radii)
    return (
        name,
        profile,
        f"{is_scored.sum()} of {len(every)}",
        f"{coreset_s:.1f}",
        f"{all_s:.1f}",
        f"{sample_s:.1f}",
        f"{sample_s / all_s / (is_scored.sum() / len(every)):.1f}",
        f"{difference.max():.1e}",
        f"{bound.max():.1e}",
        f"{choose_threshold(every.tolist()):.4f}",
        f"{choose_threshold(some[is_scored].tolist()):.4f}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--most", type=int, help="maximum number of images of a set, at even steps; default all")
    parser.add_argument("--profile", choices=PROFILES, help="only this profile; default both")
    options = parser.parse_args(arguments)
    configure_logging("error", "console")
    service = InspectionService.open(load_settings())
    rows = []
    for folder in options.folders:
        split = open_split(folder)
        paths = [*split.train, *split.good]
        if options.most is not None and len(paths) > options.most:
            paths = [paths[int(place)] for place in np.linspace(0, len(paths) - 1, options.most)]
        images = embed(service, paths, with_defects=False, name=split.name)
        profiles = (options.profile,) if options.profile else PROFILES
        rows += [row_of(service, split.name, images, profile) for profile in profiles]
    header = (
        "data set",
        "profile",
        "images scored",
        "coreset, CPU s",
        "scores of all, CPU s",
        "of the sample, CPU s",
        "time for an image, of that in all",
        "largest difference of a score",
        "bound of the radius, above it",
        "p99 of all",
        "p99 of the sample",
    )
    print_table("Scores of a sample beside those of all images", header, rows)


if __name__ == "__main__":
    main()
