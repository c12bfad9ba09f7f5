"""No id reads, writes or deletes outside its own folder, or meets another's: models, data sets, recipes."""

import contextlib
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from backend.api.schemas.common import RoiIds
from backend.calib import calibrate
from backend.common.errors import BackendError, InvalidRequest, SampleNotFound
from backend.common.roi_key import RoiKey, canonical_recipe
from backend.disk import model_writer
from backend.disk.candidates import candidates
from backend.disk.datasets import DatasetStore, NewSample
from backend.disk.layout import checkpoint_folder, current_files, dataset_folder, folder_name, recipe_folder
from backend.disk.recipes import RecipeStore
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.storage import ModelStore
from tests.factories import AWKWARD, ORDINARY

TWINS = [
    *("Master1", "master1", "MASTER1", "Maſter1"),
    *("é", "e\u0301", "É", "%C3%A9", "%c3%a9", "%25C3%25A9"),
    *("K", "\u212a", "k", "ﬁ", "fi", "ß", "ss", "ı", "i", "İ"),
    *("@recipes", "recipes", "datasets", "models", "@recipes/default", "ok", "ng", ".runs", ".fit-0", ".lock"),
    *("a__b", "a_b", "a b", "a-b", "a/b", "a\\b", "a|b", "TWFzdGVyMQ__UGF0dGVybg", "memory.npz", "calib.json"),
    *("C:", "C:\\Windows", "\\\\server\\share", "/etc/passwd", "~", "~root", "$HOME", "%TEMP%", "*", "?", "[a]"),
    *("CON", "con.txt", "COM¹", "NUL ", "aux.", "conin$", "x" * 240, "é" * 60, "日" * 26),
]
ids = st.one_of(
    st.sampled_from(ORDINARY + AWKWARD + TWINS),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128),
    st.text("./\\%@_- aA\0:", min_size=1, max_size=12),
)
recipes = st.one_of(st.none(), ids, st.text(min_size=1, max_size=1000).filter(lambda text: text.isprintable()))
slow = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def keys(draw: st.DrawFn) -> RoiKey:
    """A ROI as a request may name it: ids that pass the schema, and whose folders can be named."""
    recipe = draw(recipes)
    key = RoiKey(draw(ids), draw(ids), canonical_recipe(recipe or ""), draw(st.one_of(st.none(), ids)))
    return key if all(_has_a_folder(text) for text in (key.role_id, key.roi_id, key.model)) else RoiKey("a", "b")


def _has_a_folder(identifier: str) -> bool:
    try:
        return bool(folder_name(identifier))
    except InvalidRequest:
        return False


def is_below(path: Path, folder: Path) -> bool:
    """Whether it stays below the folder as the system resolves it, and by its parts alone."""
    return path.is_relative_to(folder) and Path(os.path.normpath(path)) == path and ".." not in path.parts


@pytest.mark.slow
@given(keys())
@slow
def test_paths_of_a_roi_stay_below_the_models_folder_and_name_it(key: RoiKey) -> None:
    """All files of a ROI lie below the models folder, under plain names from which its ids can be read."""
    root = Path("/models")
    place = current_files(root, key)
    for path in (place.memory, place.calibration, dataset_folder(root, key), recipe_folder(root, key.recipe)):
        assert is_below(path, root)
        assert all(len(part) <= 255 and part.isascii() and part.isprintable() for part in path.parts[2:])
    assert [unquote(part) for part in place.memory.parts[-4:-1]][-2:] == [
        *([key.role_id, key.roi_id] if place.key.recipe_id is None else [key.roi_id, place.key.model])
    ]
    assert is_below(checkpoint_folder(root, key), root)
    for looked_at in candidates(root, key):
        assert is_below(looked_at.memory, root)
        assert is_below(looked_at.calibration, root)


@pytest.mark.slow
@given(keys(), keys())
@slow
def test_two_rois_never_share_a_folder(first: RoiKey, second: RoiKey) -> None:
    root = Path("/models")
    same_model = first.owner == second.owner
    assert (current_files(root, first).memory == current_files(root, second).memory) == same_model
    same_images = (first.recipe, first.role_id, first.roi_id) == (second.recipe, second.role_id, second.roi_id)
    assert (dataset_folder(root, first) == dataset_folder(root, second)) == same_images
    assert (recipe_folder(root, first.recipe) == recipe_folder(root, second.recipe)) == (first.recipe == second.recipe)
    models, images = current_files(root, first).memory.parent, dataset_folder(root, second)
    assert not is_below(models, images)
    assert not is_below(images, models)


