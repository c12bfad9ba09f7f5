"""What a recipe settles: its scale, once, for everybody."""

import json
import os
import threading

import pytest

from backend.errors import Conflict, StorageError
from backend.recipes import RecipeStore


def settle(root, recipe_id, mm_per_px):
    with RecipeStore(root).settling(recipe_id, mm_per_px):
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
        with RecipeStore(tmp_path).settling("line 1", 0.2):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert RecipeStore(tmp_path).mm_per_px("line 1") is None
    settle(tmp_path, "line 1", 0.4)
    done = []
    with pytest.raises(Conflict), RecipeStore(tmp_path).settling("line 1", 0.2):
        done.append("what must not be done")
    assert done == []


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
    with RecipeStore(tmp_path).settling("line 1", 0.2), RecipeStore(tmp_path).settling("line 1", 0.2):
        pass
    assert [path.name for path in (tmp_path / "@recipes" / "line 1").glob("*.json")] == ["recipe.json"]


def test_a_full_disk_shows_before_anything_is_done(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = []
    with pytest.raises(StorageError), RecipeStore(tmp_path).settling("line 1", 0.2):
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
