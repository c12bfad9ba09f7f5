"""An archive judged by the workers of a cluster: a row for each image, whoever is killed, with the scores of /infer."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from backend.cluster.archives import Counts, Scorer, Task, conditions_of, images_of, judge_archive
from backend.cluster.parts import ArchiveRun
from backend.cluster.places import FolderPlace, open_place
from backend.cluster.workers import Workers, settings_to_send
from backend.common.config import Settings
from backend.common.errors import ConfigError, IncompatibleMemory, InvalidRequest
from backend.common.roi_key import RoiKey
from backend.network.weights import Weights
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from harness.object_store import BUCKET, CREDENTIALS, moto_store
from tests.factories import store_threshold

pytestmark = pytest.mark.slow
KEY, SCORING = RoiKey("Master1", "Pattern"), Scoring(0.2)
N_IMAGES, PER_PART = 30, 4
BROKEN = "lot 1/05.png"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Settings:
    models = tmp_path_factory.mktemp("models")
    return Settings(models_dir=models, weights=weights.path, input_size=112, device="cpu", threads=1)


@pytest.fixture(scope="module")
def fitted(settings: Settings, images: list[Any]) -> InspectionService:
    """A service whose ROI is fitted and calibrated."""
    service = InspectionService.open(settings)
    good = [cv2.imencode(".png", image)[1].tobytes() for image in images[:3]]
    fit(service, KEY, [NamedImage(f"{n}.png", lambda n=n: good[n]) for n in range(3)], mm_per_px=0.2)
    store_threshold(settings.models_dir, 0.3)
    return service


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, images: list[Any]) -> Path:
    """Images in two folders, one of them broken, and what is none."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(N_IMAGES):
        small = cv2.resize(images[number % len(images)], (60 + number, 50))
        path = folder / f"lot {number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(cv2.imencode(".png", small)[1].tobytes())
    (folder / BROKEN).write_bytes((folder / BROKEN).read_bytes()[:200])
    (folder / "notes.txt").write_text("none")
    return folder


def run_of(service: InspectionService, source: str, *, heatmaps: bool = False) -> tuple[ArchiveRun, list[str]]:
    names = images_of(open_place(source, insecure=True), source, lambda folder: folder == "@eaDir")
    return ArchiveRun.of(source, names, PER_PART, heatmaps, conditions_of(service, KEY, SCORING)), names


def rows_in(place: Any) -> list[dict[str, Any]]:
    from pyarrow import parquet

    parts = [name for name in sorted(place.names()) if name.endswith(".parquet")]
    return [row for part in parts for row in parquet.read_table(io.BytesIO(place.read(part))).to_pylist()]


def check_rows(rows: list[dict[str, Any]], service: InspectionService, archive: Path) -> None:
    """Each image has one row, with what the service says of it to the last digit."""
    assert [row["path"] for row in rows] == sorted(path.relative_to(archive).as_posix() for path in archive.glob("*/*"))
    for row in rows:
        if row["path"] == BROKEN:
            assert "05.png" in row["error"]
            assert row["score"] is None
            continue
        content = (archive / row["path"]).read_bytes()
        said = infer(service, KEY, NamedImage("a.png", lambda content=content: content), SCORING)
        assert (row["error"], row["score"], row["decision"]) == (None, said.inference.score, said.decision)
        assert row["threshold"] == said.calibration.threshold
        assert [region["area_mm2"] for region in row["regions"]] == [r.area_mm2 for r in said.inference.regions]


