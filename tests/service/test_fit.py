"""A fit: what it stores, how far it is, how it goes on, and what it refuses."""

import errno

import pytest
from structlog.testing import capture_logs

from backend.bank import memory_limits
from backend.common import files
from backend.common.config import Settings
from backend.common.errors import InvalidRequest, StorageError, TooLarge
from backend.common.roi_key import RoiKey
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY, calibration_of, encoded, service_with


@pytest.fixture(scope="module")
def features(full_features):
    return full_features


@pytest.mark.slow
def test_the_same_images_fitted_twice_write_the_same_memory(features, images, tmp_path):
    content = [encoded(image) for image in images[:2]]
    written = []
    for name in ("once", "again"):
        service = InspectionService(Settings(models_dir=tmp_path / name), features, ModelStore(tmp_path / name))
        named = [NamedImage(f"{i}.png", lambda i=i: content[i]) for i in range(2)]
        result = fit(service, KEY, named, mm_per_px=0.2)
        assert (result.n_embeddings, result.coreset_size, result.token_hw) == (2048, 41, (32, 32))
        written.append((tmp_path / name / "Master1" / "Pattern" / "memory.npz").read_bytes())
    assert written[0] == written[1]


@pytest.mark.slow
def test_fit_of_default_warns_of_recipes_with_stale_calibrations(service, images):
    """A fit of the default recipe logs which recipes have calibrations of its model that are stale now."""
    line = RoiKey("Master1", "Pattern", "line 1")
    for numbers in ((0, 1), (2, 3)):
        content = [encoded(images[number]) for number in numbers]
        named = [NamedImage(f"{i}.png", lambda i=i, content=content: content[i]) for i in range(2)]
        with capture_logs() as logged:
            fit(service, KEY, named, mm_per_px=0.2)
        if service.store.load(line).calibration is None:
            service.store.save_calibration(line, calibration_of(service.store.load(line)))
    assert [line["recipe_id"] for line in logged if line["event"] == "calibration.stale"] == ["line 1"]


def test_first_fit_of_a_recipe_that_fails_once_stored_locks_the_recipe(service, images, monkeypatch):
    """The disk fails after the model was stored, so the recipe keeps the scale of that model."""
    line, sync, content = RoiKey("Master1", "Pattern", "line 1"), files.sync_folder, encoded(images[0])

    def fails(folder):
        if (folder / "memory.npz").exists():
            raise OSError(errno.EIO, "Input/output error")
        sync(folder)

    monkeypatch.setattr(files, "sync_folder", fails)
    with pytest.raises(StorageError, match="Input/output error"):
        fit(service, line, [NamedImage("a.png", lambda: content)], mm_per_px=0.2)
    assert service.store.load(line) is not None
    assert service.recipes.mm_per_px("line 1") == 0.2


@pytest.mark.slow
def test_the_same_fit_twice_gives_the_same_bytes(features, named, tmp_path):
    service = service_with(features, tmp_path)
    memory = tmp_path / "Master1" / "Pattern" / "memory.npz"
    fit(service, KEY, named[:3], mm_per_px=1)
    first = memory.read_bytes()
    memory.unlink()
    fit(service, KEY, named[:3], mm_per_px=1)
    assert memory.read_bytes() == first


@pytest.mark.slow
def test_a_fit_says_how_far_it_is(features, named, tmp_path):
    seen = []
    fit(
        service_with(features, tmp_path),
        KEY,
        named[:3],
        mm_per_px=1,
        on_progress=lambda step, done, total: seen.append((step, done, total)),
    )
    assert [report for report in seen if report[0] == "extract"] == [("extract", done, 3) for done in (1, 2, 3)]
    coreset = [report[1:] for report in seen if report[0] == "coreset"]
    assert coreset[-1] == (62, 62)
    assert coreset == sorted(coreset)


@pytest.mark.slow
def test_a_fit_goes_on_where_it_was_stopped_and_gives_the_same_bytes(features, named, tmp_path):
    memory = tmp_path / "Master1" / "Pattern" / "memory.npz"
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:3], mm_per_px=1)
    uninterrupted = memory.read_bytes()
    memory.unlink()

    def stop(step, done, total):
        if done == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / ".fit-1"
    with pytest.raises(KeyboardInterrupt):
        fit(service, KEY, named[:3], mm_per_px=1, on_progress=stop, checkpoint=checkpoint)
    assert len(list(checkpoint.iterdir())) == 2
    assert not memory.exists()
    fit(service, KEY, named[:3], mm_per_px=1, checkpoint=checkpoint)
    assert memory.read_bytes() == uninterrupted
    assert not checkpoint.exists()
    assert infer(service, KEY, named[0], Scoring(1)).fitted.memory.token_hw == (32, 32), (
        "the interrupted fit gave its place back"
    )


def test_a_fit_that_does_not_fit_into_memory_changes_nothing(features, named, tmp_path, monkeypatch):
    service = service_with(features, tmp_path)
    monkeypatch.setattr(memory_limits, "free_memory", lambda: 1_000_000)
    with pytest.raises(TooLarge, match=r"2 images × 1024 patches × .* 1 MB are free"):
        fit(service, KEY, named[:2], mm_per_px=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("role_id", ["Master1", "x" * 300])
def test_ids_that_the_file_system_cannot_hold_are_refused_before_any_work(features, named, tmp_path, role_id):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    (tmp_path / "master1").symlink_to(tmp_path / "Master1")  # as if case did not matter here
    unread = NamedImage("never.png", lambda: pytest.fail("the image was read"))
    with pytest.raises(InvalidRequest, match="ids must not" if len(role_id) > 99 else "use other ids"):
        fit(service, RoiKey(role_id.lower(), "Pattern"), [unread], mm_per_px=1)
