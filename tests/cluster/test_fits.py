"""A fit by the workers of a cluster: the bank and the scores of one process, whoever is killed."""

import contextlib
import json
import os
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from backend.cluster import fit_worker
from backend.cluster import workers as cluster_workers
from backend.cluster.fit_worker import FitTask, FitWorker, PlacedImage
from backend.cluster.fits import ClusterExecutor
from backend.cluster.places import open_place
from backend.cluster.workers import Workers, settings_to_send
from backend.common.config import Settings
from backend.common.errors import ConfigError, InvalidImage, InvalidRequest, RunCancelled, TooLarge
from backend.common.roi_key import RoiKey
from backend.disk.layout import checkpoint_folder
from backend.network.weights import Weights
from backend.roi_mask import Rect, Shape
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.results import FitResult
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from benchmarks import cluster_fit
from harness.object_store import BUCKET, CREDENTIALS, moto_store

pytestmark = pytest.mark.slow
N_IMAGES, GIB = 9, 1 << 30
N_KEPT = 81  # of pieces of 2, 2, 2, 2 and 1 images, for a memory bank of 20
ALONE, TOGETHER = RoiKey("Master1", "Alone"), RoiKey("Master1", "Together")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Settings:
    models = tmp_path_factory.mktemp("models")
    given: dict[str, Any] = {"input_size": 112, "device": "cpu", "threads": 1, "coreset_rate": 0.1}
    return Settings(models_dir=models, weights=weights.path, **given)


@pytest.fixture(scope="module")
def service(settings: Settings) -> InspectionService:
    return InspectionService.open(settings)


class OpenedOnce:
    """Stands for `InspectionService` where workers of this process open it."""

    def __init__(self) -> None:
        self._opened: dict[str, InspectionService] = {}

    def open(self, settings: Settings) -> InspectionService:
        if repr(settings) not in self._opened:
            self._opened[repr(settings)] = InspectionService.open(settings)
        return self._opened[repr(settings)]


OPENED_ONCE = OpenedOnce()


@pytest.fixture(autouse=True)
def workers_share_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_worker, "InspectionService", OPENED_ONCE)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, images: list[Any]) -> Path:
    """A folder of good parts: crops of real images, and a copy of one of them."""
    folder = tmp_path_factory.mktemp("good")
    for number in range(N_IMAGES - 1):
        image = images[number % 2]
        crop = image[20 * number : 20 * number + 160, 15 * number : 15 * number + 160]
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", crop)[1].tobytes())
    (folder / "8.png").write_bytes((folder / "3.png").read_bytes())
    return folder


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


@pytest.mark.parametrize(
    ("profile", "kill_at"), [("contract", {"extract", "coreset", "score"}), ("recommended", {"coreset"})]
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


@pytest.fixture
def small_banks(service: InspectionService, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fits whose memory banks keep 20 embeddings, where two workers have memory for two rounds alone."""
    monkeypatch.setattr(service, "settings", settings.model_copy(update={"coreset_max": 20}))
    return partial(fit_together, service, sent=settings, memory=2 * GIB + 500_000)


def test_two_rounds_are_the_same_though_workers_are_killed(
    ray: Any, service: InspectionService, good: Path, small_banks: Any
) -> None:
    undisturbed = small_banks(good)
    (before,) = banks_of(service, TOGETHER)
    killed: list[str] = []

    def kill(workers: Any, step: str, done: int) -> None:
        if step == "coreset":
            step = "round one" if done < N_KEPT else "round two"
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


def test_worker_with_another_extractor_is_refused(service: InspectionService, good: Path) -> None:
    other = service.settings.model_copy(update={"input_size": 126})
    with pytest.raises(ConfigError, match="another extractor"):
        fit_together(service, good, sent=other)


def test_bank_of_every_embedding_is_refused(service: InspectionService, good: Path) -> None:
    with pytest.raises(InvalidRequest, match="set CORESET_RATE below 1"):
        fit_together(service, good, keep_all=True)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' workers are objects of this process."""
    monkeypatch.setattr(cluster_workers, "connected", lambda: contextlib.nullcontext(InOneProcess()))
    monkeypatch.setattr(cluster_workers, "Workers", Objects)


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
