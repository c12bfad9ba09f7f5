"""The short form of `soak.cluster`: nodes that are lost and replicas that are replaced, under load."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import soak
from backend.network.weights import Weights

pytestmark = pytest.mark.long
_WITHIN_S = 400


def test_lost_node_and_new_replicas_cost_nothing_that_begins_later(weights: Weights) -> None:
    command = [sys.executable, "-m", "soak.cluster", "node", "redeploy", "--pause", "0"]
    ran = subprocess.run(
        command,
        cwd=Path(soak.__file__).parents[1],
        env=os.environ | {"WEIGHTS": str(weights.path)},
        capture_output=True,
        text=True,
        timeout=_WITHIN_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    assert ran.stdout.count("| promises broken | 0 |") == 2
