"""Where models lie: names of folders, recipes and model keys, and the order in which places are looked at."""

import base64
import os
from urllib.parse import unquote

import numpy as np
import pytest

from backend.calib import Calibration
from backend.common.errors import IncompatibleMemory
from backend.common.roi_key import RoiKey, canonical_recipe
from backend.disk.candidates import candidates
from backend.disk.layout import current_files, dataset_folder, folder_name, recipe_folder
from backend.disk.older_layouts import has_older_images
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.storage import ModelStore
from tests.factories import AWKWARD, ORDINARY

# --- folder names


def test_ordinary_names_stay_as_they_are():
    assert [folder_name(name) for name in ORDINARY] == ORDINARY


@pytest.mark.parametrize("identifier", ORDINARY + AWKWARD, ids=ascii)
def test_folder_names_are_reversible_and_safe_on_every_file_system(identifier, tmp_path):
    name = folder_name(identifier)
    assert unquote(name, errors="strict") == identifier
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set('/\\:*?"<>|')
    assert name[0] not in ". "
    assert name[-1] not in ". "
    stem = name.split(".")[0].upper()
    assert stem not in {"CON", "PRN", "AUX", "NUL", *(f"{device}{i}" for device in ("COM", "LPT") for i in range(10))}
    assert len(name) <= 255
    folder = tmp_path / name
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()


def test_distinct_ids_have_distinct_folders():
    names = [folder_name(identifier) for identifier in ORDINARY + AWKWARD]
    assert len(set(names)) == len(names)


# --- recipes


DEFAULT = RoiKey("Master1", "Pattern")


RECIPE = RoiKey("Master1", "Pattern", "line 1")


OWN_KEY = RoiKey("Master1", "Pattern", "line 1", "K")


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("My Layout 1", "my layout 1"),
        ("  my LAYOUT 1\t", "my layout 1"),
        ("DEFAULT", "default"),
        ("MAẞE", "maße"),
        ("Masse", "masse"),
        ("e\u0301", "é"),
        ("", None),
        ("  ", None),
    ],
)
def test_a_recipe_is_known_by_its_name_without_case_or_outer_blanks(sent, meant):
    assert canonical_recipe(sent) == meant
    assert meant is None or canonical_recipe(meant) == meant


def test_default_recipe_has_the_playbook_layout_with_others_beside_it(tmp_path):
    folders = {
        key: current_files(tmp_path, key).memory.parent.relative_to(tmp_path).as_posix()
        for key in (DEFAULT, RoiKey("Master1", "Pattern", "default"), RECIPE, OWN_KEY)
    }
    assert list(folders.values()) == [
        "Master1/Pattern",
        "Master1/Pattern",
        "@recipes/line 1/models/Master1/Pattern/Pattern",
        "@recipes/line 1/models/Master1/Pattern/K",
    ]
    assert current_files(tmp_path, RoiKey("Master1", "Pattern", None, "K")) == current_files(tmp_path, DEFAULT), (
        "without a recipe the model key has no effect: those who name it then do so at the fit and not at the inference"
    )


@pytest.mark.parametrize(
    "name", [*ORDINARY, *AWKWARD, "recipes", "@recipes", "datasets", "models", "default"], ids=ascii
)
def test_recipes_collide_with_no_role_and_stay_below_the_models_folder(name, tmp_path):
    role = current_files(tmp_path, RoiKey(name, name)).memory
    recipe = recipe_folder(tmp_path, name)
    places_of_recipe = [
        current_files(tmp_path, RoiKey(name, name, "r", name)).memory,
        dataset_folder(tmp_path, RoiKey(name, name, name)),
        dataset_folder(tmp_path, RoiKey(name, name)),
    ]
    assert recipe.parent == tmp_path / "@recipes"
    assert all(path.is_relative_to(tmp_path / "@recipes") for path in places_of_recipe)
    assert all(".." not in path.parts for path in (role, recipe, *places_of_recipe))
    assert not role.is_relative_to(tmp_path / "@recipes")


def test_names_of_layouts_may_be_longer_than_a_file_name_and_stay_apart(tmp_path):
    names = [
        "." + "x" * 300,
        "nul." + "x" * 300,
        "x" * 240,
        "x" * 241,
        "x" * 1000,
        "x" * 1000 + "y",
        "日本" * 200,
        "日本" * 201,
        "a. " * 200,
    ]
    folders = [recipe_folder(tmp_path, name) for name in names]
    assert len(set(folders)) == len(names)
    for folder in folders:
        folder.mkdir(parents=True)
        assert folder.resolve().parent == (tmp_path / "@recipes").resolve()
        assert folder.name[0] != "."
        assert not folder.name.startswith("nul.")


# --- lookups


def unit_rows(dim):
    return l2_normalize(np.random.default_rng(dim).normal(size=(4, dim)).astype(np.float32))


def store_current(root, key, dim):
    ModelStore(root).save_memory(key, PatchCoreMemory.build(unit_rows(dim), (2, 2), 1.0), {})


