"""How good the service is on a data set with known defects: fit, score and measure, category by category.

Every image goes through the network once. Nothing is stored: memory banks live in this process only.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from typing import BinaryIO, cast

import numpy as np

from backend.bank.building import build_bank
from backend.bank.copies import Look
from backend.bank.embedding import embed_all
from backend.bank.memory_limits import check_memory
from backend.bit_depth import BitDepth, decode, settle
from backend.block_memory import Memory
from backend.calib import choose_threshold
from backend.commands.console import count, progress_bar, say, step_bars
from backend.commands.evaluate.dataset import GOOD, Category, TestImage, say_category
from backend.commands.evaluate.masks import check_masks, read_masks
from backend.commands.evaluate.metrics import PixelHistograms, Rate, image_measures
from backend.commands.evaluate.near_copies import near_copy_remarks
from backend.commands.evaluate.results import ALL, Case, CategoryResult, Evaluation, FewShotRun, Group, trained_remarks
from backend.commands.image_files import read_image
from backend.common.arrays import DistanceMap, Embeddings, Pixels
from backend.common.config import Settings
from backend.common.errors import InvalidRequest, StorageError
from backend.features import DinoV2Features
from backend.infer import InferenceEngine, image_scores, to_image_grid
from backend.network.loading import open_features
from backend.patchcore import PatchCoreMemory
from backend.utils import ImageLimits, NamedImage, check_image, percentile


def evaluate(
    settings: Settings, dataset: str, categories: Sequence[Category], *, shots: Sequence[int] = (), n_seeds: int = 1
) -> Evaluation:
    """Fit, score and measure every category of a data set.

    Args:
        settings: the configuration; ``MODELS_DIR`` is neither read nor written.
        dataset: what it is called: its folder.
        categories: as `find_categories` gives them.
        shots: also evaluate banks of so many training images, drawn at random.
        n_seeds: how many draws of each.

    Raises:
        InvalidRequest: a type of defect is called as the total is; a mask whose size is not its image's; more shots
            than images; training images that do not agree in their bit depth.
        InvalidImage, TooLarge: an image cannot be read, or has more bits than the training images; it is named.
        ConfigError: see `open_features`.
        StorageError: there is no room for temporary files.
    """
    for category in categories:
        if ALL in category.defects:
            raise InvalidRequest(f"{category.name}: rename the folder test/{ALL}: the total of all types is called so")
        if shots and max(shots) > len(category.train):
            raise InvalidRequest(
                f"--shots {max(shots)}: {category.name} has {count(len(category.train), 'training image')}"
            )
    checked = [_check(category, settings) for category in categories]
    features, _ = open_features(settings)
    results = []
    for category, most_pixels, most_bytes in checked:
        if len(checked) > 1:
            say(category.name)
        # A bank of a few training images is made of a copy of their embeddings.
        n_images = len(category.train) + max(shots, default=0)
        check_memory(features, n_images, settings.coreset_rate, most_pixels, most_bytes)
        results.append(_CategoryEvaluation(category, settings, features).run(shots, n_seeds))
    return Evaluation(dataset, settings, features, shots, n_seeds, results)


class _CategoryEvaluation:
    """One category under way."""

    def __init__(self, category: Category, settings: Settings, features: DinoV2Features) -> None:
        self.category, self.settings, self.features = category, settings, features
        self.limits = _limits(settings)
        self.depth: BitDepth | None = None
        self.engine = InferenceEngine(features, settings.blur_sigma)
        self.trained: dict[str, str] = {}  # training images by the identity of their pixels
        self.looks: list[Look] = []  # of the test images

    def run(self, shots: Sequence[int], n_seeds: int) -> CategoryResult:
        """Everything about it."""
        settings, category = self.settings, self.category
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
            self.trained = {look.pixels_sha256: path for look, path in zip(embedded.looks, category.train, strict=True)}
            bank = build_bank(
                embedded.embeddings,
                [look.pixels_sha256 for look in embedded.looks],
                self.features.token_hw,
                settings.coreset_rate,
                None,
                contextlib.nullcontext,
                on_progress,
            )
        train = embedded.embeddings.reshape(len(category.train), -1, self.features.dim)
        held_out = bank.held_out.distances if bank.held_out else None
        ok_scores = [] if held_out is None else list(map(self._train_score, category.train, held_out))
        threshold = choose_threshold(ok_scores) if ok_scores else None
        histograms = PixelHistograms()
        with _spill_file() if shots else contextlib.nullcontext() as spill:
            cases = self._score_all(bank.memory, threshold, histograms, spill)
            few_shot = self._few_shots(train, spill, cases, shots, n_seeds) if spill else []
        good = [case for case in cases if not case.image.is_defective]
        return CategoryResult(
            category.with_remarks(
                *trained_remarks(cases),
                *near_copy_remarks(category.train, embedded.looks, [image.name for image in category.test], self.looks),
            ),
            len(train) * train.shape[1],
            len(bank.memory.embeddings),
            ok_scores,
            threshold,
            self._groups(cases, histograms),
            None if threshold is None else Rate(sum(case.is_false_reject for case in good), len(good)),
            cases,
            few_shot,
            self.depth,
        )

    def _score_all(
        self, bank: Memory, threshold: float | None, histograms: PixelHistograms, spill: BinaryIO | None
    ) -> list[Case]:
        cases: list[Case] = []
        tokens = np.empty(0, np.float32)

        def run_network(pixels: Pixels) -> Embeddings:
            nonlocal tokens
            tokens = np.asarray(self.features.runtime.forward(pixels[None])[0], np.float32)
            return tokens

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
                    score_percentile=self.settings.score_percentile,
                    run_network=run_network,
                )
                ms = 1000 * (time.perf_counter() - start)
                self._count_pixels(histograms, image, inference.distance_map)
                if spill is not None:
                    _spill(tokens, spill)
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
                        bank.distances(tokens).reshape(bank.token_hw),
                        self.trained.get(self.looks[-1].pixels_sha256),
                    )
                )
                if warning is not None:
                    bar.write(f"{image.path}: {warning}", file=sys.stderr)
                bar.update()
        return cases

    def _groups(self, cases: Sequence[Case], histograms: PixelHistograms) -> list[Group]:
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
                    bank = PatchCoreMemory.build(
                        train[drawn].reshape(-1, self.features.dim), self.features.token_hw, self.settings.coreset_rate
                    )
                    histograms = PixelHistograms()
                    scores = []
                    for tokens, case in zip(test, cases, strict=True):
                        distance_map = self._distance_map(bank.distances(tokens), case.image_hw)
                        scores.append(percentile(distance_map, self.settings.score_percentile)[0])
                        self._count_pixels(histograms, case.image, distance_map)
                    measures = image_measures(scores, [case.image.is_defective for case in cases], None)
                    values = {name: measure.value for name, measure in measures.items()}
                    values.update(histograms.values([GOOD, *self.category.defects]))
                    runs.append(FewShotRun(n_shots, seed, values))
                    bar.update()
        return runs

    def _count_pixels(self, histograms: PixelHistograms, image: TestImage, distance_map: DistanceMap) -> None:
        if not image.is_defective:
            histograms.add(GOOD, distance_map, None)
        elif image.masks:
            histograms.add(image.defect, distance_map, read_masks(image.masks, self.limits))

    def _train_score(self, path: str, distances: DistanceMap) -> float:
        width, height = check_image(self._read(path), path, self.limits)
        grid, settings = distances.reshape(self.features.token_hw), self.settings
        return image_scores(grid, (height, width), None, settings.blur_sigma, (settings.score_percentile,))[0]

    def _distance_map(self, distances: DistanceMap, image_hw: tuple[int, int]) -> DistanceMap:
        return to_image_grid(distances.reshape(self.features.token_hw), image_hw, self.settings.blur_sigma)

    def _read(self, path: str) -> bytes:
        return read_image(path, self.limits.max_bytes)


def _check(category: Category, settings: Settings) -> tuple[Category, int, int]:
    """See that images and masks can be used before any of them costs time, and say what there is.

    Returns:
        See `check_masks`; the most pixels of an image, and the most bytes.
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
    return category, max(width * height for width, height in sizes.values()), most_bytes


def _spill_file() -> BinaryIO:
    """A file on disk for the embeddings of all test images, which memory may not hold."""
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
