"""Models, images and what is shown of long work where files that somebody has open stay, as on Windows."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from backend.common import files
from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.layout import current_files
from backend.disk.progress import RunBoard
from backend.disk.recipes import RecipeStore
from backend.storage import ModelStore
from tests.factories import KEY, listed, memory_of, served, snapshot, store_memory, store_threshold

pytestmark = pytest.mark.usefixtures("windows_files")

MEMORY = Path("Master1", "Pattern", "memory.npz")


@pytest.fixture
def readers(tmp_path):
    """Opens each file below the models folder again and again, each for some milliseconds; the names that it opened."""
    stop = threading.Event()
    opened = []

    def read():
        while not stop.is_set():
            for path in list(tmp_path.rglob("*.*")):
                try:
                    with path.open("rb"):
                        opened.append(path.name)
                        time.sleep(0.002)
                except OSError:  # a folder, or replaced just now
                    continue
                time.sleep(0.002)

    thread = threading.Thread(target=read)
    thread.start()
    yield opened
    stop.set()
    thread.join()


def wait_until_opened(readers, suffix):
    deadline = time.monotonic() + 10
    while not any(name.endswith(suffix) for name in readers):
        assert time.monotonic() < deadline, "or the test shows nothing"
        time.sleep(0.001)


def sample(number):
    return NewSample(lambda: b"image %d" % number, ".png", {"filename": f"{number}.png"})


@pytest.mark.slow
def test_models_are_replaced_rolled_back_and_tidied_under_readers(tmp_path, readers):
    store = ModelStore(tmp_path, keep_versions=2)
    for seed in range(1, 6):
        store.save_memory(KEY, memory_of(seed), {})
        store_threshold(tmp_path, seed / 10)
        if seed == 3:  # there are versions now: each kind of file is read before the next one is replaced
            for name in ("memory.npz", "calib.json", "version.json"):
                wait_until_opened(readers, name)
    assert served(tmp_path) == (5, 0.5)
    store.roll_back(KEY)
    assert served(tmp_path) == (5, None), "as it was before its calibration"
    assert len(listed(tmp_path, store=store)) == 2
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_images_are_stored_and_deleted_under_readers(tmp_path, readers):
    store = DatasetStore(tmp_path)
    names = store.add(KEY, "ok", [sample(number) for number in range(3)])
    wait_until_opened(readers, ".png")
    store.remove(store.find(KEY, "ok", names[0]))
    assert list(store.names(KEY, "ok")) == sorted(names[1:])
    assert store.clear(KEY, "ok") == 2
    assert store.names(KEY, "ok") == {}


def test_recipes_are_settled_under_readers(tmp_path, readers):
    store = RecipeStore(tmp_path)
    for number in range(5):
        with store.locking_scale(f"line {number}", 0.2):
            pass
        assert store.mm_per_px(f"line {number}") == 0.2
    wait_until_opened(readers, ".json")


def test_ended_work_is_shown_no_more_whoever_reads_its_file(tmp_path, readers):
    board = RunBoard(tmp_path)
    for _ in range(3):
        with board.run("fit", KEY, 3) as run:
            for done in range(4):
                run.show({"step": "extract", "done": done, "total": 3})
                time.sleep(0.005)
            assert [work["done"] for work in board.running()] == [3]
    assert board.running() == []
    assert list((tmp_path / ".runs").iterdir()) == []
    wait_until_opened(readers, ".json")


def test_the_service_itself_keeps_no_file_open(tmp_path, monkeypatch):
    """Nothing is tried twice where nobody else has a file open."""
    monkeypatch.setattr(files, "_WINDOWS", False)
    for seed in (1, 2):
        store_memory(tmp_path, seed)
        store_threshold(tmp_path, 0.5)
    ModelStore(tmp_path).roll_back(KEY)
    assert served(tmp_path) == (2, None)
    store = DatasetStore(tmp_path)
    names = store.add(KEY, "ok", [sample(1)])
    store.samples(KEY, "ok")[0].read()
    store.samples(KEY, "ok")[0].metadata()
    store.remove(store.find(KEY, "ok", names[0]))


def test_model_whose_file_stays_open_is_left_as_it_was(tmp_path, monkeypatch):
    store_memory(tmp_path, 1)
    before = snapshot(tmp_path)[MEMORY.as_posix()]
    monkeypatch.setattr(files, "_REPLACE_PATIENCE_S", 0.05)
    with (tmp_path / MEMORY).open("rb"):
        with pytest.raises(StorageError, match="the model cannot be stored"):
            store_memory(tmp_path, 2)
        assert snapshot(tmp_path)[MEMORY.as_posix()] == before
        assert served(tmp_path) == (1, None)
    store_memory(tmp_path, 2)
    assert served(tmp_path) == (2, None)


def test_ids_that_no_name_of_windows_may_have_were_never_fitted(tmp_path, monkeypatch):
    """Older backends kept them in folders of these very names, for which Windows has an error of its own."""
    asked, stat = [], Path.stat

    def refusing(path, **options):
        if set('*?"<>|') & set(str(path)):
            asked.append(path)
            raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refusing)
    key = RoiKey('a*b?"<>|', "Pattern")
    assert ModelStore(tmp_path).load(key) is None
    assert asked, "or the test shows nothing"
    store_memory(tmp_path, 1, key)
    assert served(tmp_path, key) == (1, None)


def test_image_is_not_found_by_another_name_that_opens_its_file(tmp_path, monkeypatch):
    """Windows opens ``part.png`` as ``PART.PNG``, too: the image that was uploaded as that is meant."""
    store = DatasetStore(tmp_path)
    (uploaded,) = store.add(KEY, "ok", [NewSample(lambda: b"uploaded", ".png", {"filename": "PART.PNG"})])
    folder = store.folder(KEY) / "ok"
    (folder / "part.png").write_bytes(b"put there by hand")
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: is_file(path) or path.name == "PART.PNG")
    assert store.find(KEY, "ok", "PART.PNG").name == uploaded
    assert store.find(KEY, "ok", "part.png").read() == b"put there by hand"


def test_current_files_of_awkward_ids_have_names_that_windows_takes(tmp_path):
    for role in ("CON", "aux.png", "a:b", "x.", "x ", "a*b", "a\\b", "com1", "nul"):
        names = current_files(tmp_path, RoiKey(role, "Pattern")).memory.relative_to(tmp_path).parts
        assert not any(set('<>:"/\\|?*') & set(name) or name[-1] in ". " for name in names)
        assert names[0].split(".")[0].lower() not in {"con", "aux", "com1", "nul"}
    assert os.sep not in names[0]
