"""A fit by the workers of a cluster: the bank and the scores of one process, whoever is killed."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from backend.cluster import workers as cluster_workers
from backend.cluster.fits import ClusterExecutor
from backend.cluster.places import open_place
from backend.common.config import Settings
from backend.common.errors import ConfigError, InvalidImage, InvalidRequest, RunCancelled, TooLarge
from backend.common.roi_key import RoiKey
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import Rect
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from benchmarks import cluster_fit
from harness.object_store import BUCKET, CREDENTIALS, moto_store
from tests.cluster.fitting import (
    GIB,
    N_IMAGES,
    TOGETHER,
    Objects,
    check_same,
    fit_alone,
    fit_together,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("workers_share_a_network")]


@pytest.mark.parametrize(
    ("profile", "kill_at"),
    [
        ("contract", {"extract", "coreset", "score"}),
        pytest.param("recommended", {"coreset"}, marks=pytest.mark.long),
    ],
)
def test_cluster_fits_the_bank_of_one_machine_though_workers_are_killed(
    ray: Any, service: InspectionService, good: Path, profile: Any, kill_at: set[str]
) -> None:
    killed: list[str] = []
    shown: list[str] = []

    def kill(workers: Any, step: str, _done: int) -> None:
        shown.extend(run["step"] for run in service.runs.running())
        if step in kill_at - set(killed):
            killed.append(step)
            victim = ray.get(workers.actors[len(killed) % 2].process_id.remote())
            os.kill(victim, signal.SIGKILL)

    together = fit_together(service, good, ray=ray, meanwhile=kill, profile=profile)
    assert set(killed) == kill_at
    assert set(shown) >= {"extract"}, "/runs shows it"
    check_same(service, fit_alone(service, good, profile=profile), together)
    assert not checkpoint_folder(service.settings.models_dir, TOGETHER).exists()


@pytest.mark.parametrize("how", [{"detail": 2}, {"group_copies": True}, {"profile": "recommended", "detail": 2}])
def test_tiles_masks_and_copies_count_as_on_one_machine(service: InspectionService, good: Path, how: Any) -> None:
    shape = Rect(kind="rect", x=0, y=0, w=70, h=150) if "detail" in how else None
    together = fit_together(service, good, n_workers=3, shape=shape, **how)
    check_same(service, fit_alone(service, good, shape, **how), together)
    judged = infer(service, TOGETHER, NamedImage("1.png", (good / "1.png").read_bytes), Scoring(0.2, shape))
    assert judged.inference.score < together.ok_scores[1], "by the bank with its own patches"


def test_images_of_16_bits_are_read_as_on_one_machine(service: InspectionService, good: Path, tmp_path: Path) -> None:
    for path in sorted(good.iterdir())[:4]:
        wide = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * 16
        (tmp_path / path.name).write_bytes(cv2.imencode(".png", wide)[1].tobytes())
    together = fit_together(service, tmp_path)
    assert service.fitted(TOGETHER).metadata["bit_depth"]["bits"] == 12
    check_same(service, fit_alone(service, tmp_path), together)


def test_broken_image_ends_the_fit_and_the_old_model_stays(
    service: InspectionService, good: Path, tmp_path: Path
) -> None:
    before = fit_together(service, good).memory_id
    (tmp_path / "0.png").write_bytes((good / "0.png").read_bytes())
    (tmp_path / "1.png").write_bytes((good / "1.png").read_bytes()[:2000])
    with pytest.raises(InvalidImage, match=r"1\.png"):
        fit_together(service, tmp_path)
    assert service.fitted(TOGETHER).memory_id == before


@pytest.mark.parametrize("at", ["extract", "coreset", "score"])
def test_cancelled_fit_ends_and_the_old_model_stays(service: InspectionService, good: Path, at: str) -> None:
    before = fit_together(service, good).memory_id

    def cancel(_workers: Any, step: str, _done: int) -> None:
        for run in service.runs.running() if step == at else ():
            service.runs.cancel(run["run_id"])

    with pytest.raises(RunCancelled, match=f"at step {at}"):
        fit_together(service, good, meanwhile=cancel)
    assert service.fitted(TOGETHER).memory_id == before
    assert service.runs.running() == []


def test_fit_is_stored_though_a_worker_is_lost_in_the_end(
    service: InspectionService, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objects, "tell", lambda *_: 1)
    with capture_logs() as logs:
        assert fit_together(service, good).memory_id == service.fitted(TOGETHER).memory_id
    assert "fit.embeddings_left" in [line["event"] for line in logs]


def test_cluster_without_the_memory_refuses_before_it_reads_an_image(
    service: InspectionService, tmp_path: Path
) -> None:
    (tmp_path / "0.png").write_bytes(b"never read")
    expected = (
        r"1 images × 64 patches × \(384 × 4 \+ 64\) bytes = 0\.1 MB .*has 1\.1 GB; two rounds.*: 1\.1 GB; add machines"
    )
    with pytest.raises(TooLarge, match=expected):
        fit_together(service, tmp_path, n_workers=1, memory=GIB)


def test_worker_with_another_extractor_is_refused(service: InspectionService, good: Path) -> None:
    other = service.settings.model_copy(update={"input_size": 126})
    with pytest.raises(ConfigError, match="another extractor"):
        fit_together(service, good, sent=other)


def test_bank_of_every_embedding_is_refused(service: InspectionService, good: Path) -> None:
    with pytest.raises(InvalidRequest, match="set CORESET_RATE below 1"):
        fit_together(service, good, keep_all=True)


@pytest.mark.usefixtures("without_ray")
def test_command_fits_what_is_in_a_bucket_and_stores_it_there(
    settings: Settings, good: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_store() as endpoint:
        environment = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "MODELS_URL": f"s3://{BUCKET}/models"}
        for name in ("models_dir", "weights", "input_size", "device", "threads"):
            environment[name.upper()] = str(getattr(settings, name))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        place, names = open_place(f"s3://{BUCKET}/lots", insecure=False), ["0.png", "1.png", "2.png", "late/3.png"]
        for path, name in zip(sorted(good.iterdir()), names, strict=False):
            place.write(f"good/{name}", path.read_bytes())
        place.write("bad/1.png", b"a defective part")
        place.write("good/._1.png", b"of macOS")
        arguments = ("cluster", "fit", "Master1", "Pattern", f"s3://{BUCKET}/lots", "--mm-per-px", "0.2")
        status, _, err = command_line(*arguments)
        assert (status, "the names of the folders suggest" in err) == (2, True)
        urls = (f"s3://{BUCKET}/lots/good/", f"s3://{BUCKET}/lots/good/late")
        arguments = (*arguments[:4], *urls, *arguments[5:])
        status, out, err = command_line(*arguments, "--all-scores", "--workers", "2")
        assert status == 0, err
        assert f"4 images in s3://{BUCKET}/lots/good\n" in err
        told = json.loads(out)
        assert list(told["ok_scores"]) == [f"s3://{BUCKET}/lots/good/{name}" for name in names]
        assert told["n_images"] == len(names), "each once"
        stored = InspectionService.open(Settings())
        assert len(stored.fitted(RoiKey("Master1", "Pattern")).memory.embeddings) == told["coreset_size"]


@pytest.mark.usefixtures("without_ray")
def test_command_fits_folders(
    settings: Settings, good: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models_dir", "weights", "input_size", "device", "threads", "coreset_rate"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    status, out, err = command_line("cluster", "fit", "Master1", "Folders", good, "--mm-per-px", "0.2")
    assert status == 0, err
    assert f"{N_IMAGES} images in {good}" in err
    assert "fitted on 9 images: the memory bank keeps 52 of 576 patch embeddings" in err
    assert json.loads(out)["ok_scores_summary"]["n"] == N_IMAGES


@pytest.mark.usefixtures("without_ray")
def test_command_prints_the_reply_though_it_is_stopped_after_the_fit(
    settings: Settings, good: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(_executor: ClusterExecutor) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClusterExecutor, "forget", stopped)
    for name in ("models_dir", "weights", "input_size", "device", "threads", "coreset_rate"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    status, out, err = command_line("cluster", "fit", "Master1", "Stopped", good, "--mm-per-px", "0.2")
    assert (status, json.loads(out)["n_images"]) == (0, N_IMAGES)
    assert "stopped after the model was stored" in err


def test_workers_select_from_synthetic_embeddings_what_one_process_selects(ray: Any) -> None:
    alone = cluster_fit.in_one_process(100, (4, 8))
    together, n_killed = cluster_fit.by_workers(ray, 100, 2, [0.5], (4, 8))
    assert n_killed == 1
    difference = cluster_fit.Difference.of(together, alone)
    assert (difference.picks, len(together.picks)) == (0, 32)
    assert difference.distance < 1e-4


def test_what_ray_prints_is_no_result_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextlib.contextmanager
    def talking(_cores: int | None) -> Iterator[None]:
        print("(raylet) a worker died")
        yield

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster_workers, "local_ray", talking)
    with cluster_workers.connected():
        print("(FitWorker pid=7) loaded")
    print("result")
    assert capsys.readouterr() == ("result\n", "(raylet) a worker died\n(FitWorker pid=7) loaded\n")
