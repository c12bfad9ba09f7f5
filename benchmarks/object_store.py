"""The cost of an object store in requests, milliseconds and money, compared with a folder.

``python -m benchmarks.object_store [--store moto|ministack] [--rounds 200]``. The store is on this machine, so the
milliseconds are those of the service and of the store, without a network between them. Money is by the prices below.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from backend.common.roi_key import RoiKey
from backend.object_store.address import read_address
from backend.object_store.bucket import Bucket
from backend.object_store.catalog import Catalog
from backend.object_store.local_copy import LocalCopy
from backend.object_store.mirror import Mirror
from backend.object_store.models import ObjectModelStore
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.storage import ModelStore
from harness.fault_proxy import Faults, faulty
from harness.measuring import print_table
from harness.object_store import BUCKET, CREDENTIALS
from harness.places import add_store, opened

# AWS S3 Standard, us-east-1, as its price list had it in 2025: an assumption, in dollars per million.
_DOLLARS = {"GET": 0.4, "HEAD": 0.4, "PUT": 5.0, "LIST": 5.0}
_ROWS, _DIM = 1000, 384
_KEY, _OWN, _DEFAULTS = RoiKey("Line", "Roi"), RoiKey("Line", "Roi", "own"), RoiKey("Line", "Roi", "shared")
_FRESH_S = 3600.0


def _memory(seed: int) -> PatchCoreMemory:
    rows = np.random.default_rng(seed).normal(size=(_ROWS, _DIM)).astype(np.float32)
    return PatchCoreMemory.build(l2_normalize(rows), (32, 32), 1.0)


def _milliseconds(action: Callable[[], object], rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def _requests(faults: Faults, action: Callable[[], object]) -> dict[str, int]:
    faults.counts.clear()
    action()
    return dict(faults.counts)


class _Store:
    """A replica, reached with a proxy that counts or without."""

    def __init__(self, endpoint: str, folder: Path, fresh_s: float = 0.0) -> None:
        environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}
        self._mirror = Mirror(
            Bucket(read_address(f"s3://{BUCKET}/bench", insecure=False, environment=environment)),
            LocalCopy(folder),
            fresh_s,
        )
        self.models = ObjectModelStore(self._mirror, Catalog(self._mirror, folder / "catalog"), 5, None)

    def close(self) -> None:
        self._mirror.close()


def _rows(endpoint: str, folder: Path, rounds: int) -> list[list[object]]:
    local = ModelStore(folder / "models")
    names = ("plain", "counted", "fresh", "counted fresh")
    for name in names:
        (folder / name).mkdir()
    with faulty(endpoint) as faults:
        plain, counted = _Store(endpoint, folder / "plain"), _Store(faults.endpoint, folder / "counted")
        fresh = _Store(endpoint, folder / "fresh", _FRESH_S)
        counted_fresh = _Store(faults.endpoint, folder / "counted fresh", _FRESH_S)
        for store in (local, plain.models):
            store.save_memory(_KEY, _memory(1), {})
            store.save_memory(_OWN, _memory(2), {})
        seeds = iter(range(10, 10_000))
        works: list[tuple[str, Callable[[ModelStore | ObjectModelStore], object], int, _Store, _Store]] = [
            ("/infer, a model of its own", lambda store: store.load(_OWN), rounds, plain, counted),
            ("/infer, the default recipe's model", lambda store: store.load(_DEFAULTS), rounds, plain, counted),
            ("/infer, MODELS_FRESH_S > 0", lambda store: store.load(_OWN), rounds, fresh, counted_fresh),
            (
                f"a fit stored, {_ROWS} × {_DIM} embeddings",
                lambda store: store.save_memory(_KEY, _memory(next(seeds)), {}),
                max(3, rounds // 20),
                plain,
                counted,
            ),
        ]
        rows = []
        for name, work, times, store, counting in works:
            work(store.models)
            work(counting.models)
            in_folder = statistics.median(_milliseconds(partial(work, local), times))
            in_store = statistics.median(_milliseconds(partial(work, store.models), times))
            work(counting.models)  # again: what the other replica changed is fetched once
            asked = _requests(faults, partial(work, counting.models))
            shown = ", ".join(f"{number} {kind}" for kind, number in sorted(asked.items())) or "none"
            money = sum(number * _DOLLARS[kind] for kind, number in asked.items())
            rows.append([name, shown, f"{in_folder:.2f}", f"{in_store:.2f}", f"{money:.2f}"])
        for one in (plain, counted, fresh, counted_fresh):
            one.close()
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.object_store", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of each request (%(default)s)")
    add_store(parser)
    parser.set_defaults(store="moto")
    chosen = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="roi-anomaly-bench-") as folder,
        opened(chosen.store, Path(folder), chosen.ministack) as place,
    ):
        if place.endpoint is None:
            parser.error("a folder is beside it in any case: --store moto or ministack")
        rows = _rows(place.endpoint, Path(folder), chosen.rounds)
    header = ("", "requests", "ms, folder", "ms, store", "$ per million")
    print_table(f"Models in an object store: {chosen.store}, median of {chosen.rounds}", header, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