@given(ids, ids)
@slow
def test_folder_names_are_reversible_even_for_case_twins_and_unicode_forms(one: str, other: str) -> None:
    """Two ids share a folder only if they are equal, also where a file system ignores case or normalises Unicode."""
    assume(_has_a_folder(one) and _has_a_folder(other))
    first, second = folder_name(one), folder_name(other)
    assert (first == second) == (one == other)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert unicodedata.normalize(form, first) == first, "a file system that normalises changes nothing"
    if first.casefold() == second.casefold():
        assert one.casefold() == other.casefold() or "%" in first, "only case twins meet where case is one"


def memory_of(seed: int) -> PatchCoreMemory:
    rows = np.random.default_rng(seed).normal(size=(3, 8)).astype(np.float32)
    return PatchCoreMemory.build(l2_normalize(rows), (1, 3), 1.0)


def everything_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@given(keys(), keys())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_done_to_one_roi_is_done_to_no_other(first: RoiKey, second: RoiKey) -> None:
    assume(first.owner != second.owner)
    with TemporaryDirectory() as folder:
        outside, root = Path(folder) / "outside", Path(folder) / "models"
        outside.mkdir()
        (outside / "memory.npz").write_bytes(b"not yours")
        store, datasets, recipe_store = ModelStore(root), DatasetStore(root), RecipeStore(root)
        for seed, key in enumerate((first, second)):
            store.save_memory(key, memory_of(seed), {})
            datasets.add(key, "ok", [NewSample(lambda: b"\x89PNG", ".png", {"filename": "a.png"})])
        with recipe_store.locking_scale(first.recipe, 0.25):
            pass
        found = [store.memory_id(key) for key in (first, second)]
        assert found[0] != found[1]
        store.save_calibration(
            first, calibrate([0.4], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=found[0])
        )
        other = store.load(second)
        assert other is not None
        assert other.calibration is None
        if first.recipe != second.recipe:
            assert recipe_store.mm_per_px(second.recipe) is None
        if dataset_folder(root, first) != dataset_folder(root, second):
            datasets.clear(first, "ok")
            assert datasets.names(first, "ok") == {}
            assert len(datasets.names(second, "ok")) == 1
        assert everything_below(outside) == {"memory.npz": b"not yours"}
        assert {path.name for path in Path(folder).iterdir()} == {"outside", "models"}


@pytest.mark.slow
@given(st.one_of(ids, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=1000)))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_name_of_an_image_reaches_a_file_that_is_no_image_of_the_roi(filename: str) -> None:
    with TemporaryDirectory() as folder:
        datasets, key = DatasetStore(Path(folder)), RoiKey("Master1", "Pattern")
        (name,) = datasets.add(key, "ok", [NewSample(lambda: b"\x89PNG", ".png", {"filename": "part7.png"})])
        mine = dataset_folder(Path(folder), key) / "ok"
        (Path(folder) / "secret.png").write_bytes(b"not yours")
        for wanted in (filename, f"{filename}.png", f"../{filename}", f"../../../../../secret.png{filename}", name):
            try:
                sample = datasets.find(key, "ok", wanted)
            except SampleNotFound:
                continue
            assert sample.path == mine / name


def test_no_name_of_an_image_climbs_to_another_folder(tmp_path: Path) -> None:
    datasets, key = DatasetStore(tmp_path), RoiKey("Master1", "Pattern")
    datasets.add(key, "ok", [NewSample(lambda: b"\x89PNG", ".png", {"filename": "part7.png"})])
    (other,) = datasets.add(key, "ng", [NewSample(lambda: b"\x89PNG", ".png", {"filename": "part8.png"})])
    (tmp_path / "secret.png").write_bytes(b"not yours")
    up = "../" * 6
    hostile = [
        f"../ng/{other}",
        f"..\\ng\\{other}",
        f"{up}secret.png",
        str(tmp_path / "secret.png"),
        "\0.png",
        "C:a.png",
    ]
    for name in [*hostile, ".lock.png", "a" * 300 + ".png", other]:
        with pytest.raises(SampleNotFound):
            datasets.find(key, "ok", name)


