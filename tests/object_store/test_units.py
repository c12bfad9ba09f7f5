"""Which files change together, and the names of their manifests; manifests that are damaged or hostile."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.common.errors import InvalidRequest, StorageError
from backend.common.roi_key import RoiKey
from backend.disk.layout import current_files, dataset_folder, recipe_folder
from backend.object_store.manifest import Manifest, entry_of, parse_manifest
from backend.object_store.units import dataset_unit, is_stored, model_unit, recipe_unit, unit_of, unit_of_key
from tests.factories import AWKWARD, KEY, ORDINARY

IDS = st.sampled_from([*AWKWARD, *ORDINARY[:-1], "@", "~=%"]) | st.text(
    st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(IDS, IDS, st.none() | IDS, st.none() | IDS)
def test_every_file_of_a_roi_is_of_the_unit_that_its_ids_name(role_id, roi_id, recipe_id, model_key):
    key = RoiKey(role_id, roi_id, recipe_id, model_key)
    files = current_files(Path(), key)
    assert unit_of(files.memory.as_posix()) == unit_of(files.calibration.as_posix()) == model_unit(key)
    assert unit_of((files.memory.parent / ".versions" / "3" / "memory.npz").as_posix()) == model_unit(key)
    assert unit_of((dataset_folder(Path(), key) / "ok" / "a.png").as_posix()) == dataset_unit(key)
    recipe = recipe_folder(Path(), key.recipe)
    assert unit_of((recipe / "recipe.json").as_posix()) == recipe_unit(key.recipe)
    assert unit_of((recipe / "layout" / "pictures" / "a").as_posix()) == recipe_unit(key.recipe)
    for unit in (model_unit(key), dataset_unit(key), recipe_unit(key.recipe)):
        assert unit_of_key(unit.key) == unit
        assert set(unit.key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=/")


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../b/c", "a//b/c", "a", "a/b", ".runs/x.json", ".fit-1/a/b"]
)
def test_path_that_no_unit_has_is_none(path):
    assert unit_of(path) is None


@pytest.mark.parametrize("key", ["x", "manifests/models/a.txt", "manifests/other/a.json", "manifests/models/a~.json"])
def test_object_that_is_no_manifest_is_none(key):
    assert unit_of_key(key) is None


def test_ids_that_make_too_long_a_key_are_refused():
    with pytest.raises(InvalidRequest, match="object stores accept"):
        _ = model_unit(RoiKey("\u0100" * 40, "\u0100" * 40, "\u0100" * 40)).key


def test_locks_indexes_caches_and_what_is_being_written_stay_here():
    local = ["a/b/.lock", "a/b/index.faiss", "a/b/.tmp-1", "a/b/.versions/.tmp-1/memory.npz", "a/b/.scores-1.jsonl"]
    assert not any(map(is_stored, local))
    assert all(map(is_stored, ["a/b/memory.npz", "a/b/.versions/1/version.json", "a/b/history/calib-1.json"]))


def manifest(**files):
    unit = model_unit(KEY)
    return Manifest(unit).successor({f"Master1/Pattern/{name}": entry_of(unit, b, 5) for name, b in files.items()})


def test_manifest_comes_back_as_it_was():
    large = manifest(**{f"f{number}": b"%d" % number * 9 for number in range(500)}, blob=b"\xff" * 9)
    assert large.encode().startswith(b"\x1f\x8b")
    for one in (manifest(calib=b"{}"), large, large.successor({})):
        assert parse_manifest(one.unit, one.encode()) == one


def spoilt(change):
    content = json.loads(manifest(calib=b"{}").encode())
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x1f\x8bnothing",
        gzip.compress(b"[" * 100_000),
        spoilt(lambda m: m.update(format=2)),
        spoilt(lambda m: m.update(unit="models/default/Other/Pattern")),
        spoilt(lambda m: m.update(generation=-1)),
        spoilt(lambda m: m["files"].update({"../x": m["files"]["Master1/Pattern/calib"]})),
        spoilt(lambda m: m["files"].update({"Other/Pattern/calib": m["files"]["Master1/Pattern/calib"]})),
        spoilt(lambda m: m["files"].update({"Master1/Pattern/.lock": m["files"]["Master1/Pattern/calib"]})),
        spoilt(lambda m: m["files"]["Master1/Pattern/calib"].update(text='{"threshold": 1}')),
        spoilt(lambda m: m["files"]["Master1/Pattern/calib"].update(text=None)),
        spoilt(lambda m: m["files"]["Master1/Pattern/calib"].update(blob="../../x")),
    ],
)
def test_damaged_or_hostile_manifest_is_refused(content):
    with pytest.raises(
        StorageError, match="the manifest of models/default/Master1/Pattern in the object store is damag"
    ):
        parse_manifest(model_unit(KEY), content)
