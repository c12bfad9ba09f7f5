"""A bank from synthetic embeddings in the workers of a cluster, compared with one process; workers are killed.

With ``--piece N``, the workers keep the embeddings on disk, and select in two rounds from pieces of N images.
"""

import argparse
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backend.bank.block_files import BlockFiles
from backend.bank.building import Bank, build_bank
from backend.bank.leave_one_out import farthest_distance
from backend.bank.sharded import FitShard, ShardedBlock, bank_of_shards, n_selected
from backend.bank.two_rounds import Pieces
from backend.cluster.local import local_ray
from backend.cluster.workers import Workers
from backend.common.arrays import Embeddings
from backend.patchcore import PatchCoreMemory, l2_normalize
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
        pieces: of two rounds, with the embeddings on disk; None is one round.
    """

    def __init__(self, cuts: Sequence[int], grid: tuple[int, int], pieces: Pieces | None) -> None:
        self._cuts, self._grid, self._pieces = cuts, grid, pieces
        self._shard: FitShard | None = None
        self._most_anonymous = 0
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def ask(self, number: int, method: str, block: int, *arguments: Any) -> Any:
        """See `FitWorker.ask`."""
        first, end = self._cuts[number : number + 2]
        if self._shard is None:
            part = embeddings_of(first, end, self._grid) if self._pieces is None else self._on_disk(first, end)
            self._shard = FitShard([part], first, np.arange(first, end), self._pieces)
        return self._shard.ask(method, block, *arguments)

    def process_id(self) -> int:
        """The process id of the worker."""
        return os.getpid()

    def most_anonymous(self) -> int:
        """The most bytes of memory that it had, without pages of files, which the system can take back (Linux)."""
        return self._most_anonymous

    def _on_disk(self, first: int, end: int) -> Embeddings:
        per_image = self._grid[0] * self._grid[1]
        files = BlockFiles(Path(tempfile.gettempdir()), ((end - first) * per_image, DIM), 1)
        for number in range(first, end):
            files.write(0, (number - first) * per_image, embeddings_of(number, number + 1, self._grid))
        return files.parts[0]

    def _watch_memory(self) -> None:
        while True:
            found = re.search(r"RssAnon:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
            assert found is not None, "every running process of Linux has it"
            self._most_anonymous = max(self._most_anonymous, int(found[1]) * 1024)
            time.sleep(0.02)


class Built(NamedTuple):
    """A memory bank, what it took, and how closely it covers the patches.

    Attributes:
        bank: the memory bank.
        selected_s, scored_s: seconds until it was selected, and until its scores were known.
        anonymous: most bytes of memory that a worker had, see `SyntheticWorker`; 0 if there were none.
        radius: its covering radius, if workers computed it.
    """

    bank: Bank
    selected_s: float
    scored_s: float
    anonymous: int = 0
    radius: float = np.nan

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
    ray: Any,
    n_images: int,
    n_workers: int,
    kill_at: Sequence[float],
    grid: tuple[int, int] = GRID,
    images_in_piece: int | None = None,
) -> tuple[Built, int]:
    """The bank that workers build, and how many of them were killed.

    Args:
        ray: the connected module.
        n_images, grid: of the fit.
        n_workers: number of workers.
        kill_at: shares of the selection after which a worker is killed.
        images_in_piece: images of a piece in a selection of two rounds; None is one round.
    """
    cuts = [n_images * number // n_workers for number in range(n_workers + 1)]
    per_image, pieces = grid[0] * grid[1], None
    if images_in_piece is not None:
        pieces = Pieces(images_in_piece, n_selected(np.arange(n_images), per_image, RATE), n_images, per_image)
    workers = Workers(ray, SyntheticWorker, n_workers, 1, cuts, grid, pieces)
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

    block = ShardedBlock(ask, 0, np.arange(n_images), per_image, cuts)
    block.cosine_to(np.zeros((1, DIM), np.float32), np.array(cuts[:-1]) * per_image)  # makes the embeddings first
    try:
        found = built(lambda tell: bank_of_shards([block], grid, RATE, partial(killing, tell), None, pieces))
        anonymous = workers.together("most_anonymous", dict.fromkeys(range(n_workers), ()))
        assert isinstance(found.bank.memory, PatchCoreMemory)
        radius = farthest_distance(block, found.bank.memory)
        return found._replace(anonymous=max(anonymous.values()), radius=radius), victims
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


def print_two_rounds(ray: Any, n_images: int, n_workers: int, kill_at: Sequence[float], piece: int) -> None:
    """Print the table of two rounds in ``docs/scale.md``."""
    one, _ = by_workers(ray, n_images, n_workers, [])
    rows = [("one", 0, *_figures(one, one), "")]
    for killed in ([], kill_at):
        two, n_killed = by_workers(ray, n_images, n_workers, killed, images_in_piece=piece)
        assert two.bank.radius_bounds is not None
        rows.append(("two", n_killed, *_figures(two, one), f"{two.bank.radius_bounds[0]:.3f}"))
    print_table(
        f"{n_images * GRID[0] * GRID[1]} patches → {len(one.picks)}, {n_workers} workers, pieces of {piece} images",
        ("rounds", "killed", "selected s", "and scored s", "MB of a worker", "covering radius", "ratio", "bound"),
        rows,
    )


def _figures(found: Built, one_round: Built) -> tuple[str, ...]:
    return (
        f"{found.selected_s:.1f}",
        f"{found.scored_s:.1f}",
        f"{found.anonymous / 1e6:.0f}",
        f"{found.radius:.4f}",
        f"{found.radius / one_round.radius:.3f}",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of ``docs/scale.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--images", type=int, default=977, help="images of 1024 patches; default 977, a million patches"
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-at", type=float, nargs="*", default=[0.3, 0.7], help="shares of the selection")
    parser.add_argument("--piece", type=int, help="two rounds instead, from pieces of so many images")
    options = parser.parse_args(arguments)
    if options.piece is not None:
        with local_ray(options.workers) as ray:
            print_two_rounds(ray, options.images, options.workers, options.kill_at, options.piece)
        return
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
