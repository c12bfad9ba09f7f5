"""Feedback that is killed before every write: bank, calibration and scores are the old ones or the new, see `dying`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.storage import ModelStore
from tests.disk.dying import FEEDBACK, NEW, OLD, SCORES_AFTER, SCORES_BEFORE
from tests.factories import KEY, calibration_of, index_bytes, load, same_memory

pytestmark = pytest.mark.slow
BEFORE, AFTER = ("old", 0.4, SCORES_BEFORE), ("new", 0.6, SCORES_AFTER)
COVERED = ("old", 0.6, SCORES_AFTER)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What was left of each kind of feedback, by the step at which it died; the last was completed."""
    folder = tmp_path_factory.mktemp("dying")
    # Coverage would write a file for each of some hundred deaths.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-m", "tests.disk.dying", folder, "feedback"]
    subprocess.run(command, cwd=Path(__file__).parents[2], env=environment, check=True)
    return {kind: sorted((folder / kind).iterdir(), key=lambda path: int(path.name)) for kind in FEEDBACK}


def as_served(root):
    """The memory bank that judges, the threshold that is applied, and the scores that it was chosen from."""
    fitted = load(root)
    (name,) = (name for name, memory in {"old": OLD, "new": NEW}.items() if same_memory(fitted, memory))
    assert fitted.calibration_state == "applied"
    return name, fitted.calibration.threshold, ModelStore(root).calibration_inputs(fitted)


def leftovers(root):
    names = [path.name for path in (root / "Master1" / "Pattern").iterdir()]
    scores = [name for name in names if name.endswith(".scores.json")]
    return [name for name in names if name.startswith((".tmp-", ".calib.next"))] + scores[1:]


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        pytest.param("good", BEFORE, AFTER, marks=pytest.mark.long),
        ("good and covered", BEFORE, COVERED),
        ("bad", BEFORE, COVERED),
        ("roll-back of good", AFTER, BEFORE),
        ("roll-back of bad", COVERED, BEFORE),
    ],
)
def test_killed_feedback_leaves_all_old_or_all_new(left, kind, first, last):
    """From some step on bank, threshold and scores are the new ones. The next change clears what was left."""
    outcomes = [as_served(root) for root in left[kind]]
    turn = outcomes.index(last)
    assert 0 < turn < len(outcomes)
    assert outcomes == [first] * turn + [last] * (len(outcomes) - turn)
    assert any(leftovers(root) for root in left[kind])
    assert not leftovers(left[kind][-1]), "one that was completed leaves nothing"
    for root, outcome in zip(left[kind], outcomes, strict=True):
        fitted = load(root)
        index = root / "Master1" / "Pattern" / "index.faiss"
        assert index.read_bytes() == index_bytes(fitted.memory.embeddings), "mended by the first read"
        ModelStore(root).save_calibration(KEY, calibration_of(fitted, 0.5))
        assert load(root).calibration.threshold == 0.5
        assert not leftovers(root)
        ModelStore(root).roll_back(KEY)
        assert as_served(root) == outcome, "one roll-back brings all of it back"


@pytest.mark.parametrize("kind", ["good", "good and covered", "bad"])
def test_one_roll_back_takes_back_bank_calibration_and_scores(left, kind):
    root = left[kind][-1]
    assert as_served(root) != BEFORE
    (facts,) = (version.facts for version, _ in ModelStore(root).versions(KEY) if version.number == 2)
    assert facts.replaced_by == "feedback"
    ModelStore(root).roll_back(KEY, 2)
    assert as_served(root) == BEFORE
