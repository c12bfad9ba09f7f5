"""A fit by the workers of a cluster in two rounds, where memory does not hold the embeddings."""

import json
import os
import signal
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from backend.cluster import fit_worker
from backend.common.config import Settings
from backend.common.errors import RunCancelled, TooLarge
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.utils import NamedImage
from tests.cluster.fitting import GIB, N_IMAGES, TOGETHER, InOneProcess, banks_of, fit_together

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_share_a_network")]
N_KEPT = 81  # of pieces of 2, 2, 2, 2 and 1 images, for a memory bank of 20


@pytest.fixture
def small_banks(service: InspectionService, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fits whose memory banks keep 20 embeddings, where two workers have memory for two rounds alone."""
    monkeypatch.setattr(service, "settings", settings.model_copy(update={"coreset_max": 20}))
    return partial(fit_together, service, sent=settings, memory=2 * GIB + 500_000)


@pytest.mark.long
def test_two_rounds_are_the_same_though_workers_are_killed(
    ray: Any, service: InspectionService, good: Path, small_banks: Any
) -> None:
    undisturbed = small_banks(good)
    (before,) = banks_of(service, TOGETHER)
    killed: list[str] = []

    def kill(workers: Any, step: str, done: int) -> None:
        if step == "coreset" and done < N_KEPT:
            step = "round one"
        if step in {"round one", "score"} - set(killed):
            killed.append(step)
            os.kill(ray.get(workers.actors[len(killed) % 2].process_id.remote()), signal.SIGKILL)

    found = small_banks(good, ray=ray, meanwhile=kill)
    assert killed == ["round one", "score"]
    (bank,) = banks_of(service, TOGETHER)
    assert bank.patches.tolist() == before.patches.tolist()
    assert bank.embeddings == pytest.approx(before.embeddings, abs=1e-6)
    assert found.ok_scores == pytest.approx(undisturbed.ok_scores, abs=1e-5)
    assert found.covering_radii == pytest.approx(undisturbed.covering_radii, abs=1e-4)
    assert found.radius_bounds == pytest.approx(undisturbed.radius_bounds, abs=1e-4)


def test_two_rounds_tell_of_each_block_what_they_reach(
    service: InspectionService, good: Path, small_banks: Any
) -> None:
    said: list[str] = []
    found = small_banks(good, profile="recommended", say=said.append)
    metadata = service.fitted(TOGETHER).metadata
    assert metadata["selection_rounds"] == 2
    assert metadata["covering_radius_bounds"] == found.radius_bounds
    assert metadata["covering_radii"] == found.covering_radii
    assert len(found.radius_bounds) == len(banks_of(service, TOGETHER)) == 4
    assert np.all(np.array(found.covering_radii) <= found.radius_bounds)
    assert f"{found.radius_bounds[0]:.3f}, {found.radius_bounds[1]:.3f}" in found.warning
    assert len(said) == 1
    assert "pieces of at most 2 images" in said[0]


def test_two_rounds_are_refused_where_a_disk_is_too_small(
    good: Path, small_banks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_worker.shutil, "disk_usage", lambda _folder: Namespace(free=1_966_079))
    with pytest.raises(TooLarge, match=r"2 × 5 images × 64 patches × 384 × 4 bytes for each of 2 workers = 2\.0 MB"):
        small_banks(good)
    monkeypatch.setattr(fit_worker.shutil, "disk_usage", lambda _folder: Namespace(free=1_966_080))
    assert small_banks(good).radius_bounds is not None


def test_appending_keeps_what_two_rounds_reached(service: InspectionService, good: Path, small_banks: Any) -> None:
    before = small_banks(good)
    shifted = cv2.imencode(".png", cv2.imread(str(good / "0.png"))[8:, 8:])[1].tobytes()
    fit(service, TOGETHER, [NamedImage("shifted.png", lambda: shifted)], mm_per_px=0.2, append=True)
    metadata = service.fitted(TOGETHER).metadata
    assert (metadata["n_images"], metadata["selection_rounds"]) == (N_IMAGES + 1, 2)
    assert metadata["covering_radius_bounds"] == before.radius_bounds
    assert metadata["covering_radius"] == before.covering_radii[0]


def test_two_rounds_can_be_cancelled_in_the_first(service: InspectionService, good: Path, small_banks: Any) -> None:
    def cancel(_workers: Any, step: str, _done: int) -> None:
        for run in service.runs.running() if step == "coreset" else ():
            service.runs.cancel(run["run_id"])

    with pytest.raises(RunCancelled, match="at step coreset"):
        small_banks(good, meanwhile=cancel)


@pytest.mark.usefixtures("without_ray")
def test_command_says_that_there_were_two_rounds_and_what_they_reach(
    settings: Settings, good: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InOneProcess, "memory", 2 * GIB + 500_000)
    for name in ("models_dir", "weights", "input_size", "device", "threads", "coreset_rate"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    monkeypatch.setenv("CORESET_MAX", "20")
    arguments = ("cluster", "fit", "Master1", "TwoRounds", good, "--mm-per-px", "0.2", "--workers", "2")
    status, out, err = command_line(*arguments)
    assert status == 0, err
    told = json.loads(out)
    (radius,), (bound,) = told["covering_radii"], told["covering_radius_bounds"]
    assert (told["selection_rounds"], told["coreset_size"]) == (2, 20)
    assert 0 < radius <= bound <= 2
    assert err.index("two rounds: the memory of the cluster does not hold") < err.index("fitted on 9 images")
    assert f"every patch is within {radius:.3f} of an embedding in it (two rounds prove {bound:.3f};" in err
