"""Small defects on large ROIs: the share that is found at one false reject in a hundred, for details 1 to 5.

``python -m benchmarks.detail FOLDER …``: data sets in MVTec layout, of which the good images alone are used.
`benchmarks.detail_scenes` makes scenes of 2448×2048 pixels of them. Fits see scenes of one half of the images, and the
scenes that are judged are of the other half.

Every defect is planted alone. Since the tiles that do not see it give what they gave without it, only those that do are
looked at again. It is found where the scene scores above the limit, which at most one in a hundred scenes without
defects exceeds: with fewer than a hundred, none. Scenes that reach the limit without a defect are left out.

``--others`` adds the scores of `benchmarks.detail_scores`, ``--bank`` tries smaller and larger banks, and ``--cache``
keeps the tokens, so that both take no second pass through the network. ``--quick`` is a trial that tells nothing.
``--figure PNG`` draws the shares, ``--picture PNG`` a scene and where its defects are.
"""

import argparse
import contextlib
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
from backend.service.inspection import InspectionService
from benchmarks.detail_scenes import KINDS, SCENE_HW, SIZES, Defect, Tray, defects_of, plant
from benchmarks.detail_scores import DistanceMap, all_scores, score_name
from benchmarks.detail_tokens import Tokens
from harness.measuring import print_table

_FALSE_REJECTS = 0.01
_FOUND = 0.8
# Beside the score that the service takes without a calibration.
_PERCENTILES = (99.5, 99.97, 100.0)


