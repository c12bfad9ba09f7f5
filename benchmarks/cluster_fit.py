"""A bank from synthetic embeddings in the workers of a cluster, compared with one process; workers are killed."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backend.bank.building import Bank, build_bank
from backend.bank.sharded import FitShard, ShardedBlock, bank_of_shards
from backend.cluster.local import local_ray
from backend.cluster.workers import Workers
from backend.common.arrays import Embeddings
from backend.patchcore import l2_normalize
from harness.measuring import print_table

GRID, DIM, KINDS, SPREAD = (32, 32), 384, 300, 0.7
RATE = 0.01


def embeddings_of(first: int, end: int, grid: tuple[int, int] = GRID) -> Embeddings:
    """Patch embeddings of some synthetic images, float32 [N, 384], L2-normalised: of kinds, with noise.

    Args:
        first, end: numbers of the images.
        grid: rows and columns of their patches.
    """
    kinds = np.random.default_rng(0).normal(size=(KINDS, DIM)).astype(np.float32)
    per_image = grid[0] * grid[1]
    found = np.empty(((end - first) * per_image, DIM), np.float32)
    for number in range(first, end):
        random = np.random.default_rng([1, number])
        own = slice((number - first) * per_image, (number - first + 1) * per_image)
        noise = random.standard_normal((per_image, DIM), np.float32)
        found[own] = l2_normalize(kinds[random.integers(0, KINDS, per_image)] + SPREAD * noise)
    return found


class SyntheticWorker:
    """Stands for `FitWorker`: a worker that makes its embeddings instead of reading images.

    Args:
        cuts: see `ShardedBlock`.
        grid: see `embeddings_of`.
    """

    def __init__(self, cuts: Sequence[int], grid: tuple[int, int]) -> None:
        self._cuts, self._grid = cuts, grid
        self._shard: FitShard | None = None

    def ask(self, number: int, method: str, block: int, *arguments: Any) -> Any:
        """See `FitWorker.ask`."""
        first, end = self._cuts[number : number + 2]
        if self._shard is None:
            self._shard = FitShard([embeddings_of(first, end, self._grid)], first, np.arange(first, end))
        return self._shard.ask(method, block, *arguments)

    def process_id(self) -> int:
        """The process id of the worker."""
        return os.getpid()


class Built(NamedTuple):
    """A memory bank, and the seconds until it was selected and until its scores were known."""

    bank: Bank
    selected_s: float
    scored_s: float

    @property
    def picks(self) -> npt.NDArray[np.int64]:
        """Rows of the embeddings of the bank, in the order of selection."""
        picks: npt.NDArray[np.int64] | None = self.bank.memory.patches
        assert picks is not None
        return picks


def built(build: Callable[[Callable[[str, int, int], None]], Bank]) -> Built:
    """Time a build, which gets a function that is told of its progress."""
    selected = started = time.perf_counter()

    def on_progress(step: str, _done: int, _total: int) -> None:
        nonlocal selected
        if step == "coreset":
            selected = time.perf_counter()

    bank = build(on_progress)
    return Built(bank, selected - started, time.perf_counter() - started)


def in_one_process(n_images: int, grid: tuple[int, int] = GRID) -> Built:
    """The bank that one process builds."""
    embeddings = embeddings_of(0, n_images, grid)
    names = list(map(str, range(n_images)))
    return built(lambda tell: build_bank(embeddings, names, grid, RATE, None, nullcontext, tell))


def by_workers(
    ray: Any, n_images: int, n_workers: int, kill_at: Sequence[float], grid: tuple[int, int] = GRID
) -> tuple[Built, int]:
    """The bank that workers build, and how many of them were killed.

    Args:
        ray: the connected module.
        n_images, grid: of the fit.
        n_workers: number of workers.
        kill_at: shares of the selection after which a worker is killed.
    """
    cuts = [n_images * number // n_workers for number in range(n_workers + 1)]
    workers = Workers(ray, SyntheticWorker, n_workers, 1, cuts, grid)
    victims, left = 0, sorted(kill_at)

    def ask(method: str, block: int, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        calls = {number: (number, method, block, *given) for number, given in arguments.items()}
        return workers.together("ask", calls)

    def killing(tell: Callable[[str, int, int], None], step: str, done: int, total: int) -> None:
        nonlocal victims
        tell(step, done, total)
        if step == "coreset" and left and done >= left[0] * total:
            left.pop(0)
            os.kill(ray.get(workers.actors[victims % n_workers].process_id.remote()), signal.SIGKILL)
            victims += 1

    block = ShardedBlock(ask, 0, np.arange(n_images), grid[0] * grid[1], cuts)
    block.totals()  # the embeddings are made before the time counts, as in one process
    try:
        return built(lambda tell: bank_of_shards([block], grid, RATE, partial(killing, tell))), victims
    finally:
        for actor in workers.actors:
            ray.kill(actor)


class Difference(NamedTuple):
    """How far two banks differ: picks of one alone, places in the order, and the largest difference of distances."""

    picks: int
    places: int
    distance: float

    @classmethod
    def of(cls, one: Built, other: Built) -> "Difference":
        """Compare two banks."""
        ours, theirs = one.bank.held_out, other.bank.held_out
        assert ours.distances is not None
        assert theirs.distances is not None
        assert np.array_equal(ours.scored_positions, theirs.scored_positions)
        alone = len(set(one.picks.tolist()) - set(other.picks.tolist()))
        places = int(np.count_nonzero(one.picks != other.picks))
        return cls(alone, places, float(np.abs(ours.distances - theirs.distances).max()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of ``docs/scale.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=977, help="images of 1024 patches; default 977, a million patches"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-at", type=float, nargs="*", default=[0.3, 0.7], help="shares of the selection")
    options = parser.parse_args(arguments)
    alone = in_one_process(options.images)
    rows = []
    with local_ray(options.workers) as ray:
        for kill_at in ([], options.kill_at):
            together, n_killed = by_workers(ray, options.images, options.workers, kill_at)
            difference = Difference.of(together, alone)
            times = (alone.selected_s, together.selected_s, alone.scored_s, together.scored_s)
            rows.append((n_killed, *(f"{seconds:.1f}" for seconds in times), *difference[:2], f"{difference[2]:.0e}"))
    print_table(
        f"{options.images * GRID[0] * GRID[1]} patches → {len(alone.picks)}, {options.workers} workers",
        ("killed", "selected s, one", "workers", "and scored s, one", "workers", "other picks", "places", "distances"),
        rows,
    )


if __name__ == "__main__":
    main()
