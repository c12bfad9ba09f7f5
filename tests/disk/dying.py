"""Writes that die at every step, in processes that really end: ``python -m tests.disk.dying FOLDER [feedback]``.

For each kind of write and each step, ``FOLDER/<kind>/<step>`` is what a process left that was killed just before that
write, sync or rename; of a file that was not yet synced, half is on the disk. After the last step there was nothing
left to kill: the write was completed.
"""

import itertools
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend.bank.checkpoint import Checkpoint, Kept
from backend.block_memory import Memory
from backend.disk.calibration_inputs import CalibrationInputs, ScoredImage
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.memory_file import memory_id
from backend.disk.recipes import RecipeStore
from backend.features import ExtractorIdentity
from backend.storage import ModelStore
from tests.factories import IN_RECIPE, KEY, calibration_of, memory_of

OLD, NEW, THIRD = memory_of(1), memory_of(2), memory_of(3)
IDENTITY = ExtractorIdentity("model", "0" * 64, 448, "stretch", "float32")
_DIED = 9
EMBEDDINGS = np.random.default_rng(0).random((4, 3), np.float32)
_STEPS = (
    (os, "fsync"),
    (os, "link"),
    (os, "unlink"),  # which shutil calls, as Path does
    (os, "rmdir"),
    (Path, "open"),
    (Path, "replace"),
    (Path, "mkdir"),
)


def sample(number: int) -> NewSample:
    return NewSample(lambda: b"image %d" % number, ".png", {"filename": f"{number}.png"})


def calibrated(root: Path) -> None:
    store = ModelStore(root)
    store.save_memory(KEY, OLD, {})
    store.save_calibration(KEY, calibration_of(store.load(KEY), 0.4))


def refitted(root: Path) -> None:
    """Version 2, OLD with 0.4, was replaced by NEW, which was calibrated to 0.6."""
    calibrated(root)
    fit(root)
    calibrate(root)


def uncalibrated_before(root: Path) -> None:
    """Version 1, OLD without a calibration, was replaced by OLD with 0.4."""
    calibrated(root)


def with_many_versions(root: Path) -> None:
    """As many as are kept; the next change pushes the oldest out."""
    refitted(root)
    store = ModelStore(root)
    for threshold in (0.61, 0.62, 0.63):
        store.save_calibration(KEY, calibration_of(store.load(KEY), threshold))


def roll_back(root: Path) -> None:
    ModelStore(root).roll_back(KEY, 2)


def roll_back_calibration(root: Path) -> None:
    ModelStore(root).roll_back(KEY)


def without_index(root: Path) -> None:
    calibrated(root)
    (root / "Master1" / "Pattern" / "index.faiss").unlink()


def with_damaged_calibration(root: Path) -> None:
    calibrated(root)
    (root / "Master1" / "Pattern" / "calib.json").write_bytes(b"{")


def fit(root: Path) -> None:
    ModelStore(root).save_memory(KEY, NEW, {})


def calibrate(root: Path) -> None:
    store = ModelStore(root)
    store.save_calibration(KEY, calibration_of(store.load(KEY), 0.6))


def append(root: Path) -> None:
    """Version 2, OLD with 0.4, is replaced by NEW."""
    store = ModelStore(root)
    store.save_memory(KEY, NEW, {}, instead_of=store.load(KEY, with_calibration=False))


def fit_third(root: Path) -> None:
    ModelStore(root).save_memory(KEY, THIRD, {})


def read(root: Path) -> None:
    ModelStore(root).load(KEY)


def settle(root: Path) -> None:
    with RecipeStore(root).locking_scale(IN_RECIPE.recipe_id, 0.2):
        ModelStore(root).save_memory(IN_RECIPE, NEW, {})


def upload(root: Path) -> None:
    DatasetStore(root).add(KEY, "ok", [sample(1), sample(2)])


def with_images(root: Path) -> None:
    DatasetStore(root).copy(KEY, "ok", "part 7.png", sample(1))
    upload(root)


def delete(root: Path) -> None:
    store = DatasetStore(root)
    store.remove(store.find(KEY, "ok", "part 7.png"))


