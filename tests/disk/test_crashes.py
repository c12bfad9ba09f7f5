"""What killed processes leave: see `dying`, which kills one before every write, sync and rename."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.bank.checkpoint import Checkpoint
from backend.common.errors import Conflict, StorageError
from backend.disk.datasets import DatasetStore
from backend.disk.recipes import RecipeStore
from backend.storage import ModelStore
from tests.disk.dying import EMBEDDINGS, IDENTITY, KINDS, NEW, OLD, THIRD, sample
from tests.factories import IN_RECIPE, KEY, calibration_of, index_bytes, load, same_memory

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What was left of each kind of write, by the step at which it died; the last was completed."""
    folder = tmp_path_factory.mktemp("dying")
    # Coverage would write a file for each of a thousand deaths.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    subprocess.run(
        [sys.executable, "-m", "tests.disk.dying", folder], cwd=Path(__file__).parents[2], env=environment, check=True
    )
    return {kind: sorted((folder / kind).iterdir(), key=lambda path: int(path.name)) for kind in KINDS}


def leftovers(root):
    orphans = [path.name for path in root.rglob("*.png.json") if not path.with_suffix("").exists()]
    return orphans + [
        path.name
        for path in root.rglob("*")
        if path.name.startswith((".tmp-", ".calib.next")) or path.name.endswith(".pending")
    ]


def as_served(fitted):
    """Which model it is, and by which threshold it judges."""
    (name,) = (name for name, memory in {"old": OLD, "new": NEW, "third": THIRD}.items() if same_memory(fitted, memory))
    return name, fitted.calibration.threshold if fitted.calibration else None


def versions_of(root):
    """What can be rolled back to, by number."""
    found = {}
    for version, calibration in ModelStore(root).versions(KEY):
        with np.load(version.folder / "memory.npz") as arrays:
            (name,) = (
                name
                for name, memory in {"old": OLD, "new": NEW, "third": THIRD}.items()
                if np.array_equal(arrays["emb"], memory.embeddings)
            )
        found[version.number] = name, calibration.threshold if calibration else None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_write_has_steps_and_some_leave_something_behind(left, kind):
    """A write that was completed leaves nothing."""
    assert len(left[kind]) > 2
    assert any(leftovers(root) for root in left[kind])
    assert not leftovers(left[kind][-1]), "one that was completed leaves nothing"


@pytest.mark.parametrize("kind", ["fit", "append"])
def test_killed_fit_leaves_the_old_model_calibrated_or_the_new_one(left, kind):
    """The old model keeps its calibration, the new one is stale; the next fit clears what the killed one left."""
    outcomes = []
    for root in left[kind]:
        fitted = load(root)
        if same_memory(fitted, OLD):
            assert (fitted.calibration_state, fitted.calibration.threshold) == ("applied", 0.4)
        else:
            assert same_memory(fitted, NEW)
            assert (fitted.calibration_state, fitted.calibration) == ("stale", None)
        index = root / "Master1" / "Pattern" / "index.faiss"
        assert index.read_bytes() == index_bytes(fitted.memory.embeddings), "mended by the first read"
        outcomes.append(fitted.calibration_state)
        ModelStore(root).save_memory(KEY, OLD, {})
        assert not leftovers(root)
    assert outcomes == sorted(outcomes), "first the old, from some step on the new"
    assert set(outcomes) == {"applied", "stale"}


def test_a_killed_first_fit_leaves_no_model_or_a_whole_one(left):
    outcomes = []
    for root in left["first fit"]:
        fitted = ModelStore(root).load(KEY)
        assert fitted is None or same_memory(fitted, NEW)
        outcomes.append(fitted is not None)
        ModelStore(root).save_memory(KEY, OLD, {})
        assert same_memory(load(root), OLD)
        assert not leftovers(root)
    assert set(outcomes) == {False, True}


def test_a_killed_calibration_leaves_the_old_one_or_the_new(left):
    thresholds = []
    for root in left["calibration"]:
        fitted = load(root)
        assert same_memory(fitted, OLD)
        assert fitted.calibration_state == "applied"
        thresholds.append(fitted.calibration.threshold)
        ModelStore(root).save_calibration(KEY, calibration_of(fitted, 0.5))
        assert load(root).calibration.threshold == 0.5
        assert not leftovers(root)
    assert thresholds == sorted(thresholds)
    assert set(thresholds) == {0.4, 0.6}


def test_killed_roll_back_leaves_either_model_with_its_own_calibration(left):
    """A roll-back killed at any step leaves one of the two models. The next fit and roll-back clear up the rest."""
    outcomes = []
    before = {1: ("old", None), 2: ("old", 0.4), 3: ("new", None)}
    for root in left["roll-back"]:
        outcomes.append(as_served(load(root)))
        assert ModelStore(root).count_stale() == 0
        # What is served, and one that is as good as served, is no version; that which was replaced is.
        kept = before if outcomes[-1] == ("new", 0.6) else before | {4: ("new", 0.6)}
        assert versions_of(root) == kept

        index = root / "Master1" / "Pattern" / "index.faiss"
        assert index.read_bytes() == index_bytes(load(root).memory.embeddings), "mended by the first read"
        ModelStore(root).save_memory(KEY, THIRD, {})
        assert not leftovers(root)
        assert versions_of(root) == kept | {max(kept) + 1: outcomes[-1]}
        ModelStore(root).roll_back(KEY)
        assert as_served(load(root)) == outcomes[-1]
        assert not leftovers(root)
    assert outcomes == sorted(outcomes), "first the new, from some step on the old"
    assert set(outcomes) == {("new", 0.6), ("old", 0.4)}


