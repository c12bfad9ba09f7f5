"""What a recipe settles: its scale, once, for everybody."""

import json
import os
import subprocess
import sys
import threading
import time

import filelock
import pytest

from backend.common import files
from backend.common.errors import Conflict, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import recipes
from backend.disk.recipes import RecipeStore
from backend.storage import ModelStore
from tests.factories import memory_of


def settle(root, recipe_id, mm_per_px):
    with RecipeStore(root).locking_scale(recipe_id, mm_per_px):
        pass


def test_the_first_scale_is_the_recipes_and_no_other_is_accepted(tmp_path):
    store = RecipeStore(tmp_path)
    assert store.mm_per_px("line 1") is None
    store.check("line 1", 0.3)
    settle(tmp_path, "line 1", 0.2)
    assert store.mm_per_px("line 1") == 0.2
    store.check("line 1", 0.2)
    store.check("line 1", 0.2 * (1 + 1e-9))
    with pytest.raises(Conflict, match=r"mm_per_px is 0\.3.*'line 1' is locked to mm_per_px 0\.2"):
        store.check("line 1", 0.3)
    with pytest.raises(Conflict):
        settle(tmp_path, "line 1", 0.3)
    assert store.mm_per_px("line 1") == 0.2
    assert store.mm_per_px("line 2") is None
    stored = json.loads((tmp_path / "@recipes" / "line 1" / "recipe.json").read_text())
    assert {name: stored[name] for name in ("recipe_id", "mm_per_px")} == {"recipe_id": "line 1", "mm_per_px": 0.2}
    assert stored["created_at_utc"].endswith("+00:00")


def test_what_fails_settles_nothing_and_a_refusal_does_nothing(tmp_path):
    def fail():
        with RecipeStore(tmp_path).locking_scale("line 1", 0.2):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert RecipeStore(tmp_path).mm_per_px("line 1") is None
    settle(tmp_path, "line 1", 0.4)
    done = []
    with pytest.raises(Conflict), RecipeStore(tmp_path).locking_scale("line 1", 0.2):
        done.append("what must not be done")
    assert done == []


def test_scale_is_settled_if_the_failed_work_was_stored_and_not_else(tmp_path, monkeypatch):
    """A fit that fails after it stored its model settles the scale, one that fails before does not. As a disk that
    fails when the folder is synced, after the rename; or Ctrl-C.
    """
    key, model, sync = RoiKey("Master1", "Pattern", "line 1"), ModelStore(tmp_path), files.sync_folder

    def fit(fails_when_stored):
        def fails(folder):
            if folder.name == "Pattern" and (folder / "memory.npz").exists() == fails_when_stored:
                raise OSError(5, "Input/output error")
            sync(folder)

        with monkeypatch.context() as patched:
            patched.setattr(files, "sync_folder", fails)
            with (
                pytest.raises(StorageError, match="Input/output error"),
                RecipeStore(tmp_path).locking_scale("line 1", 0.2, lambda: model.file_identity(key)),
            ):
                model.save_memory(key, memory_of(1), {})

    fit(fails_when_stored=False)
    assert (model.load(key), RecipeStore(tmp_path).mm_per_px("line 1")) == (None, None)
    fit(fails_when_stored=True)
    assert model.load(key) is not None
    assert RecipeStore(tmp_path).mm_per_px("line 1") == 0.2


def test_unknown_state_of_the_store_means_nothing_is_done_or_settled(tmp_path):
    """It cannot be told what is stored, so the work is not begun."""

    def stored():
        raise OSError(5, "Input/output error")

    done = []
    with pytest.raises(StorageError), RecipeStore(tmp_path).locking_scale("line 1", 0.2, stored):
        done.append("what must not be done")
    assert (done, RecipeStore(tmp_path).mm_per_px("line 1")) == ([], None)


