"""Real processes that change one ROI, and settle one recipe, at the same time."""

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from backend.common.errors import Conflict
from backend.common.roi_key import RoiKey
from backend.disk.recipes import RecipeStore
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.storage import ModelStore

KEY = RoiKey("Master1", "Pattern", "line 1")
N_PROCESSES = 3
N_APPENDS = 12
TIMEOUT_S = 120


def memory_of(seed: int) -> PatchCoreMemory:
    rows = np.random.default_rng(seed).normal(size=(20, 16)).astype(np.float32)
    return PatchCoreMemory.build(l2_normalize(rows), (4, 5), 1.0)


def change(root: Path, number: int, start: Barrier) -> None:
    """Append to the model, each time to the one that is there; first settle the recipe, if nobody has."""
    store = ModelStore(root, keep_versions=1000)
    start.wait(TIMEOUT_S)
    try:
        with RecipeStore(root).locking_scale(KEY.recipe_id, 0.1 * number):
            (root / f"settled by {number}").touch()
    except Conflict:
        pass
    n_appended = 0
    while n_appended < N_APPENDS:
        fitted = store.load(KEY, with_calibration=False)
        assert fitted is not None
        appended = [*fitted.metadata["appended"], f"{number}-{n_appended}"]
        try:
            store.save_memory(KEY, memory_of(len(appended)), {"appended": appended}, instead_of=fitted)
        except Conflict:
            continue
        n_appended += 1


@pytest.mark.slow
def test_no_change_of_another_process_is_lost_and_each_keeps_a_version(tmp_path: Path) -> None:
    """Several processes append at once; each change keeps the model before it as a version."""
    ModelStore(tmp_path).save_memory(KEY, memory_of(0), {"appended": []})
    context = multiprocessing.get_context("spawn")  # this process has threads, which a fork would lose
    start = context.Barrier(N_PROCESSES)
    processes = [
        context.Process(target=change, args=(tmp_path, number, start), daemon=True)  # none outlives this one
        for number in range(1, N_PROCESSES + 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT_S)
    assert [process.exitcode for process in processes] == [0] * N_PROCESSES

    fitted = ModelStore(tmp_path).load(KEY)
    assert fitted is not None
    n_changes = N_PROCESSES * N_APPENDS
    made = [f"{number}-{append}" for number in range(1, N_PROCESSES + 1) for append in range(N_APPENDS)]
    assert sorted(fitted.metadata["appended"]) == sorted(made)
    assert np.array_equal(fitted.memory.embeddings, memory_of(n_changes).embeddings)
    versions = ModelStore(tmp_path).versions(KEY)
    assert [version.number for version, _ in versions] == list(range(n_changes, 0, -1))
    (settled,) = tmp_path.glob("settled by *")
    assert RecipeStore(tmp_path).mm_per_px(KEY.recipe_id) == 0.1 * int(settled.name[-1])