def test_a_killed_roll_back_of_a_calibration_leaves_the_one_or_the_other(left):
    outcomes = []
    for root in left["roll-back of a calibration"]:
        outcomes.append(as_served(load(root)))
        kept = {1: ("old", None)} if outcomes[-1] == ("old", 0.4) else {1: ("old", None), 2: ("old", 0.4)}
        assert versions_of(root) == kept
        store = ModelStore(root)
        store.save_calibration(KEY, calibration_of(load(root), 0.5))
        assert versions_of(root) == kept | {max(kept) + 1: outcomes[-1]}
        assert not leftovers(root)
    assert outcomes[0] == ("old", 0.4)
    assert outcomes[-1] == ("old", None)
    assert set(outcomes) == {outcomes[0], outcomes[-1]}


def test_fit_killed_while_versions_change_loses_only_the_oldest(left):
    """A fit is killed while it keeps and deletes versions: only the oldest goes, and not before the change is made."""
    outcomes = set()
    before = {3: ("new", None), 4: ("new", 0.6), 5: ("new", 0.61), 6: ("new", 0.62)}
    for root in left["fit with many versions"]:
        served = as_served(load(root))
        kept = versions_of(root)
        assert {number: kept[number] for number in before} == before
        if served == ("new", 0.63):
            assert kept == before | {2: ("old", 0.4)}, "nothing goes before the change is made"
        else:
            assert served == ("third", None)
            assert kept[7] == ("new", 0.63)
        outcomes.add((served, len(kept)))
        ModelStore(root).save_memory(KEY, OLD, {})
        assert len(versions_of(root)) == 5
        assert not leftovers(root)
    assert outcomes == {(("new", 0.63), 5), (("third", None), 6), (("third", None), 5)}


def test_killed_fit_over_damaged_calibration_applies_none(left):
    """No calibration is applied, whatever step the fit was killed at. The next fit sets the damaged one aside."""
    outcomes = set()
    for root in left["fit over a damaged calibration"]:
        try:
            assert as_served(load(root)) == ("new", None)
            outcomes.add("mended")
        except StorageError:
            assert ModelStore(root).load(KEY, with_calibration=False) is not None
            outcomes.add("damaged")
        ModelStore(root).save_memory(KEY, THIRD, {})
        assert as_served(load(root)) == ("third", None)
        assert [path.read_bytes() for path in (root / "Master1/Pattern/history").iterdir()] == [b"{"]
        assert not leftovers(root)
    assert outcomes == {"damaged", "mended"}


def test_a_killed_repair_of_the_index_is_done_by_the_next_read(left):
    for root in left["index repair"]:
        assert same_memory(load(root), OLD)
        assert (root / "Master1" / "Pattern" / "index.faiss").read_bytes() == index_bytes(OLD.embeddings)
        assert not leftovers(root)


def test_killed_first_fit_of_a_recipe_leaves_no_model_of_another_scale(left):
    """A recipe whose model was stored is locked to its scale. Without a model, another scale may be settled."""
    outcomes = set()
    for root in left["recipe"]:
        has_model = ModelStore(root).load(IN_RECIPE) is not None
        bound = RecipeStore(root).mm_per_px(IN_RECIPE.recipe_id)
        assert bound == 0.2 or not has_model, "no inference at another scale passes meanwhile"
        try:
            with RecipeStore(root).locking_scale(IN_RECIPE.recipe_id, 0.3):
                pass
            settled = 0.3
        except Conflict:
            settled = 0.2
        assert RecipeStore(root).mm_per_px(IN_RECIPE.recipe_id) == settled
        assert {path.name for path in (root / "@recipes" / "line 1").iterdir()} <= {".lock", "recipe.json", "models"}
        outcomes.add((has_model, settled))
    assert (True, 0.3) not in outcomes
    assert {(False, 0.3), (True, 0.2)} <= outcomes


def test_killed_upload_leaves_whole_images_and_soon_no_orphan_metadata(left):
    """Every stored image has its metadata, and the next upload removes metadata whose image is missing."""
    counts = []
    for root in left["upload"]:
        samples = DatasetStore(root).samples(KEY, "ok")
        for stored in samples:
            assert stored.metadata() == {"filename": f"{stored.read().decode().split()[1]}.png"}
        counts.append(len(samples))
        DatasetStore(root).add(KEY, "ok", [sample(3)])
        files = {path.name for path in (root / "@recipes/default/datasets/Master1/Pattern/ok").iterdir()}
        images = {name for name in files if name.endswith(".png")}
        assert len(images) == len(samples) + 1
        assert files - {".lock"} == images | {f"{name}.json" for name in images}
    assert counts == sorted(counts)
    assert set(counts) == {0, 1, 2}


@pytest.mark.parametrize(("kind", "n_deleted"), [("deletion", 1), ("clearing", 3)])
def test_killed_deletion_leaves_whole_images_and_soon_no_orphan_metadata(left, kind, n_deleted):
    """Every image left has its metadata, and the next upload removes metadata whose image is gone."""
    counts = []
    for root in left[kind]:
        samples = DatasetStore(root).samples(KEY, "ok")
        assert all(stored.metadata() for stored in samples)
        counts.append(len(samples))
        DatasetStore(root).add(KEY, "ok", [sample(3)])
        assert not leftovers(root)
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (3, 3 - n_deleted)


def test_a_killed_checkpoint_is_whole_or_not_there(left):
    outcomes = set()
    for root in left["checkpoint"]:
        found = Checkpoint(root / "fit", IDENTITY).get(b"image")
        assert found is None or found.embeddings.tobytes() == EMBEDDINGS.tobytes()
        outcomes.add(found is not None)
        Checkpoint(root / "fit", IDENTITY).remove()
        assert not (root / "fit").exists()
    assert outcomes == {False, True}