def _die_while_locking(root):
    script = (
        "import os, pathlib; from backend.disk.recipes import RecipeStore\n"
        f"with RecipeStore(pathlib.Path({str(root)!r})).locking_scale('line 1', 0.2): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)


def test_the_scale_of_a_process_that_died_binds_all_who_ask_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_ASKING_S", 30)
    _die_while_locking(tmp_path)
    start, told = threading.Barrier(8), []

    def ask():
        start.wait()
        told.append(RecipeStore(tmp_path).mm_per_px("line 1"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [0.2] * 8
    assert {path.name for path in (tmp_path / "@recipes" / "line 1").iterdir()} == {"recipe.json", ".lock"}


def test_scale_of_a_dead_process_binds_where_nothing_can_be_written(tmp_path, monkeypatch):
    """A process died while it settled a scale; the models folder is read-only since."""
    _die_while_locking(tmp_path)

    def read_only(*_arguments, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filelock.FileLock, "acquire", read_only)
    with pytest.raises(Conflict):
        RecipeStore(tmp_path).check("line 1", 0.3)


def test_the_scale_of_who_is_still_at_work_binds_nobody_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_ASKING_S", 0)
    with RecipeStore(tmp_path).locking_scale("line 1", 0.2):
        assert RecipeStore(tmp_path).mm_per_px("line 1") is None
    assert RecipeStore(tmp_path).mm_per_px("line 1") == 0.2


def test_who_is_found_at_work_is_waited_for_once_and_binds_when_it_died(tmp_path, monkeypatch):
    _die_while_locking(tmp_path)
    monkeypatch.setattr(recipes, "_ASKING_S", 0)
    store = RecipeStore(tmp_path)
    with filelock.FileLock(tmp_path / "@recipes" / "line 1" / ".lock"):  # as if it were still at work
        assert store.mm_per_px("line 1") is None
        monkeypatch.setattr(recipes, "_ASKING_S", 60)
        start = time.monotonic()
        assert store.mm_per_px("line 1") is None
        assert time.monotonic() - start < 6
    assert store.mm_per_px("line 1") == 0.2


def test_calls_without_a_recipe_settle_nothing_and_are_bound_to_nothing(tmp_path):
    for scale in (0.2, 0.3):
        settle(tmp_path, None, scale)
        RecipeStore(tmp_path).check(None, scale)
    settle(tmp_path, "line 1", None)
    assert list(tmp_path.iterdir()) == []


def test_of_many_who_settle_at_once_one_wins_and_the_others_are_refused(tmp_path):
    won, lost = [], []
    start = threading.Barrier(8)

    def compete(scale):
        start.wait()
        try:
            settle(tmp_path, "line 1", scale)
            won.append(scale)
        except Conflict:
            lost.append(scale)

    threads = [threading.Thread(target=compete, args=(0.1 * number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert RecipeStore(tmp_path).mm_per_px("line 1") == won[0]


def test_scale_that_is_locked_while_another_is_checked_is_not_missed(tmp_path, monkeypatch):
    """Another process locks the recipe between two looks at it; who has another scale is refused all the same."""
    read = RecipeStore.mm_per_px

    def locked_after_the_first_look(store, recipe_id):
        found = read(store, recipe_id)
        monkeypatch.setattr(RecipeStore, "mm_per_px", read)
        with RecipeStore(tmp_path).locking_scale("line 1", 0.3):
            pass
        return found

    monkeypatch.setattr(RecipeStore, "mm_per_px", locked_after_the_first_look)
    done = []
    with pytest.raises(Conflict), RecipeStore(tmp_path).locking_scale("line 1", 0.2):
        done.append("what must not be done")
    assert done == []


def test_the_scale_that_an_older_backend_locked_holds(tmp_path):
    for folder, scale in (("Line 1", 0.5), ("line 1", 0.25)):
        (tmp_path / "recipes" / folder).mkdir(parents=True)
        text = json.dumps({"mm_per_px": scale, "created_at_utc": "2026-01-01T00:00:00Z"})
        (tmp_path / "recipes" / folder / "recipe_meta.json").write_text(text)
    assert RecipeStore(tmp_path).mm_per_px("line 1") == 0.25, "the newest had no capitals"
    with pytest.raises(Conflict):
        settle(tmp_path, "line 1", 0.5)


def test_settings_of_an_older_backend_without_a_scale_lock_nothing(tmp_path):
    (tmp_path / "recipes" / "line 1").mkdir(parents=True)
    for text in ('{"mm_per_px": null}', "{}", "{", '{"mm_per_px": 1' + "0" * 400 + "}"):
        (tmp_path / "recipes" / "line 1" / "recipe_meta.json").write_text(text)
        assert RecipeStore(tmp_path).mm_per_px("line 1") is None
    settle(tmp_path, "line 1", 0.2)
    assert RecipeStore(tmp_path).mm_per_px("line 1") == 0.2


def test_once_it_is_settled_nobody_waits_for_anybody(tmp_path):
    settle(tmp_path, "line 1", 0.2)
    with RecipeStore(tmp_path).locking_scale("line 1", 0.2), RecipeStore(tmp_path).locking_scale("line 1", 0.2):
        pass
    assert [path.name for path in (tmp_path / "@recipes" / "line 1").glob("*.json")] == ["recipe.json"]


def test_a_full_disk_shows_before_anything_is_done(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = []
    with pytest.raises(StorageError), RecipeStore(tmp_path).locking_scale("line 1", 0.2):
        done.append("what must not be done")
    assert done == []
    assert RecipeStore(tmp_path).mm_per_px("line 1") is None


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"mm_per_px": "0.2"}', '{"mm_per_px": NaN}', '{"mm_per_px": -1}', "{}"]
)
def test_damaged_settings_are_a_storage_error_that_says_what_to_do(tmp_path, text):
    settle(tmp_path, "line 1", 0.2)
    (tmp_path / "@recipes" / "line 1" / "recipe.json").write_text(text)
    with pytest.raises(StorageError, match=r"recipe\.json of the recipe is damaged: restore or remove it"):
        RecipeStore(tmp_path).check("line 1", 0.2)