def store_older(root, path, dim):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    np.savez(root / path, emb=unit_rows(dim), token_h=2, token_w=2)


def stem(role, roi):
    return "__".join(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (role, roi))


B64 = stem("Master1", "Pattern")


def found(root, key):
    """Dimension of the memory found, which tells them apart, with its layout, recipe and model key."""
    fitted = ModelStore(root).load(key)
    if fitted is None:
        return None
    return fitted.memory.embeddings.shape[1], fitted.layout, fitted.key.recipe, fitted.key.model


def test_recipe_looks_in_its_own_then_default_then_recipeless_folders(tmp_path):
    """A recipe is served its own model, else that of the default recipe, else that of backends without recipes."""
    writers = [
        lambda: store_older(tmp_path, "Master1/Pattern/memory.npz", 3),
        lambda: store_older(tmp_path, "Master1_Pattern.npz", 4),
        lambda: store_older(tmp_path, f"{B64}.npz", 5),
        lambda: store_older(tmp_path, f"recipes/Default/Pattern/{B64}.npz", 6),
        lambda: store_older(tmp_path, f"recipes/default/Pattern/{B64}.npz", 7),
        lambda: store_current(tmp_path, DEFAULT, 8),
        lambda: store_older(tmp_path, f"recipes/Line 1/Pattern/{B64}.npz", 9),
        lambda: store_current(tmp_path, RECIPE, 10),
    ]
    seen = [found(tmp_path, RECIPE)]
    for write in writers:
        write()
        seen.append(found(tmp_path, RECIPE))
    assert seen == [
        None,
        (3, "L0", "default", "Pattern"),
        (4, "L1", "default", "Pattern"),
        (5, "L2", "default", "Pattern"),
        (6, "L3", "default", "Pattern"),
        (7, "L4", "default", "Pattern"),
        (8, "current", "default", "Pattern"),
        (9, "L3", "line 1", "Pattern"),
        (10, "current", "line 1", "Pattern"),
    ]
    assert found(tmp_path, DEFAULT) == (8, "current", "default", "Pattern"), (
        "nothing of a recipe leaks into the default"
    )
    assert found(tmp_path, RoiKey("Master1", "Pattern", "other")) == (8, "current", "default", "Pattern")


def test_a_recipe_of_an_older_backend_is_found_whatever_its_case(tmp_path):
    store_older(tmp_path, f"recipes/LINE 1/Pattern/{B64}.npz", 3)
    assert found(tmp_path, RECIPE) == (3, "L3", "line 1", "Pattern")
    store_older(tmp_path, f"recipes/line 1/Pattern/{B64}.npz", 4)
    assert found(tmp_path, RECIPE) == (4, "L3", "line 1", "Pattern"), "the newest layout has no capitals"


def test_a_named_model_key_is_never_answered_by_another_keys_model(tmp_path):
    store_current(tmp_path, RoiKey("Master1", "Pattern", "line 1", "Other"), 3)
    assert found(tmp_path, OWN_KEY) is None
    store_older(tmp_path, f"recipes/line 1/Other/{B64}.npz", 4)
    assert found(tmp_path, OWN_KEY) is None
    store_older(tmp_path, f"recipes/line 1/K/{B64}.npz", 5)
    assert found(tmp_path, OWN_KEY) == (5, "L3", "line 1", "K")
    store_current(tmp_path, OWN_KEY, 6)
    assert found(tmp_path, OWN_KEY) == (6, "current", "line 1", "K")


def test_rois_own_model_is_meant_without_a_key_else_the_last_fitted_one(tmp_path):
    """Without a model key the model that is named like the ROI is meant; without that, the one that was fitted last."""
    for dim, model_key in ((3, "A"), (4, "B"), (5, "C")):
        key = RoiKey("Master1", "Pattern", "line 1", model_key)
        store_current(tmp_path, key, dim)
        os.utime(current_files(tmp_path, key).memory, ns=(dim, dim if model_key != "B" else 99))
    assert found(tmp_path, RECIPE) == (4, "current", "line 1", "B")
    store_current(tmp_path, RECIPE, 6)
    assert found(tmp_path, RECIPE) == (6, "current", "line 1", "Pattern")


def test_inspection_roi_is_found_under_the_role_that_clients_turn_it_into(tmp_path):
    stored = RoiKey("Inspection", "inspection-1", "line 1")
    store_current(tmp_path, stored, 3)
    asked = RoiKey("Master1", "inspection-1", "line 1")
    assert found(tmp_path, asked) == (3, "current", "line 1", "inspection-1")
    assert found(tmp_path, RoiKey("Master1", "inspection-1")) is None, "a client that names no recipe turns nothing"
    assert found(tmp_path, RoiKey("Master1", "inspection-2", "line 1")) is None
    store_current(tmp_path, asked, 4)
    assert found(tmp_path, asked) == (4, "current", "line 1", "inspection-1"), "its own role comes first"
    assert found(tmp_path, stored) == (3, "current", "line 1", "inspection-1")