@dataclass
class Found:
    """What was measured of one score of one profile at one detail.

    Attributes:
        name: of the data set.
        profile, detail: of the fit.
        score: its name.
        is_default: whether the service takes this score without a calibration.
        n_bank, bank_mb: embeddings of a block's memory bank, and MB of all blocks'.
        clean: scores of scenes without defects.
        scores: of a scene without and with one defect, by its kind and size.
    """

    name: str
    profile: ProfileName
    detail: int
    score: str
    is_default: bool
    n_bank: int
    bank_mb: float
    clean: list[float] = field(default_factory=list)
    scores: dict[tuple[str, int], list[tuple[float, float]]] = field(default_factory=dict)

    @property
    def limit(self) -> float:
        """The score that at most one in a hundred scenes without defects exceeds."""
        return sorted(self.clean, reverse=True)[int(_FALSE_REJECTS * len(self.clean))]

    def share(self, kind: str, size: int) -> float:
        """Share found of a kind and size, 0..1; NaN where no scene tells, or none was planted.

        A scene that reaches the limit by itself tells nothing: any change that raises it would count.
        """
        pairs = self.scores.get((kind, size), [])
        told = [after > self.limit for before, after in pairs if before < self.limit]
        return sum(told) / len(told) if told else float("nan")

    @property
    def mean_share(self) -> float:
        """Mean share found of all kinds and sizes that tell."""
        shares = np.array([self.share(*planted) for planted in self.scores])
        return float(np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")

    def smallest(self, kind: str) -> int | None:
        """The smallest planted size from which on four fifths are found, in pixels; None where there is none."""
        sizes = sorted(size for planted, size in self.scores if planted == kind)
        enough = [self.share(kind, size) >= _FOUND for size in sizes]
        return next((size for number, size in enumerate(sizes) if all(enough[number:])), None)


@dataclass(frozen=True)
class Bench:
    """A data set at one detail.

    Attributes:
        service: the settings and the network.
        tokens: of its scenes; the contract's embeddings are the last of their numbers.
        name: of the data set.
        others: whether the scores of `benchmarks.detail_scores` are tried, too.
        bank: embeddings of the memory banks, in those of the service.
    """

    service: InspectionService
    tokens: Tokens
    name: str
    others: bool = False
    bank: float = 1

    def fit(
        self, scenes: Sequence[npt.NDArray[np.uint8]], profiles: Sequence[ProfileName]
    ) -> dict[ProfileName, Memory]:
        """A memory bank of each profile."""
        shown = tqdm(scenes, desc=f"{self.name}, detail {self.tokens.detail}, fit")
        flat = np.concatenate([self.tokens.of_scene(f"fit{number}", scene) for number, scene in enumerate(shown)])
        # The contract's first, since a fit normalises its embeddings in place.
        return {profile: self._memory(flat, profile, len(scenes)) for profile in PROFILES if profile in profiles}

    def _memory(self, tokens: npt.NDArray[np.float32], profile: ProfileName, n_images: int) -> Memory:
        own = tokens if profile == RECOMMENDED else np.ascontiguousarray(self._part(tokens, profile))
        return build_bank(
            own,
            [str(number) for number in range(n_images)],
            self.tokens.grid_hw,
            self.bank * coreset_rate_of(profile, self.service.settings.coreset_rate, self.tokens.detail),
            None,
            contextlib.nullcontext,
            lambda *_: None,
            n_blocks=len(RECOMMENDED_BLOCKS) if profile == RECOMMENDED else 1,
        ).memory

    def _part(self, tokens: npt.NDArray[np.float32], profile: ProfileName) -> npt.NDArray[np.float32]:
        return tokens[:, -self.service.features.dim :] if profile == CONTRACT else tokens

    def judge(
        self,
        memories: dict[ProfileName, Memory],
        scenes: Sequence[npt.NDArray[np.uint8]],
        planted: Sequence[Sequence[Defect]],
    ) -> list[Found]:
        """Score scenes without defects, and the first of them with each of its defects alone."""
        found: dict[tuple[ProfileName, str], Found] = {}
        for number, scene in enumerate(tqdm(scenes, desc="scenes")):
            tokens = self.tokens.of_scene(f"clean{number}", scene)
            for profile, memory in memories.items():
                grid = memory.distances(self._part(tokens, profile)).reshape(self.tokens.grid_hw)
                before = self._scores(grid, profile)
                for name, score in before.items():
                    if (profile, name) not in found:
                        found[profile, name] = self._found(profile, name, memory)
                    found[profile, name].clean.append(score)
                for defect in planted[number] if number < len(planted) else ():
                    alone = grid.copy()
                    for tile, own in self.tokens.of_defect(number, scene, defect):
                        part = alone[tile.rows, tile.columns]
                        part[:] = memory.distances(self._part(own, profile)).reshape(part.shape)
                    for name, score in self._scores(alone, profile).items():
                        pairs = found[profile, name].scores.setdefault((defect.kind, defect.size), [])
                        pairs.append((before[name], score))
        return list(found.values())

    def _found(self, profile: ProfileName, name: str, memory: Memory) -> Found:
        detail, is_default = self.tokens.detail, name == score_name(self._own_percentile(profile))
        return Found(self.name, profile, detail, name, is_default, len(memory.embeddings), memory.nbytes / 1e6)

    def _own_percentile(self, profile: ProfileName) -> float:
        return score_percentile_of(profile, self.service.settings.score_percentile, self.tokens.detail)

    def _scores(self, distances: DistanceMap, profile: ProfileName) -> dict[str, float]:
        percentiles = sorted({self._own_percentile(profile), *_PERCENTILES})
        return all_scores(distances, SCENE_HW, self.service.settings.blur_sigma, percentiles, others=self.others)


def print_tables(measured: Sequence[Found]) -> None:
    """What is found of each kind and size, and from which size on."""
    planted = list(dict.fromkeys(planted for found in measured for planted in found.scores))
    columns = sorted(planted, key=lambda each: (KINDS.index(each[0]), each[1]))
    each = sorted({len(scores) for found in measured for scores in found.scores.values()})
    counts = sorted({len(found.clean) for found in measured})
    rows = [
        [
            found.name,
            f"{found.profile}, {found.score}{', the default' if found.is_default else ''}",
            found.detail,
            found.n_bank,
            *(_percent(found.share(*column)) for column in columns),
            _percent(found.mean_share),
        ]
        for found in measured
    ]
    header = ["scenes", "profile, score", "detail", "embeddings in a bank"]
    header += [f"{kind}, {size} px" for kind, size in columns] + ["mean"]
    title = (
        f"Defects found above all but 1 % of {_range(counts)} scenes without, %; {_range(each)} of each kind and size"
    )
    print_table(title, header, rows)
    costs = [
        [
            found.name,
            f"{found.profile}, {found.score}",
            found.detail,
            *("none" if (size := found.smallest(kind)) is None else f"{size} px" for kind in KINDS),
            f"{found.bank_mb:.1f}",
        ]
        for found in measured
    ]
    header = ["scenes", "profile, score", "detail", *KINDS, "banks, MB"]
    print_table("Smallest planted size from which on 80 % are found", header, costs)


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.0f}"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def draw(measured: Sequence[Found], out: Path) -> None:
    """The share found by the default score against the size, mean of the kinds, of each data set and profile."""
    measured = [found for found in measured if found.is_default]
    groups = list(dict.fromkeys((found.name, found.profile) for found in measured))
    figure = Figure(figsize=(5 * len(groups), 4), dpi=120, layout="constrained")
    for axes, group in zip(figure.subplots(1, len(groups), squeeze=False).flat, groups, strict=True):
        for found in measured:
            if (found.name, found.profile) == group:
                kinds = [[found.share(kind, size) for size in SIZES] for kind in KINDS]
                axes.plot(SIZES, 100 * np.mean(kinds, axis=0), marker="o", label=f"detail={found.detail}")
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--details", metavar="N", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default 1 to 5")
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=PROFILES, help="default both")
    parser.add_argument("--fit", metavar="N", type=int, default=6, help="scenes in a fit; default 6")
    parser.add_argument("--scenes", metavar="N", type=int, default=12, help="scenes without defects; default 12")
    parser.add_argument("--planted", metavar="N", type=int, default=8, help="how many of them with; default 8")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of defects; default all")
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=SIZES, help="of defects; default all")
    parser.add_argument("--others", action="store_true", help="try the scores of benchmarks.detail_scores, too")
    parser.add_argument(
        "--bank", type=float, default=1, help="embeddings of a bank, in those of the service; default 1"
    )
    parser.add_argument("--cache", metavar="FOLDER", type=Path, help="keep the tokens: up to 64 MB a scene")
    parser.add_argument(
        "--quick", action="store_true", help="two scenes and the largest spot at details 1 and 2: a trial"
    )
    parser.add_argument("--figure", metavar="PNG", type=Path, help="draw the shares")
    parser.add_argument("--picture", metavar="PNG", type=Path, help="draw a scene of the first data set, and end")
    options = parser.parse_args(arguments)
    if options.quick:
        options.details, options.fit, options.scenes, options.planted = [1, 2], 2, 2, 1
        options.kinds, options.sizes = KINDS[:1], SIZES[-1:]
    configure_logging("warning", "console")
    trays = [Tray.open(folder) for folder in options.folders]
    if options.picture:
        draw_scene(trays[0], options.picture)
        return
    service = InspectionService.open(load_settings())
    measured: list[Found] = []
    for tray in trays:
        for detail in options.details:
            folder = options.cache and options.cache / tray.name
            tokens = Tokens(service.features_of(RECOMMENDED).at(detail), folder)
            bench = Bench(service, tokens, tray.name, options.others, options.bank)
            planted = [
                [
                    defect
                    for defect in defects_of(number)
                    if defect.kind in options.kinds and defect.size in options.sizes
                ]
                for number in range(min(options.planted, options.scenes))
            ]
            memories = bench.fit(tray.fit_scenes(options.fit), options.profile)
            measured += bench.judge(memories, tray.test_scenes(options.scenes), planted)
    print_tables(measured)
    if options.figure:
        draw(measured, options.figure)


if __name__ == "__main__":
    main()