@pytest.mark.parametrize("length", [129, 10_000])
def test_ids_of_ten_thousand_characters_are_refused_before_any_use(length: int) -> None:
    """Nothing is named by an id that is too long; only a recipe name of a header may be longer, and it is hashed."""
    for name in ("role_id", "roi_id", "model_key"):
        with pytest.raises(ValidationError):
            RoiIds(**{"role_id": "a", "roi_id": "b", name: "x" * length})
    with pytest.raises(ValidationError):
        RoiIds(role_id="a", roi_id="b", recipe_id="x" * 10_000)
    with pytest.raises(InvalidRequest):
        folder_name("é" * 128)
    assert len(recipe_folder(Path(), "é" * 30_000).name) < 255, "a header may hold such a name"


def test_id_that_looks_like_another_ids_folder_does_not_read_its_model(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    store.save_memory(RoiKey("é", "nul"), memory_of(1), {})
    assert store.load(RoiKey("é", "nul")) is not None
    assert store.load(RoiKey("%C3%A9", "%6Eul")) is None, "the folder of é was read as an older backend's"
    assert store.load(RoiKey("@recipes", "default")) is None


def test_second_case_twin_is_refused_where_the_file_system_mixes_them(tmp_path: Path) -> None:
    """Where the file system ignores case, the second of two such ids is neither stored nor loaded."""
    store = ModelStore(tmp_path)
    store.save_memory(RoiKey("Master1", "Pattern"), memory_of(1), {})
    (tmp_path / "MASTER1").symlink_to(tmp_path / "Master1")  # as a file system without case shows it
    with pytest.raises(BackendError, match="upper and lower case"):
        store.check_savable(RoiKey("MASTER1", "Pattern"))
    with pytest.raises(BackendError, match="upper and lower case"):
        store.load(RoiKey("MASTER1", "Pattern"))


@pytest.fixture
def other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], None]:
    """Makes a folder known by another name, which is not listed, as a file system that ignores case shows it."""
    listed = os.listdir

    def give(folder: Path, name: str) -> None:
        folder.with_name(name).symlink_to(folder)

    def hiding(folder: Path) -> list[str]:
        return [name for name in listed(folder) if not Path(folder, name).is_symlink()]

    monkeypatch.setattr(os, "listdir", hiding)
    return give


def image(number: int) -> NewSample:
    return NewSample(lambda: b"image %d" % number, ".png", {"filename": f"{number}.png"})


ALIASES = [
    (RoiKey("Master1", "Pattern"), RoiKey("MASTER1", "Pattern")),
    (RoiKey("Master1", "Pattern"), RoiKey("Master1", "pattern")),
    (RoiKey("MasterInspection", "Pattern"), RoiKey("MASTER~1", "Pattern")),
    (RoiKey("Master1", "Pattern", "line number 1"), RoiKey("Master1", "Pattern", "linenu~1")),
    (RoiKey("Master1", "Pattern", "line 1"), RoiKey("Master1", "PATTERN", "line 1")),
    (RoiKey("Master1", "Pattern", "line 1", "Key"), RoiKey("Master1", "Pattern", "line 1", "KEY")),
    (RoiKey("Inspection", "Inspection 1", "line 1"), RoiKey("Inspection", "INSPECTION 1", "line 1")),
]


def give_names(root: Path, mine: Path, other: Path, give: Callable[[Path, str], None]) -> None:
    """Make the folder of the first known as the second, wherever their names differ."""
    here = root
    for name, alias in zip(mine.relative_to(root).parts, other.relative_to(root).parts, strict=True):
        if name != alias and not (here / alias).exists():
            give(here / name, alias)
        here /= name


@pytest.mark.parametrize(("first", "second"), ALIASES, ids=str)
def test_what_the_file_system_takes_for_anothers_model_is_not_written(
    tmp_path: Path, other_names: Callable[[Path, str], None], first: RoiKey, second: RoiKey
) -> None:
    store = ModelStore(tmp_path)
    for seed in (1, 2):
        store.save_memory(first, memory_of(seed), {})
    mine, other = (current_files(tmp_path, key).memory.parent for key in (first, second))
    give_names(tmp_path, mine, other, other_names)
    before = everything_below(tmp_path)
    calibration = calibrate([0.4], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=None)
    for use in (
        lambda: store.check_savable(second),
        lambda: store.save_memory(second, memory_of(3), {}),
        lambda: store.versions(second),
        lambda: store.roll_back(second, 1),
    ):
        with pytest.raises(InvalidRequest, match=r"use other ids"):
            use()
    (mine / "memory.npz").rename(mine / "away")
    with pytest.raises(InvalidRequest, match=r"use other ids"):
        store.save_calibration(second, calibration)
    (mine / "away").rename(mine / "memory.npz")
    assert everything_below(tmp_path) == before
    store.save_memory(first, memory_of(3), {})


