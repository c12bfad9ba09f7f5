"""How good the service is on a data set with known defects: fit, score and measure, category by category.

Every image goes through the network once. Nothing is stored: memory banks live in this process only.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, cast

import numpy as np

from backend.bank.building import Bank, build_bank
from backend.bank.copies import Look
from backend.bank.embedding import embed_all
from backend.bank.memory_limits import check_memory
from backend.bit_depth import BitDepth, decode, settle
from backend.block_memory import Memory
from backend.calib import Calibration, ThresholdOptions
from backend.commands.console import count, progress_bar, say, step_bars
from backend.commands.evaluate.dataset import GOOD, Category, TestImage, say_category
from backend.commands.evaluate.decisions import Decision, choose, decide
from backend.commands.evaluate.masks import check_masks, read_masks
from backend.commands.evaluate.metrics import PixelHistograms, Rate, image_measures
from backend.commands.evaluate.near_copies import near_copy_remarks
from backend.commands.evaluate.results import (
    ALL,
    Case,
    CategoryResult,
    Evaluation,
    FewShotRun,
    Group,
    TrainCase,
    fresh_scores,
    sample_remarks,
    trained_remarks,
)
from backend.commands.image_files import read_image
from backend.common.arrays import DistanceMap, Embeddings
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import InvalidRequest, StorageError
from backend.common.profiles import (
    CONTRACT,
    RECOMMENDED_BLOCKS,
    DetailName,
    ProfileName,
    capped_rate,
    coreset_rate_of,
    score_percentile_of,
)
from backend.common.telemetry import OnProgress
from backend.features import DinoV2Features
from backend.infer import InferenceEngine, image_scores, to_image_grid
from backend.network.loading import open_features
from backend.scores.outliers import outliers
from backend.scores.shift import Shift
from backend.service.detail import settle_detail
from backend.utils import ImageLimits, NamedImage, check_image, percentile


def evaluate(
    settings: Settings,
    dataset: str,
    categories: Sequence[Category],
    *,
    shots: Sequence[int] = (),
    n_seeds: int = 1,
    profile: ProfileName | None = None,
    detail: DetailName | None = None,
    options: ThresholdOptions | None = None,
) -> Evaluation:
    """Fit, score and measure every category of a data set.

    Args:
        settings: the configuration; ``MODELS_DIR`` is neither read nor written.
        dataset: its name: that of its folder.
        categories: as `find_categories` gives them.
        shots: also evaluate banks of so many training images, drawn at random.
        n_seeds: how many draws of each.
        profile: of the memory banks; None is the configured one.
        detail: tiles along each side of the images; ``"auto"`` chooses by the largest; None is as for `profile`.
        options: how the threshold is chosen; None is by the rule of the profile's name.

    Raises:
        InvalidRequest: a type of defect has the name of the total; a mask has another size than its image; more shots
        than images; training images with different bit depths; a profile for another network. InvalidImage, TooLarge:
        an image cannot be read, or has more bits than the training images; it is named.
        ConfigError: see `open_features`.
        StorageError: there is no room for temporary files.
    """
    profile = profile or settings.profile
    options = options or ThresholdOptions(rule=profile)
    if profile != CONTRACT and settings.model_name != DEFAULT_MODEL:
        raise InvalidRequest(
            f"--profile {profile} is for MODEL_NAME={DEFAULT_MODEL}, and MODEL_NAME is {settings.model_name}"
        )
    for category in categories:
        if ALL in category.defects:
            raise InvalidRequest(
                f"{category.name}: rename the folder test/{ALL}: this is the name of the total of all types"
            )
        if shots and max(shots) > len(category.train):
            raise InvalidRequest(
                f"--shots {max(shots)}: {category.name} has {count(len(category.train), 'training image')}"
            )
    checked = [_check(category, settings) for category in categories]
    features, _ = open_features(settings, profile)
    every_size = [size for _, sizes, _ in checked for size in sizes.values()]
    features = features.at(settle_detail(detail or settings.detail, features, every_size, 1, None).number)
    results = []
    for category, sizes, most_bytes in checked:
        if len(checked) > 1:
            say(category.name)
        way = _Way(profile, features.tiling.detail, settings, options)
        # A bank of a few training images is made of a copy of their embeddings.
        n_images = len(category.train) + max(shots, default=0)
        most_pixels = max(rows * columns for rows, columns in sizes.values())
        check_memory(features, n_images, way.coreset_rate, most_pixels, most_bytes)
        results.append(_CategoryEvaluation(category, settings, features, way, sizes).run(shots, n_seeds))
    rule = "manual" if options.threshold is not None else options.rule
    return Evaluation(dataset, settings, profile, rule, features, shots, n_seeds, results)


@dataclass(frozen=True)
class _Way:
    """The conditions of fits, scores and decisions."""

    profile: ProfileName
    detail: int
    settings: Settings
    options: ThresholdOptions

    @property
    def coreset_rate(self) -> float:
        """Share of the patch embeddings of a block that a memory bank keeps."""
        return coreset_rate_of(self.profile, self.settings.coreset_rate, self.detail)

    @property
    def percentile(self) -> float:
        """Percentile of the distance map that is the score."""
        return score_percentile_of(self.profile, self.settings.score_percentile, self.detail)

    @property
    def n_blocks(self) -> int:
        """Blocks of the network for the embeddings."""
        return 1 if self.profile == CONTRACT else len(RECOMMENDED_BLOCKS)


class _CategoryEvaluation:
    """The running evaluation of one category."""

    def __init__(
        self,
        category: Category,
        settings: Settings,
        features: DinoV2Features,
        way: _Way,
        sizes: Mapping[str, tuple[int, int]],
    ) -> None:
        self.category, self.settings, self.features = category, settings, features
        self.way, self.sizes = way, sizes
        self.limits = _limits(settings)
        self.depth: BitDepth | None = None
        self.engine = InferenceEngine(features, settings.blur_sigma)
        self.train_looks: list[Look] = []
        self.looks: list[Look] = []  # of the test images

    def run(self, shots: Sequence[int], n_seeds: int) -> CategoryResult:
        """The results of the category."""
        category = self.category
        images = [NamedImage(path, partial(self._read, path)) for path in category.train]
        self.depth = settle(images, self.limits, lambda image: contextlib.nullcontext())
        with step_bars() as on_progress:
            embedded = embed_all(
                images,
                self.features,
                self.limits,
                turn=contextlib.nullcontext,
                checkpoint=None,
                on_progress=partial(on_progress, "extract"),
                depth=self.depth,
            )
            self.train_looks = embedded.looks
            bank = self._bank(embedded.embeddings, range(len(category.train)), on_progress)
        train = embedded.embeddings.reshape(len(category.train), -1, self.features.dim)
        train_cases = self._train_cases(bank, range(len(category.train)))
        named = [(case.path, case.score) for case in train_cases if not case.is_copy]
        distinct = [score for _, score in named]
        calibration = choose(distinct, [], self.way.options, [path for path, _ in named]) if distinct else None
        threshold = self.way.options.threshold if calibration is None else calibration.threshold
        histograms = PixelHistograms()
        with _spill_file() if shots else contextlib.nullcontext() as spill:
            cases = self._score_all(bank.memory, threshold, histograms, spill)
            few_shot = self._few_shots(train, spill, cases, shots, n_seeds) if spill else []
        good = [case for case in cases if not case.image.is_defective]
        shift = self._shift(distinct, fresh_scores(cases, self.looks), calibration)
        names = [image.name for image in category.test]
        return CategoryResult(
            category.with_remarks(
                *trained_remarks(cases),
                *sample_remarks(len(train_cases), len(category.train)),
                *near_copy_remarks(category.train, self.train_looks, names, self.looks),
                *([shift.in_words("good test parts", "training images")] if shift and shift.matters else []),
            ),
            len(train) * train.shape[1],
            len(bank.memory.embeddings),
            train_cases,
            threshold,
            calibration,
            shift,
            self._groups(cases, histograms, self._decide(distinct, [case.score for case in cases])),
            None if threshold is None else Rate(sum(case.is_false_reject for case in good), len(good)),
            cases,
            few_shot,
            self.depth,
        )

    def _bank(self, embeddings: Embeddings, numbers: Sequence[int], on_progress: OnProgress) -> Bank:
        """The memory bank of some training images, as a fit selects it."""
        identities = [self.train_looks[number].pixels_sha256 for number in numbers]
        n_different = len(set(identities)) * (len(embeddings) // len(identities))
        return build_bank(
            embeddings,
            identities,
            self.features.token_hw,
            capped_rate(self.way.coreset_rate, n_different, self.settings.coreset_max, len(embeddings)),
            None,
            contextlib.nullcontext,
            on_progress,
            n_blocks=self.way.n_blocks,
        )

    def _train_cases(self, bank: Bank, numbers: Sequence[int]) -> list[TrainCase]:
        """The scores of training images, or of a sample, by the memory bank of the others; empty for a single image."""
        held_out = bank.held_out
        if held_out.distances is None:
            return []
        numbers = [number for place, number in enumerate(numbers) if held_out.row_of(place) is not None]
        scored: dict[str, float] = {}
        cases = []
        for number, distances in zip(numbers, held_out.distances, strict=True):
            path, identity = self.category.train[number], self.train_looks[number].pixels_sha256
            grid, hw = distances.reshape(self.features.token_hw), self.sizes[path]
            score = image_scores(grid, hw, None, self.settings.blur_sigma, (self.way.percentile,))[0]
            cases.append(TrainCase(path, score, hw, grid, identity in scored, is_suspicious=False))
            scored.setdefault(identity, score)
        identities = list(scored)
        unlike = {identities[place] for place in outliers(list(scored.values()))}
        return [
            replace(case, is_suspicious=self.train_looks[number].pixels_sha256 in unlike)
            for number, case in zip(numbers, cases, strict=True)
        ]

    @staticmethod
    def _shift(ok_scores: Sequence[float], fresh: Sequence[float], calibration: Calibration | None) -> Shift | None:
        promise = calibration.promise if calibration else None
        if not fresh or calibration is None or promise is None or promise.false_reject_rate_at_most is None:
            return None
        return Shift.of(ok_scores, fresh, calibration.threshold, promise.false_reject_rate_at_most)

    def _decide(self, ok_scores: Sequence[float], scores: Sequence[float]) -> list[Decision]:
        """See `decide`, of scores of all test images."""
        images = list(zip(self.category.test, scores, strict=True))
        good, defective = (
            [score for image, score in images if image.is_defective == is_defective] for is_defective in (False, True)
        )
        return decide(ok_scores, good, defective, [image.defect for image, _ in images if image.is_defective])

    def _score_all(
        self, bank: Memory, threshold: float | None, histograms: PixelHistograms, spill: BinaryIO | None
    ) -> list[Case]:
        trained = {look.pixels_sha256: path for look, path in zip(self.train_looks, self.category.train, strict=True)}
        cases: list[Case] = []
        with progress_bar("infer", len(self.category.test)) as bar:
            for image in self.category.test:
                content = self._read(image.path)
                start = time.perf_counter()
                pixels, warning = decode(content, image.path, self.limits, self.depth)
                inference = self.engine.run(
                    pixels,
                    bank,
                    mm_per_px=1,
                    threshold=threshold,
                    score_percentile=self.way.percentile,
                    keeps_embeddings=spill is not None,
                )
                ms = 1000 * (time.perf_counter() - start)
                self._count_pixels(histograms, image, inference.distance_map)
                if spill is not None:
                    _spill(inference.embeddings, spill)
                rejected = None if threshold is None else inference.score >= threshold
                self.looks.append(Look.of(pixels))
                cases.append(
                    Case(
                        image,
                        inference.score,
                        rejected,
                        len(inference.regions),
                        ms,
                        (pixels.shape[0], pixels.shape[1]),
                        inference.distances,
                        trained.get(self.looks[-1].pixels_sha256),
                    )
                )
                if warning is not None:
                    bar.write(f"{image.path}: {warning}", file=sys.stderr)
                bar.update()
        return cases

    def _groups(self, cases: Sequence[Case], histograms: PixelHistograms, decisions: Sequence[Decision]) -> list[Group]:
        groups = []
        for name, defects in [(ALL, self.category.defects), *((defect, [defect]) for defect in self.category.defects)]:
            members = [case for case in cases if case.image.defect in (GOOD, *defects)]
            defective = [case for case in members if case.image.is_defective]
            judged = [case for case in defective if case.is_rejected is not None]
            groups.append(
                Group(
                    name,
                    len(defective),
                    sum(bool(case.image.masks) for case in defective),
                    {
                        **image_measures(
                            [case.score for case in members],
                            [case.image.is_defective for case in members],
                            [case.image.defect for case in members],
                        ),
                        **histograms.measures([GOOD, *defects]),
                    },
                    Rate(sum(case.is_escape for case in judged), len(judged)) if judged else None,
                    [one for all_types in decisions if (one := all_types if name == ALL else all_types.of_type(name))],
                )
            )
        return groups

    def _few_shots(
        self, train: Embeddings, spill: BinaryIO, cases: Sequence[Case], shots: Sequence[int], n_seeds: int
    ) -> list[FewShotRun]:
        test = np.memmap(spill, np.float32, "r", shape=(len(cases), *train.shape[1:]))
        runs = []
        with progress_bar("few shots", len(shots) * n_seeds, unit="bank") as bar:
            for n_shots in shots:
                for seed in range(n_seeds):
                    # A draw of more images holds the draw of fewer: what differs between them is their number.
                    drawn = np.sort(np.random.default_rng(seed).permutation(len(train))[:n_shots])
                    bank = self._bank(train[drawn].reshape(-1, self.features.dim), drawn.tolist(), lambda *_: None)
                    train_cases = self._train_cases(bank, drawn.tolist())
                    histograms = PixelHistograms()
                    scores = []
                    for tokens, case in zip(test, cases, strict=True):
                        distance_map = self._distance_map(bank.memory.distances(tokens), case.image_hw)
                        scores.append(percentile(distance_map, self.way.percentile)[0])
                        self._count_pixels(histograms, case.image, distance_map)
                    measures = image_measures(scores, [case.image.is_defective for case in cases], None)
                    values = {name: measure.value for name, measure in measures.items()}
                    values.update(histograms.values([GOOD, *self.category.defects]))
                    distinct = [case.score for case in train_cases if not case.is_copy]
                    runs.append(FewShotRun(n_shots, seed, values, self._decide(distinct, scores)))
                    bar.update()
        return runs

    def _count_pixels(self, histograms: PixelHistograms, image: TestImage, distance_map: DistanceMap) -> None:
        if not image.is_defective:
            histograms.add(GOOD, distance_map, None)
        elif image.masks:
            histograms.add(image.defect, distance_map, read_masks(image.masks, self.limits))

    def _distance_map(self, distances: DistanceMap, image_hw: tuple[int, int]) -> DistanceMap:
        return to_image_grid(distances.reshape(self.features.token_hw), image_hw, self.settings.blur_sigma)

    def _read(self, path: str) -> bytes:
        return read_image(path, self.limits.max_bytes)


def _check(category: Category, settings: Settings) -> tuple[Category, dict[str, tuple[int, int]], int]:
    """Check that images and masks can be used before the long work, and print what was found.

    Returns:
        See `check_masks`; the size of each image (rows, columns) by its path, and the most bytes of an image.
    """
    limits = _limits(settings)
    most_bytes = 0
    sizes = {}
    for path in (*category.train, *(image.path for image in category.test)):
        content = read_image(path, limits.max_bytes)
        sizes[path] = check_image(content, path, limits)
        most_bytes = max(most_bytes, len(content))
    category = check_masks(category, sizes, limits)
    say_category(category)
    return category, {path: (height, width) for path, (width, height) in sizes.items()}, most_bytes


def _spill_file() -> BinaryIO:
    """A file on disk for the embeddings of all test images, which may not fit into memory."""
    return cast(BinaryIO, tempfile.TemporaryFile(buffering=0))


def _spill(tokens: Embeddings, file: BinaryIO) -> None:
    """Append the embeddings of an image.

    Raises:
        StorageError: there is no room.
    """
    content = memoryview(tokens.tobytes())
    try:
        while content:
            content = content[file.write(content) :]
    except OSError as exc:
        raise StorageError(
            f"--shots keeps the embeddings of the test images in {tempfile.gettempdir()}, where they cannot be written "
            f"({exc.strerror}); set TMPDIR to a folder with room"
        ) from exc


def _limits(settings: Settings) -> ImageLimits:
    return ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
