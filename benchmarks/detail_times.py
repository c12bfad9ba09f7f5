"""Time of an inference at each detail, beside N² inferences at detail 1 and N² bare passes of the network.

``python -m benchmarks.detail_times FOLDER``: a scene of `benchmarks.detail_scenes`, from the decoded image to the
regions and the heatmap. The memory banks are as large as those of a fit of ``--fit`` images; their embeddings are
random, since the search takes as long for any. Every detail is timed between two inferences at detail 1. So a ratio
is of neighbours in time. Each round also times a bare pass of the network.

``--bank X`` makes the banks of details above 1 larger or smaller. On a busy machine, ``--cpu`` counts processor time
instead of time (with ``THREADS=1``), and ``--apart`` times one pass and all the rest of an inference apart: the passes
of a detail are N² of the same kind.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from backend.block_memory import BlockMemory, Landings, Memory
from backend.common.arrays import Embeddings, Pixels
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import (
    CONTRACT,
    PROFILES,
    RECOMMENDED_BLOCKS,
    ProfileName,
    coreset_rate_of,
    score_percentile_of,
)
from backend.features import DinoV2Features, Runtime
from backend.infer import InferenceEngine
from backend.patchcore import PatchCoreMemory, coreset_size, l2_normalize
from backend.service.inspection import InspectionService
from benchmarks.detail_scenes import Bgr, Tray
from harness.measuring import print_table


@dataclass
class Timed:
    """Inferences of one profile at one detail.

    Attributes:
        detail: tiles along each side.
        n_bank: embeddings of a block's memory bank.
        seconds: of each inference.
        ratios: each to N² times the mean of the inferences at detail 1 before and after it.
        to_passes: each to N² times the bare pass of its round.
        searches: seconds of a search for as many embeddings, beside each.
    """

    detail: int
    n_bank: int
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    to_passes: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)


def bank_of(n_bank: int, dim: int, grid_hw: tuple[int, int], profile: ProfileName) -> Memory:
    """A memory bank of random embeddings.

    Args:
        n_bank: embeddings of each block.
        dim: length of each.
        grid_hw: token grid (rows, columns).
        profile: how many blocks there are.
    """
    rng = np.random.default_rng(0)
    blocks = RECOMMENDED_BLOCKS if profile != CONTRACT else (RECOMMENDED_BLOCKS[-1],)
    banks = tuple(
        PatchCoreMemory(l2_normalize(rng.standard_normal((n_bank, dim), np.float32)), grid_hw) for _ in blocks
    )
    if profile == CONTRACT:
        return banks[0]
    return BlockMemory(banks, tuple(Landings.none(n_bank) for _ in banks))


class Ready:
    """A runtime whose tokens are ready before they are asked for: as its own, but random."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        shape = (1, math.prod(runtime.grid_hw), runtime.dim)
        self._tokens = np.random.default_rng(2).standard_normal(shape, np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def forward(self, pixels: Pixels) -> Embeddings:
        """The same tokens for all pixels."""
        return self._tokens


@dataclass(frozen=True)
class Clock:
    """Times inferences of a scene.

    Attributes:
        service: the settings and the networks.
        scene: uint8 [H, W, 3], BGR.
        profile: of the memory banks.
        n_images: of the fits whose banks are as large.
        bank: embeddings of the banks of details above 1, in those of the service.
        now: seconds on the clock that is used.
        apart: time one pass and the rest of inferences apart.
    """

    service: InspectionService
    scene: Bgr
    profile: ProfileName
    n_images: int
    bank: float = 1
    now: Callable[[], float] = time.perf_counter
    apart: bool = False

    def time(self, details: Sequence[int], rounds: int) -> list[Timed]:
        """Time every detail once per round, each between two inferences at detail 1."""
        whole, *others = [self._memory(detail) for detail in (1, *details)]
        timed = [Timed(detail, len(memory.embeddings)) for detail, memory in zip(details, others, strict=True)]
        self._infer(1, whole, self._pass())  # the first takes longer
        for _ in range(rounds):
            passed = self._pass()
            before = self._infer(1, whole, passed)
            for each, memory in zip(timed, others, strict=True):
                seconds = self._infer(each.detail, memory, passed)
                after = self._infer(1, whole, passed)
                each.seconds.append(seconds)
                each.ratios.append(seconds / each.detail**2 / ((before + after) / 2))
                each.to_passes.append(seconds / each.detail**2 / passed)
                each.searches.append(self._search(memory))
                before = after
        return timed

    def _memory(self, detail: int) -> Memory:
        features, settings = self.service.features_of(self.profile, detail), self.service.settings
        rate = coreset_rate_of(self.profile, settings.coreset_rate, detail) * (self.bank if detail > 1 else 1)
        n_bank = coreset_size(self.n_images * math.prod(features.token_hw), rate)
        return bank_of(n_bank, self.service.features.dim, features.token_hw, self.profile)

    def _pass(self) -> float:
        """Seconds of a bare pass."""
        features = self.service.features_of(self.profile)
        pixels = features.pixels_of(features.canvas(self.scene), features.tiling.tiles[0])[None]
        start = self.now()
        features.runtime.forward(pixels)
        return self.now() - start

    def _infer(self, detail: int, memory: Memory, passed: float) -> float:
        """Seconds of an inference; `passed` are those of a bare pass."""
        settings, features = self.service.settings, self.service.features_of(self.profile, detail)
        if self.apart:
            known = features.identity
            runtime = Ready(features.runtime)
            features = DinoV2Features(runtime, known.model, known.weights_sha256, features.input_size, detail)
        engine = InferenceEngine(features, settings.blur_sigma)
        percentile = score_percentile_of(self.profile, settings.score_percentile, detail)
        start = self.now()
        engine.run(self.scene, memory, mm_per_px=1, threshold=2, score_percentile=percentile, keeps_embeddings=False)
        seconds = self.now() - start
        return seconds + detail**2 * passed if self.apart else seconds

    def _search(self, memory: Memory) -> float:
        """Seconds of a search for random embeddings of a whole token grid."""
        tokens = np.random.default_rng(1).standard_normal((math.prod(memory.token_hw), memory.dim), np.float32)
        start = self.now()
        memory.distances(tokens)
        return self.now() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--details", metavar="N", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="default 1 to 5")
    parser.add_argument("--profile", nargs="+", choices=PROFILES, default=PROFILES, help="default both")
    parser.add_argument("--fit", metavar="N", type=int, default=30, help="images of the fits; default 30")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--bank", type=float, default=1, help="embeddings above detail 1, in those of the service")
    parser.add_argument("--cpu", action="store_true", help="processor time of this process instead of time")
    parser.add_argument("--apart", action="store_true", help="one pass and the rest of inferences apart")
    options = parser.parse_args(arguments)
    now = time.process_time if options.cpu else time.perf_counter
    configure_logging("warning", "console")
    service, scene = InspectionService.open(load_settings()), Tray.open(options.folder).test_scenes(1)[0]
    rows = []
    for profile in options.profile:
        clock = Clock(service, scene, profile, options.fit, options.bank, now, options.apart)
        for timed in clock.time(options.details, options.rounds):
            rows.append(
                (
                    profile,
                    timed.detail,
                    timed.n_bank,
                    f"{1000 * statistics.median(timed.seconds):.0f}",
                    f"{1000 * statistics.median(timed.searches):.0f}",
                    *(
                        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                        for ratios in (timed.ratios, timed.to_passes)
                    ),
                )
            )
    title = (
        f"Inferences of {scene.shape[1]}×{scene.shape[0]} pixels, banks of a fit of {options.fit} images, "
        f"{'processor time' if options.cpu else 'time'}: median of {options.rounds} rounds"
    )
    header = (
        "profile",
        "detail",
        "embeddings in a bank",
        "ms",
        "of it search",
        "/ N² at detail 1 (from, to)",
        "/ N² bare passes",
    )
    print_table(title, header, rows)


if __name__ == "__main__":
    main()