def clear(root: Path) -> None:
    DatasetStore(root).clear(KEY, "ok")


def keep(root: Path) -> None:
    Checkpoint(root / "fit", IDENTITY).put(b"image", Kept(EMBEDDINGS, None))


def nothing(_root: Path) -> None:
    """There was nothing before."""


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "first fit": (nothing, fit),
    "fit": (calibrated, fit),
    "append": (calibrated, append),
    "calibration": (calibrated, calibrate),
    "roll-back": (refitted, roll_back),
    "roll-back of a calibration": (uncalibrated_before, roll_back_calibration),
    "fit with many versions": (with_many_versions, fit_third),
    "fit over a damaged calibration": (with_damaged_calibration, fit),
    "index repair": (without_index, read),
    "recipe": (nothing, settle),
    "upload": (nothing, upload),
    "deletion": (with_images, delete),
    "clearing": (with_images, clear),
    "checkpoint": (nothing, keep),
}

SCORES_BEFORE = CalibrationInputs((ScoredImage(0.4, "a.png", None, "a"),))
SCORES_AFTER = CalibrationInputs((*SCORES_BEFORE.ok, ScoredImage(0.6, "b.png", None, "b")))


def calibrated_with_scores(root: Path) -> None:
    store = ModelStore(root)
    store.save_memory(KEY, OLD, {})
    store.save_calibration(KEY, calibration_of(store.load(KEY), 0.4), SCORES_BEFORE)


def say_good(root: Path, memory: Memory = NEW) -> None:
    """Version 2, OLD with 0.4, is replaced by a bank that has grown, with 0.6, in one step."""
    store = ModelStore(root)
    calibration = replace(calibration_of(None, 0.6), memory_id=memory_id(memory))
    store.save_memory(
        KEY, memory, {"grown": True}, instead_of=store.load(KEY), calibration=calibration, inputs=SCORES_AFTER
    )


def say_good_of_what_is_covered(root: Path) -> None:
    """As above, and the bank has the same embeddings."""
    say_good(root, OLD)


def say_bad(root: Path) -> None:
    store = ModelStore(root)
    before = store.load(KEY)
    store.save_calibration(KEY, calibration_of(before, 0.6), SCORES_AFTER, instead_of=before)


def said_good(root: Path) -> None:
    calibrated_with_scores(root)
    say_good(root)


def said_bad(root: Path) -> None:
    calibrated_with_scores(root)
    say_bad(root)


FEEDBACK: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "good": (calibrated_with_scores, say_good),
    "good and covered": (calibrated_with_scores, say_good_of_what_is_covered),
    "bad": (calibrated_with_scores, say_bad),
    "roll-back of good": (said_good, roll_back_calibration),
    "roll-back of bad": (said_bad, roll_back_calibration),
}


def _die_before(fatal_step: int) -> None:
    steps = itertools.count(1)

    def dying(call: Any) -> Any:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(steps) == fatal_step:
                if call is os_fsync and stat.S_ISREG(os.fstat(arguments[0]).st_mode):
                    os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
                os._exit(_DIED)
            return call(*arguments, **options)

        return step

    os_fsync = os.fsync
    for owner, name in _STEPS:
        setattr(owner, name, dying(getattr(owner, name)))


def _sync_nothing(_descriptor: int) -> None:
    """What a process wrote outlives it: only a machine that dies needs more, and then half of it is lost, see above."""


def main(folder: Path, kinds: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]]) -> None:
    os.fsync = _sync_nothing
    for kind, (prepare, write) in kinds.items():
        for step in itertools.count(1):
            root = folder / kind / str(step)
            root.mkdir(parents=True)
            prepare(root)
            process = os.fork()
            if process == 0:
                _die_before(step)
                write(root)
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            if status == 0:
                break
            assert status == _DIED, f"{kind}: step {step} failed of itself, with {status}"


if __name__ == "__main__":
    main(Path(sys.argv[1]), FEEDBACK if "feedback" in sys.argv[2:] else KINDS)
