"""The memory of a worker of a fit, and that of the command."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from backend.bank import memory_limits
from backend.bank.copies import BYTES_PER_LOOK
from backend.bank.embedding import embed_all
from backend.cluster import fit_worker
from backend.cluster.fit_worker import ExtractionSpec, FitTask, FitWorker, PlacedImage
from backend.cluster.places import open_place
from backend.cluster.workers import settings_to_send
from backend.features import DinoV2Features
from tests.factories import service_with

N_IMAGES = 5


@pytest.fixture
def folder(tmp_path: Path, images: list[Any]) -> Path:
    good = tmp_path / "good"
    good.mkdir()
    for number in range(N_IMAGES):
        crop = images[0][20 * number : 20 * number + 120, :120]
        (good / f"{number}.png").write_bytes(cv2.imencode(".png", crop)[1].tobytes())
    return good


def test_worker_that_begins_again_holds_no_second_copy_of_its_embeddings(
    small_features: DinoV2Features, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []

    def counted(images: Any, *given: Any, **options: Any) -> Any:
        at_once.append(len(images))
        return embed_all(images, *given, **options)

    service = service_with(small_features, tmp_path)
    monkeypatch.setattr(fit_worker, "InspectionService", SimpleNamespace(open=lambda _: service))
    monkeypatch.setattr(fit_worker, "worker_settings", lambda _: service.settings)
    monkeypatch.setattr(fit_worker, "embed_all", counted)
    opened: list[str] = []
    monkeypatch.setattr(
        fit_worker, "open_place", lambda address, **how: opened.append(address) or open_place(address, **how)
    )
    monkeypatch.setattr(fit_worker, "_BYTES_AT_ONCE", 2 * 64 * 384 * 4)
    images = [PlacedImage(str(folder), path.name) for path in sorted(folder.iterdir())]
    worker = FitWorker(FitTask.of(settings_to_send(service.settings), images, 1, None, tmp_path / "kept"))
    spec = ExtractionSpec("contract", 1, small_features.identity, None, None)
    total, count = worker.ask(0, spec, np.arange(N_IMAGES), None, "total", 0)
    assert (total.shape, count) == ((384,), N_IMAGES * 64)
    assert at_once == [2, 2, 1]
    assert opened == [str(folder)], "once for all images"


def test_command_whose_machine_cannot_compare_the_images_refuses_at_once(
    folder: Path, tmp_path: Path, command_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setattr(memory_limits, "free_memory", lambda: 1000)
    status, _, err = command_line("cluster", "fit", "Master1", "Pattern", folder, "--mm-per-px", "0.2")
    assert status == 1
    assert f"{N_IMAGES} images × {BYTES_PER_LOOK} bytes = 0 MB" in err