@pytest.mark.parametrize(("first", "second"), [pair for pair in ALIASES if pair[0].model_key is None], ids=str)
def test_images_in_an_aliased_folder_are_neither_read_nor_written(
    tmp_path: Path, other_names: Callable[[Path, str], None], first: RoiKey, second: RoiKey
) -> None:
    """The file system takes the folder of one ROI for that of another: every use of the second is refused."""
    store = DatasetStore(tmp_path)
    (name,) = store.add(first, "ok", [image(1)])
    give_names(tmp_path, dataset_folder(tmp_path, first), dataset_folder(tmp_path, second), other_names)
    before = everything_below(tmp_path)
    for use in (
        lambda: store.names(second, "ok"),
        lambda: store.samples(second, "ok"),
        lambda: store.find(second, "ok", name),
        lambda: store.add(second, "ok", [image(2)]),
        lambda: store.copy(second, "ok", "a.png", image(2)),
        lambda: store.clear(second, "ok"),
    ):
        with pytest.raises(InvalidRequest, match=r"use other ids"):
            use()
    assert everything_below(tmp_path) == before
    assert list(store.names(first, "ok")) == [name]


def test_images_in_an_aliased_folder_are_not_read_under_a_turned_role(
    tmp_path: Path, other_names: Callable[[Path, str], None]
) -> None:
    """Clients turn the role of an inspection ROI; an alias of its id is refused under that role, too."""
    store = DatasetStore(tmp_path)
    came = RoiKey("Master1", "Inspection 1", "line 1")
    store.add(came, "ok", [image(1)])
    other_names(dataset_folder(tmp_path, came), "INSPECTION 1")
    assert len(store.names(RoiKey("Inspection", "Inspection 1", "line 1"), "ok")) == 1
    with pytest.raises(InvalidRequest, match=r"use other ids"):
        store.names(RoiKey("Inspection", "INSPECTION 1", "line 1"), "ok")


def test_of_two_that_are_one_to_the_file_system_the_first_to_write_has_it(
    tmp_path: Path, other_names: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = RoiKey("Master1", "Pattern"), RoiKey("MASTER1", "Pattern")
    writing = model_writer.writing

    def after_the_first(folder: Path, what: str) -> contextlib.AbstractContextManager[None]:
        monkeypatch.setattr(model_writer, "writing", writing)
        ModelStore(tmp_path).save_memory(first, memory_of(1), {})
        other_names(tmp_path / "Master1", "MASTER1")
        return writing(folder, what)

    monkeypatch.setattr(model_writer, "writing", after_the_first)
    with pytest.raises(InvalidRequest, match=r"use other ids"):
        ModelStore(tmp_path).save_memory(second, memory_of(2), {})
    assert ModelStore(tmp_path).load(first) is not None


def test_recipe_with_an_aliased_folder_settles_nothing_there(
    tmp_path: Path, other_names: Callable[[Path, str], None]
) -> None:
    """The file system takes the name of a recipe for the folder of another; no scale is settled in that folder."""
    recipe_folder(tmp_path, "line number 1").mkdir(parents=True)
    other_names(recipe_folder(tmp_path, "line number 1"), "linenu~1")
    with pytest.raises(InvalidRequest, match=r"use other ids"), RecipeStore(tmp_path).locking_scale("linenu~1", 0.2):
        pass
    assert list(recipe_folder(tmp_path, "line number 1").iterdir()) == []


def test_links_that_are_listed_are_folders_like_any_other(tmp_path: Path) -> None:
    elsewhere, key = tmp_path / "another disk", RoiKey("Master1", "Pattern")
    elsewhere.mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "Master1").symlink_to(elsewhere)
    store = ModelStore(tmp_path / "models")
    store.check_savable(key)
    store.save_memory(key, memory_of(1), {})
    assert store.load(key) is not None
