"""Small defects on large ROIs: the share that is found at one false reject in a hundred, for details 1 to 5.

``python -m benchmarks.detail FOLDER …``: data sets in MVTec layout, of which the good images alone are used.
`benchmarks.detail_scenes` makes scenes of 2448×2048 pixels of them. Fits see scenes of one half of the images, and the
scenes that are judged are of the other half.

Every defect is planted alone. Since the tiles that do not see it give what they gave without it, only those that do are
looked at again. It is found where the scene scores above the limit, which at most one in a hundred scenes without
defects exceeds: with fewer than a hundred, none. Scenes that reach the limit without a defect are left out.

``--figure PNG`` draws the shares, ``--picture PNG`` a scene and where its defects are.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from tqdm import tqdm

from backend.bank.building import build_bank
from backend.block_memory import Memory
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import (
    CONTRACT,
    PROFILES,
    RECOMMENDED,
    RECOMMENDED_BLOCKS,
    ProfileName,
    coreset_rate_of,
    score_percentile_of,
)
from backend.features import DinoV2Features
from backend.infer import image_scores
from backend.service.inspection import InspectionService
from benchmarks.detail_scenes import KINDS, SCENE_HW, SIZES, Bgr, Defect, Tray, defects_of, plant
from harness.measuring import print_table

DistanceMap = npt.NDArray[np.float32]
_FALSE_REJECTS = 0.01
_FOUND = 0.8
_ROWS = (*KINDS, "all")


@dataclass
class Found:
    """What was measured of one profile at one detail.

    Attributes:
        name: of the data set.
        profile, detail: of the fit.
        n_bank, bank_mb: embeddings of a block's memory bank, and MB of all blocks'.
        clean: scores of scenes without defects.
        scores: of a scene without and with one defect, by its kind and size.
        seconds: of inferences.
    """

    name: str
    profile: ProfileName
    detail: int
    n_bank: int
    bank_mb: float
    clean: list[float] = field(default_factory=list)
    scores: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    @property
    def limit(self) -> float:
        """The score that at most one in a hundred scenes without defects exceeds."""
        return sorted(self.clean, reverse=True)[int(_FALSE_REJECTS * len(self.clean))]

    def shares(self, kind: str) -> list[float]:
        """Share found of each size, 0..1, and NaN where no scene tells; "all" is the mean of the kinds.

        A scene that reaches the limit by itself tells nothing: any change that raises it would count.
        """
        if kind == "all":
            return [sum(shares) / len(KINDS) for shares in zip(*map(self.shares, KINDS), strict=True)]
        shares = []
        for size in SIZES:
            told = [after > self.limit for before, after in self.scores[kind, size] if before < self.limit]
            shares.append(sum(told) / len(told) if told else float("nan"))
        return shares

    def smallest(self, kind: str) -> int | None:
        """The smallest size from which on four fifths are found, in pixels; None where there is none."""
        enough = [share >= _FOUND for share in self.shares(kind)]
        return next((size for number, size in enumerate(SIZES) if all(enough[number:])), None)


@dataclass(frozen=True)
class Bench:
    """A data set at one detail.

    Attributes:
        service: the settings and the network.
        features: the extractor of all blocks at this detail; the contract's embeddings are the last of its numbers.
        tray: the parts.
        detail: tiles along each side.
    """

    service: InspectionService
    features: DinoV2Features
    tray: Tray
    detail: int

    def fit(self, scenes: Sequence[Bgr], profiles: Sequence[ProfileName]) -> dict[ProfileName, Memory]:
        """A memory bank of each profile."""
        rows, columns = self.features.token_hw
        tokens = np.empty((len(scenes), rows * columns, self.features.dim), np.float32)
        for number, scene in enumerate(tqdm(scenes, desc=f"{self.tray.name}, detail {self.detail}, fit")):
            tokens[number] = self.features.extract(scene)[0]
        flat = tokens.reshape(-1, self.features.dim)
        # The contract's first, since a fit normalises its embeddings in place.
        return {profile: self._memory(flat, profile, len(scenes)) for profile in PROFILES if profile in profiles}

    def _memory(self, tokens: npt.NDArray[np.float32], profile: ProfileName, n_images: int) -> Memory:
        own = tokens if profile == RECOMMENDED else np.ascontiguousarray(self._part(tokens, profile))
        return build_bank(
            own,
            [str(number) for number in range(n_images)],
            self.features.token_hw,
            coreset_rate_of(profile, self.service.settings.coreset_rate, self.detail),
            None,
            contextlib.nullcontext,
            lambda *_: None,
            n_blocks=len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1,
        ).memory

    def _part(self, tokens: npt.NDArray[np.float32], profile: ProfileName) -> npt.NDArray[np.float32]:
        return tokens[:, -self.service.features.dim :] if profile == CONTRACT else tokens

    def judge(self, memories: dict[ProfileName, Memory], n_clean: int, n_planted: int) -> list[Found]:
        """Score scenes without defects, and the first of them with each of its defects alone."""
        found = {
            profile: Found(self.tray.name, profile, self.detail, len(memory.embeddings), memory.nbytes / 1e6)
            for profile, memory in memories.items()
        }
        for number, scene in enumerate(tqdm(self.tray.test_scenes(n_clean), desc="scenes")):
            maps = self._maps(scene, memories, found)
            for profile in memories:
                found[profile].clean.append(self.score(maps[profile], profile))
            if number < n_planted:
                self._plant(scene, defects_of(number), memories, maps, found)
        return list(found.values())

    def _maps(
        self, scene: Bgr, memories: dict[ProfileName, Memory], found: dict[ProfileName, Found]
    ) -> dict[ProfileName, DistanceMap]:
        """The distances of every profile on the token grid; the passes through the network count for each."""
        start = time.perf_counter()
        tokens = self.features.extract(scene)[0]
        extracted, maps = time.perf_counter() - start, {}
        for profile, memory in memories.items():
            start = time.perf_counter()
            maps[profile] = memory.distances(self._part(tokens, profile)).reshape(self.features.token_hw)
            self.score(maps[profile], profile)
            found[profile].seconds.append(extracted + time.perf_counter() - start)
        return maps

    def _plant(
        self,
        scene: Bgr,
        defects: Sequence[Defect],
        memories: dict[ProfileName, Memory],
        maps: dict[ProfileName, DistanceMap],
        found: dict[ProfileName, Found],
    ) -> None:
        """Score a scene with each of some defects alone; `maps` are those without."""
        features = self.features
        before = features.canvas(scene)
        for defect in defects:
            canvas = features.canvas(plant(scene, defect))
            alone = {profile: distances.copy() for profile, distances in maps.items()}
            for tile in features.tiling.tiles:
                pixels = features.pixels_of(canvas, tile)
                if np.array_equal(pixels, features.pixels_of(before, tile)):
                    continue
                tokens = features.given(features.runtime.forward(pixels[None])[0], tile)
                for profile, memory in memories.items():
                    own = alone[profile][tile.rows, tile.columns]
                    own[:] = memory.distances(self._part(tokens, profile)).reshape(own.shape)
            for profile, distances in alone.items():
                scores = found[profile].scores.setdefault((defect.kind, defect.size), [])
                scores.append((found[profile].clean[-1], self.score(distances, profile)))

    def score(self, distances: DistanceMap, profile: ProfileName) -> float:
        """As an inference without a calibration scores it."""
        settings = self.service.settings
        percentile = score_percentile_of(profile, settings.score_percentile, self.detail)
        return image_scores(distances, SCENE_HW, None, settings.blur_sigma, [percentile])[0]


def print_tables(measured: Sequence[Found]) -> None:
    """What is found of each kind and size, and what it costs."""
    rows = [
        [found.name, found.profile, found.detail, kind, *(f"{100 * share:.0f}" for share in found.shares(kind))]
        for found in measured
        for kind in _ROWS
    ]
    header = ["data set", "profile", "detail", "defect", *(f"{size} px" for size in SIZES)]
    each = min(len(scores) for found in measured for scores in found.scores.values())
    print_table(f"Defects found at 1 % false rejects, % of {each} of each kind and size", header, rows)
    costs = []
    for found in measured:
        smallest = [found.smallest(kind) for kind in _ROWS]
        costs.append(
            [
                found.name,
                found.profile,
                found.detail,
                *("none" if size is None else f"{size} px" for size in smallest),
                f"{1000 * statistics.median(found.seconds):.0f}",
                found.n_bank,
                f"{found.bank_mb:.1f}",
            ]
        )
    header = ["data set", "profile", "detail", *_ROWS, "inference, ms", "embeddings in a bank", "banks, MB"]
    print_table("Smallest size from which on 80 % are found, and the cost", header, costs)


def draw(measured: Sequence[Found], out: Path) -> None:
    """The share found of all kinds against the size, of each data set and profile."""
    groups = list(dict.fromkeys((found.name, found.profile) for found in measured))
    figure = Figure(figsize=(5 * len(groups), 4), dpi=120, layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, groups, strict=True):
        for found in measured:
            if (found.name, found.profile) == group:
                axes.plot(SIZES, 100 * np.array(found.shares("all")), marker="o", label=f"detail={found.detail}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(SIZES, [str(size) for size in SIZES])
        axes.set(title=", ".join(group), xlabel="size of the defect, pixels", ylabel="found, %", ylim=(-2, 102))
        axes.axhline(100 * _FOUND, color="#5b6675", linewidth=0.8)
        axes.legend(frameon=False)
    figure.savefig(out, metadata={"Software": None})


def draw_scene(tray: Tray, out: Path) -> None:
    """A scene with all of its defects, each in a circle."""
    scene, defects = tray.test_scenes(1)[0], defects_of(0)
    for defect in defects:
        scene = plant(scene, defect)
    for defect in defects:
        cv2.circle(scene, (defect.x, defect.y), defect.size // 2 + 20, (0, 0, 255), 3, cv2.LINE_AA)
    cv2.imwrite(str(out), scene)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--details", metavar="N", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default 1 to 5")
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=PROFILES, help="default both")
    parser.add_argument("--fit", metavar="N", type=int, default=6, help="scenes in a fit; default 6")
    parser.add_argument("--scenes", metavar="N", type=int, default=12, help="scenes without defects; default 12")
    parser.add_argument("--planted", metavar="N", type=int, default=8, help="how many of them with; default 8")
    parser.add_argument("--figure", metavar="PNG", type=Path, help="draw the shares")
    parser.add_argument("--picture", metavar="PNG", type=Path, help="draw a scene of the first data set, and end")
    options = parser.parse_args()
    configure_logging("warning", "console")
    trays = [Tray.open(folder) for folder in options.folders]
    if options.picture:
        draw_scene(trays[0], options.picture)
        return
    service = InspectionService.open(load_settings())
    measured: list[Found] = []
    for tray in trays:
        for detail in options.details:
            bench = Bench(service, service.features_of(RECOMMENDED).at(detail), tray, detail)
            memories = bench.fit(tray.fit_scenes(options.fit), options.profile)
            measured += bench.judge(memories, options.scenes, min(options.planted, options.scenes))
    print_tables(measured)
    if options.figure:
        draw(measured, options.figure)


if __name__ == "__main__":
    main()
