"""Fits by workers that are objects of this process or actors of Ray, and their comparison with one process."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.cluster.fit_worker import FitTask, FitWorker, PlacedImage
from backend.cluster.fits import ClusterExecutor
from backend.cluster.workers import Workers, settings_to_send
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import Shape
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.results import FitResult
from backend.utils import NamedImage

N_IMAGES, GIB = 9, 1 << 30
ALONE, TOGETHER = RoiKey("Master1", "Alone"), RoiKey("Master1", "Together")


class OpenedOnce:
    """Stands for `InspectionService` where workers of this process open it."""

    def __init__(self) -> None:
        self._opened: dict[str, InspectionService] = {}

    def open(self, settings: Settings) -> InspectionService:
        if repr(settings) not in self._opened:
            self._opened[repr(settings)] = InspectionService.open(settings)
        return self._opened[repr(settings)]


OPENED_ONCE = OpenedOnce()


class InOneProcess:
    """Stands for Ray where nothing is to be killed: workers are objects, and what is put is itself."""

    memory = 16 * GIB

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 3, "memory": self.memory}

    available_resources = cluster_resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.cluster_resources()}]

    def put(self, value: Any) -> Any:
        return value


class Objects:
    """Stands for `Workers`."""

    def __init__(self, ray: Any, kind: Callable[..., Any], count: int, _cores: int, *arguments: Any) -> None:
        self._ray = ray
        self.actors = [kind(*arguments) for _ in range(count)]

    def memory(self) -> float:
        return self._ray.memory

    def tell(self, method: str, _within_s: float) -> int:
        for actor in self.actors:
            getattr(actor, method)()
        return 0

    def each(self, method: str, next_call: Callable[[int], Any]) -> Iterator[tuple[Any, Any]]:
        for number in reversed(range(len(self.actors))):
            while (call := next_call(number)) is not None:
                yield call[0], getattr(self.actors[number], method)(*call)

    def together(self, method: str, calls: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        return {number: getattr(self.actors[number], method)(*call) for number, call in calls.items()}


def fit_together(
    service: InspectionService,
    folder: Path,
    *,
    ray: Any = None,
    n_workers: int = 2,
    shape: Shape | None = None,
    sent: Settings | None = None,
    meanwhile: Callable[[Any, str, int], None] = lambda *_: None,
    memory: int = 16 * GIB,
    say: Callable[[str], None] = lambda _text: None,
    **how: Any,
) -> FitResult:
    """Fit by workers: actors, or objects where there is no `ray`."""
    images = [PlacedImage(str(folder), path.name) for path in sorted(folder.iterdir())]
    checkpoint = checkpoint_folder(service.settings.models_dir, TOGETHER)
    task = FitTask.of(settings_to_send(sent or service.settings), images, n_workers, shape, checkpoint)
    ray, kind = ray or InOneProcess(), Workers if ray else Objects
    workers: Any = kind(ray, FitWorker, n_workers, 1, task)
    workers.memory = lambda: memory
    executor = ClusterExecutor(ray, workers, task, lambda *_: None, say)
    named = [NamedImage(image.title, partial(image.read, 1 << 20, insecure=False)) for image in images]
    try:
        return fit(
            service,
            TOGETHER,
            named,
            mm_per_px=0.2,
            shapes=[shape] * len(named),
            on_progress=lambda step, done, _total: meanwhile(workers, step, done),
            executor=executor,
            **how,
        )
    finally:
        executor.forget()
        for actor in workers.actors if kind is Workers else ():
            ray.kill(actor)


def fit_alone(service: InspectionService, folder: Path, shape: Shape | None = None, **how: Any) -> FitResult:
    named = [NamedImage(str(path), path.read_bytes) for path in sorted(folder.iterdir())]
    return fit(service, ALONE, named, mm_per_px=0.2, shapes=[shape] * len(named), **how)


def banks_of(service: InspectionService, key: RoiKey) -> list[Any]:
    memory = service.fitted(key).memory
    return list(getattr(memory, "banks", [memory]))


def check_same(service: InspectionService, alone: FitResult, together: FitResult) -> None:
    """Both have the same picks, embeddings, scores and metadata, and explain an image alike."""
    assert replace(together, memory_id="", ok_scores=None) == replace(alone, memory_id="", ok_scores=None)
    assert together.ok_scores == pytest.approx(alone.ok_scores, abs=1e-4)
    for own, other in zip(banks_of(service, TOGETHER), banks_of(service, ALONE), strict=True):
        assert sorted(own.patches) == sorted(other.patches)
        assert own.embeddings[np.argsort(own.patches)] == pytest.approx(
            other.embeddings[np.argsort(other.patches)], abs=1e-5
        )
    ours, theirs = (service.fitted(key).metadata for key in (TOGETHER, ALONE))
    for own, other in zip(ours["images"], theirs["images"], strict=True):
        assert {**own, "scores": None} == {**other, "scores": None}
        assert list(own["scores"].values()) == pytest.approx(list(other["scores"].values()), abs=1e-4)
    same = ours.keys() - {"roi_id", "memory_id", "images", "covering_radius", "covering_radii"}
    assert ours.keys() == theirs.keys()
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    assert ours["covering_radius"] == pytest.approx(theirs["covering_radius"], abs=1e-4)