def test_killed_workers_and_drivers_lose_no_row_and_make_none_twice(
    ray: Any, fitted: InspectionService, settings: Settings, archive: Path, tmp_path: Path
) -> None:
    run, names = run_of(fitted, str(archive))
    out = FolderPlace(tmp_path / "results")
    task = Task(settings_to_send(settings), KEY, SCORING, str(out.folder), run)
    workers = Workers(ray, Scorer, 2, 1, task)

    class Killed(Exception):
        pass

    def die(_number: int) -> None:
        raise Killed

    missing = run.missing(out, "results")
    assert len(missing) == 8
    with contextlib.suppress(Killed):
        judge_archive(workers, run, names, missing, die)
    for actor in workers.actors:
        ray.kill(actor)
    left = run.missing(out, "results")
    assert 0 < len(left) < 8

    workers = Workers(ray, Scorer, 2, 1, task)
    victims = [ray.get(actor.process_id.remote()) for actor in workers.actors]
    killer = threading.Timer(0.05, os.kill, (victims[0], signal.SIGKILL))
    killer.start()
    counts = judge_archive(workers, run, names, left, lambda _number: None)
    killer.join()
    for actor in workers.actors:
        ray.kill(actor)
    assert sum(counts) == sum(len(run.images_of(part, names)) for part in left)
    assert run.missing(out, "results") == []
    check_rows(rows_in(out), fitted, archive)


def test_model_that_changes_meanwhile_stops_the_run(
    ray: Any, fitted: InspectionService, settings: Settings, archive: Path, tmp_path: Path
) -> None:
    run, names = run_of(fitted, str(archive))
    stale = ArchiveRun.of(run.source, names, PER_PART, False, {**run.conditions, "threshold": 0.123})
    workers = Workers(ray, Scorer, 1, 1, Task(settings_to_send(settings), KEY, SCORING, str(tmp_path), stale))
    with pytest.raises(IncompatibleMemory, match="fitted or calibrated anew during the run"):
        judge_archive(workers, stale, names, [0], lambda _number: None)
    ray.kill(workers.actors[0])
    assert rows_in(FolderPlace(tmp_path)) == []


def test_archive_in_an_object_store_gets_its_heatmaps(
    ray: Any, fitted: InspectionService, settings: Settings, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with moto_store() as endpoint:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        source, out = f"s3://{BUCKET}/archive", f"s3://{BUCKET}/results"
        place = open_place(source, insecure=False)
        for path in sorted(archive.glob("*/*"))[:3]:
            place.write(path.name, path.read_bytes())
        run, names = run_of(fitted, source, heatmaps=True)
        results = open_place(out, insecure=False)
        scorer = Scorer(Task(settings_to_send(settings), KEY, SCORING, out, run))
        assert run.missing(results, out) == [0]
        assert sum(scorer.score(0, names)) == 3
        assert run.missing(results, out) == []
        rows = rows_in(results)
    assert [row["path"] for row in rows] == names
    assert all(row["heatmap_png"].startswith(b"\x89PNG") for row in rows)


def test_more_workers_than_cores_are_refused_at_once(ray: Any) -> None:
    with pytest.raises(ConfigError, match="need 6 cores together, but the cluster has 2"):
        Workers(ray, Scorer, 3, 2)


def test_archive_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir" / "a.png").write_bytes(b"thumbnail")
    with pytest.raises(InvalidRequest, match="archive has no images"):
        images_of(FolderPlace(tmp_path), "archive", lambda folder: folder == "@eaDir")


@pytest.mark.long
def test_command_goes_on_where_it_was_killed(
    fitted: InspectionService, settings: Settings, archive: Path, tmp_path: Path
) -> None:
    out = tmp_path / "results"
    command = [sys.executable, "-m", "backend", "cluster", "infer", "Master1", "Pattern", str(archive)]
    command += ["--mm-per-px", "0.2", "--out", str(out), "--per-part", "4", "--workers", "1"]
    own = {"MODELS_DIR": settings.models_dir, "WEIGHTS": settings.weights, "INPUT_SIZE": 112, "THREADS": 1}
    environment = {**os.environ, "DEVICE": "cpu", **{name: str(value) for name, value in own.items()}}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while len(list(out.glob("part-*"))) < 2:
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.kill()
    first.communicate()
    n_before = len(list(out.glob("part-*")))
    assert n_before < 8
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    told = re.search(r"30 images, (\d+) of them judged before", done.stderr)
    assert told is not None
    assert int(told[1]) >= 4 * n_before, "a worker may write its part after its driver is gone"
    check_rows(rows_in(FolderPlace(out)), fitted, archive)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, "now 0 images" in again.stderr) == (0, True)


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4).plus(Counts(failed=1)) == Counts(1, 2, 3, 5)