def test_fit_of_inspection_roi_precedes_what_is_left_under_the_other_role(tmp_path):
    """A new fit under the role `Inspection` is found before an older model under the role that the client named."""
    asked, fitted = (RoiKey(role, "inspection-1", "default") for role in ("Master1", "Inspection"))
    store_older(tmp_path, f"recipes/default/inspection-1/{stem('Master1', 'inspection-1')}.npz", 3)
    assert found(tmp_path, asked) == (3, "L4", "default", "inspection-1")
    store_current(tmp_path, RoiKey("Master1", "inspection-1"), 4)  # by a client that names no recipe
    store_current(tmp_path, fitted, 5)
    assert found(tmp_path, asked) == found(tmp_path, fitted) == (5, "current", "default", "inspection-1")
    assert found(tmp_path, RoiKey("Master1", "inspection-1")) == (4, "current", "default", "inspection-1")
    line = [RoiKey(role, "inspection-1", "line 1") for role in ("Master1", "Inspection")]
    store_older(tmp_path, f"recipes/line 1/inspection-1/{stem('Master1', 'inspection-1')}.npz", 6)
    store_current(tmp_path, line[1], 7)
    assert found(tmp_path, line[0]) == found(tmp_path, line[1]) == (7, "current", "line 1", "inspection-1")


def test_default_recipe_model_with_a_key_is_found_without_a_recipe(tmp_path):
    """Clients that name no recipe are served that model until the ROI has one under its own name."""
    store_current(tmp_path, RoiKey("Master1", "Pattern", "default", "K"), 3)
    assert found(tmp_path, DEFAULT) == (3, "current", "default", "K")
    store_current(tmp_path, DEFAULT, 4)
    assert found(tmp_path, DEFAULT) == (4, "current", "default", "Pattern")


def test_a_folder_that_was_copied_to_another_recipe_is_refused_with_refit(tmp_path):
    store_current(tmp_path, RECIPE, 3)
    recipe_folder(tmp_path, "line 1").rename(recipe_folder(tmp_path, "line 2"))
    with pytest.raises(IncompatibleMemory, match=r"refit needed.*line 2.*line 1"):
        ModelStore(tmp_path).load(RoiKey("Master1", "Pattern", "line 2"))


def test_no_place_of_any_key_lies_outside_the_models_folder(tmp_path):
    root = tmp_path / "models"
    for text in AWKWARD:
        for key in (RoiKey(text, text), RoiKey(text, text, "r", text), RoiKey("a", "inspection", text, text)):
            for place in candidates(root, key):
                assert ".." not in place.memory.relative_to(root).parts


@pytest.mark.parametrize("folder", ["datasets/Master1/Pattern/ok", "recipes/Line 1/datasets/a__b"])
def test_images_of_older_backends_are_noticed(tmp_path, folder):
    store_current(tmp_path, RoiKey("datasets", "recipes"), 3)
    assert not has_older_images(tmp_path)
    (tmp_path / folder).mkdir(parents=True)
    assert has_older_images(tmp_path)


# --- calibrations


def calibrate_as(root, key, threshold):
    store = ModelStore(root)
    store.save_calibration(key, Calibration(threshold, memory_id=store.memory_id(key)))


def threshold(root, key):
    fitted = ModelStore(root).load(key)
    return fitted.calibration.threshold if fitted.calibration else fitted.calibration_state


def test_recipe_with_the_default_model_uses_its_threshold_until_it_has_one(tmp_path):
    """A threshold that the recipe has of its own is stale once the recipe gets a model of its own."""
    store_current(tmp_path, DEFAULT, 3)
    assert threshold(tmp_path, RECIPE) == "none"
    calibrate_as(tmp_path, DEFAULT, 0.1)
    assert threshold(tmp_path, RECIPE) == 0.1
    calibrate_as(tmp_path, RECIPE, 0.2)
    assert (threshold(tmp_path, RECIPE), threshold(tmp_path, DEFAULT)) == (0.2, 0.1)
    store_current(tmp_path, RECIPE, 4)
    assert (threshold(tmp_path, RECIPE), threshold(tmp_path, DEFAULT)) == ("stale", 0.1)


def test_calibration_belongs_to_the_found_model_whatever_key_asked(tmp_path):
    """It does not matter under which role or key the calibration was asked for."""
    stored = RoiKey("Inspection", "inspection-1", "line 1", "K")
    store_current(tmp_path, stored, 3)
    calibrate_as(tmp_path, RoiKey("Master1", "inspection-1", "line 1"), 0.3)
    assert threshold(tmp_path, stored) == 0.3


def test_models_of_recipes_are_counted(tmp_path):
    store_current(tmp_path, DEFAULT, 3)
    store_current(tmp_path, RECIPE, 3)
    store_current(tmp_path, OWN_KEY, 3)
    store_older(tmp_path, f"recipes/line 1/Pattern/{B64}.npz", 3)
    assert ModelStore(tmp_path).count_fitted() == 4
