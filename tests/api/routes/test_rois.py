"""The list of all ROIs: ids as the API names them, and what there is for each, without reading a memory bank."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.disk import memory_cache, memory_file
from backend.features import DinoV2Features
from backend.patchcore import PatchCoreMemory
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import (
    IN_RECIPE,
    KEY,
    calibration_of,
    encoded,
    memory_of,
    older_files,
    store_memory,
    store_threshold,
    unit_rows,
    write_memory,
)

PNG = encoded(np.zeros((20, 30, 3), np.uint8))
IDS = ("role_id", "roi_id", "recipe_id", "model_key")
RUNTIME = SimpleNamespace(batch=1, forward=None, dim=16, grid_hw=(4, 5), precision="float32", block=None)
FEATURES = DinoV2Features(RUNTIME, "network", "0" * 64, 448)
IDENTITY = FEATURES.identity


@pytest.fixture
def client(tmp_path):
    settings = Settings(models_dir=tmp_path)
    service = InspectionService(settings, FEATURES, ModelStore(tmp_path))
    return TestClient(create_app(settings, service), raise_server_exceptions=False)


def listed(client, **query):
    reply = client.get("/rois", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def only(client, **query):
    (roi,) = listed(client, **query)["rois"]
    return roi


def names(body):
    return [tuple(roi[name] for name in IDS) for roi in body["rois"]]


def upload(client, label="ok", **ids):
    data = {"role_id": "Master1", "roi_id": "Pattern", **ids}
    reply = client.post(f"/datasets/{label}/upload", data=data, files=[("images", ("a.png", PNG))])
    assert reply.status_code == 200, reply.text
    return reply.json()["files"][0]


def test_there_are_no_rois_below_a_folder_that_is_not_there(client, tmp_path):
    body = listed(client)
    assert (body["rois"], body["n_total"], body["recipes"]) == ([], 0, ["default"])
    assert "warning" not in body
    assert list(tmp_path.iterdir()) == [], "asking makes no folder"


def test_a_fitted_and_calibrated_roi_says_what_state_says(client, tmp_path):
    store_memory(tmp_path, 1, n_images=3, mm_per_px=0.2)
    store_threshold(tmp_path, 0.6)
    for label in ("ok", "ok", "ng"):
        upload(client, label)
    roi = only(client)
    state = client.get("/state", params=dict(zip(IDS[:2], ("Master1", "Pattern"), strict=True))).json()
    assert tuple(roi[name] for name in IDS) == ("Master1", "Pattern", "default", "Pattern")
    assert (roi["status"], roi["fitted"], roi["calibration"]) == ("ok", True, state["calibration"])
    assert (roi["threshold"], roi["mm_per_px"], roi["drift"]) == (0.6, 0.2, "collecting")
    assert roi["n_images"] == {"ok": 2, "ng": 1}
    assert roi["model"] == {
        **{name: state["model"][name] for name in ("role_id", "recipe_id", "model_key", "layout", "memory_id")},
        "profile": "contract",
        "coreset_size": len(memory_of(1).embeddings),
        "n_images": 3,
    }


def test_ids_of_every_roi_are_those_that_the_api_names(client, tmp_path):
    odd = RoiKey("A/ä", "ro.i", "línea 1", "Key 2")
    stored = [KEY, IN_RECIPE, odd, RoiKey("Master1", "Pattern", "default", "Other")]
    for seed, key in enumerate(stored, start=1):
        store_memory(tmp_path, seed, key)
    upload(client, role_id="Only images", recipe_id="Line 9")
    body = listed(client)
    expected = {(key.role_id, key.roi_id, key.recipe, key.model) for key in stored}
    expected |= {("Only images", "Pattern", "line 9", "Pattern")}
    assert set(names(body)) == expected
    assert names(body) == sorted(names(body), key=lambda ids: (ids[2], ids[0], ids[1], ids[3]))
    assert body["recipes"] == ["default", "line 1", "line 9", "línea 1"]
    for roi in body["rois"]:
        state = client.get("/state", params={name: roi[name] for name in IDS}).json()
        assert (roi["fitted"], roi["calibration"]) == (state["memory_fitted"], state["calibration"]), roi
        assert roi.get("model", {}).get("memory_id") == state.get("model", {}).get("memory_id")


def test_a_stale_calibration_gives_no_threshold_and_no_verdict(client, tmp_path):
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.6)
    store_memory(tmp_path, 2)
    roi = only(client)
    assert (roi["status"], roi["fitted"], roi["calibration"]) == ("ok", True, "stale")
    assert not {"threshold", "drift"} & roi.keys()


def test_recipe_that_is_served_the_default_model_names_that_model(client, tmp_path):
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.7, IN_RECIPE)
    by_recipe = {roi["recipe_id"]: roi for roi in listed(client)["rois"]}
    assert by_recipe["line 1"]["model"]["recipe_id"] == "default"
    assert (by_recipe["line 1"]["calibration"], by_recipe["line 1"]["threshold"]) == ("applied", 0.7)
    assert by_recipe["default"]["calibration"] == "none"


def test_only_the_rois_of_the_recipe_that_is_named_are_listed(client, tmp_path):
    store_memory(tmp_path, 1)
    store_memory(tmp_path, 2, IN_RECIPE)
    assert names(listed(client, recipe_id="LINE 1")) == [("Master1", "Pattern", "line 1", "Pattern")]
    by_header = client.get("/rois", headers={"X-Recipe-Id": "Line 1"}).json()
    assert names(by_header) == names(listed(client, recipe_id="line 1"))
    body = listed(client, recipe_id="default")
    assert (names(body), body["recipes"]) == ([("Master1", "Pattern", "default", "Pattern")], ["default", "line 1"])
    assert listed(client, recipe_id="nobody's")["rois"] == []
    assert client.get("/rois", params={"recipe_id": "last"}).status_code == 400


def test_pages_of_the_list_hold_every_roi_once(client, tmp_path):
    for number in range(7):
        store_memory(tmp_path, 1, RoiKey("Master1", f"{number}"))
    pages = [listed(client, offset=offset, limit=3) for offset in (0, 3, 6, 9)]
    assert [len(page["rois"]) for page in pages] == [3, 3, 1, 0]
    assert {page["n_total"] for page in pages} == {7}
    assert [ids[1] for page in pages for ids in names(page)] == [f"{number}" for number in range(7)]
    for bad in ({"limit": 0}, {"limit": 1001}, {"offset": -1}, {"limit": [1, 2]}):
        assert client.get("/rois", params=bad).status_code == 422, bad


def test_a_damaged_model_is_listed_with_its_error_beside_the_others(client, tmp_path):
    store_memory(tmp_path, 1)
    store_memory(tmp_path, 2, replace(KEY, roi_id="Broken"))
    store_memory(tmp_path, 3, replace(KEY, roi_id="Calibrated"))
    store_threshold(tmp_path, 0.5, replace(KEY, roi_id="Calibrated"))
    memory = tmp_path / "Master1" / "Broken" / "memory.npz"
    memory.write_bytes(memory.read_bytes()[:500])
    (tmp_path / "Master1" / "Calibrated" / "calib.json").write_text("{")
    by_roi = {roi["roi_id"]: roi for roi in listed(client)["rois"]}
    assert by_roi["Pattern"]["status"] == "ok"
    broken = by_roi["Broken"]
    assert (broken["status"], broken["fitted"], broken["code"]) == ("error", False, "damaged_memory")
    assert "refit" in broken["error"]
    calibrated = by_roi["Calibrated"]
    assert (calibrated["status"], calibrated["fitted"], calibrated["code"]) == ("error", True, "damaged_calibration")
    assert "calibration" not in calibrated
    assert "calibration" not in broken


def test_a_damaged_recipe_is_told_at_each_of_its_rois_and_nowhere_else(client, tmp_path):
    store_memory(tmp_path, 1)
    store_memory(tmp_path, 2, IN_RECIPE)
    (tmp_path / "@recipes" / "line 1" / "recipe.json").write_text("[]")
    by_recipe = {roi["recipe_id"]: roi for roi in listed(client)["rois"]}
    assert by_recipe["default"]["status"] == "ok"
    assert by_recipe["line 1"]["status"] == "error"
    assert by_recipe["line 1"]["code"] == "storage_failed"


def test_a_model_of_another_extractor_needs_a_refit(client, tmp_path):
    store_memory(tmp_path, 1, extractor={**IDENTITY.as_dict(), "input_size": 518})
    roi = only(client)
    assert (roi["status"], roi["fitted"]) == ("refit_needed", False)
    assert "input_size 518 instead of 448" in roi["reason"]
    store_memory(tmp_path, 2, extractor=IDENTITY.as_dict())
    assert only(client)["status"] == "ok"


def test_models_of_several_tiles_are_compared_with_an_extractor_of_as_many(client, tmp_path):
    memory = PatchCoreMemory.build(unit_rows(20, 16, 1), FEATURES.at(3).token_hw, 1.0)
    ModelStore(tmp_path).save_memory(KEY, memory, {"extractor": FEATURES.at(3).identity.as_dict()})
    roi = only(client)
    assert (roi["status"], roi["model"]["detail"]) == ("ok", 3)
    ModelStore(tmp_path).save_memory(KEY, memory, {"extractor": FEATURES.at(2).identity.as_dict()})
    assert only(client)["status"] == "refit_needed"


def test_recommended_models_are_told_apart_without_loading_their_network(client, tmp_path):
    blocks = {**IDENTITY.as_dict(), "block": "9+10+11+12"}
    store_memory(tmp_path, 1, profile="recommended", extractor=blocks)
    roi = only(client)
    assert (roi["status"], roi["model"]["profile"]) == ("ok", "recommended")
    store_memory(tmp_path, 2, profile="recommended", extractor=IDENTITY.as_dict())
    assert only(client)["status"] == "refit_needed"


@pytest.mark.parametrize("layout", ["L0", "L2"])
def test_models_of_older_backends_are_listed_with_their_layout(client, tmp_path, layout):
    memory, _, calibration = older_files(tmp_path, layout, KEY)
    write_memory(memory, unit_rows(20, 16, 1), (4, 5))
    calibration.write_text(json.dumps({"threshold": 0.5}))
    roi = only(client)
    state = client.get("/state", params={"role_id": "Master1", "roi_id": "Pattern"}).json()
    assert (roi["model"]["layout"], roi["calibration"]) == (layout, state["calibration"]) == (layout, "applied")
    assert (roi["fitted"], roi["threshold"]) == (True, 0.5)
    assert "memory_id" not in roi["model"]


def test_older_model_with_a_calibration_of_ours_tells_no_state(client, tmp_path):
    memory, _, _ = older_files(tmp_path, "L2", KEY)
    write_memory(memory, unit_rows(20, 16, 1), (4, 5))
    store = ModelStore(tmp_path)
    store.save_calibration(KEY, calibration_of(store.load(KEY)))
    roi = only(client)
    assert roi["fitted"]
    assert "calibration" not in roi


def test_older_model_of_1152_numbers_needs_a_refit(client, tmp_path):
    memory, _, _ = older_files(tmp_path, "L2", KEY)
    write_memory(memory, unit_rows(20, 1152, 1), (4, 5))
    roi = only(client)
    assert (roi["status"], roi["fitted"]) == ("refit_needed", False)
    assert "1152 numbers per embedding" in roi["reason"]


def test_older_models_whose_names_are_ambiguous_are_counted_in_a_warning(client, tmp_path):
    memory, _, _ = older_files(tmp_path, "L1", KEY)
    write_memory(memory, unit_rows(20, 16, 1), (4, 5))
    body = listed(client)
    assert body["rois"] == []
    assert "1 model of an older backend" in body["warning"]


def test_models_of_older_recipes_are_listed_under_their_model_key(client, tmp_path):
    folder = tmp_path / "recipes" / "Layout 1" / "Key"
    write_memory(folder / "TWFzdGVyMQ__UGF0dGVybg.npz", unit_rows(20, 16, 1), (4, 5))
    body = listed(client)
    assert names(body) == [("Master1", "Pattern", "layout 1", "Key")]
    assert body["rois"][0]["fitted"]
    assert body["recipes"] == ["default", "layout 1"]


def test_a_recipe_with_a_long_name_is_listed_by_its_name(client, tmp_path):
    long_name = "ü" * 200
    upload(client, recipe_id=long_name)
    body = listed(client)
    assert body["rois"] == []
    assert "1 recipe with a long name" in body["warning"], "its folder does not say it, nor any file"
    put = client.put("/layout", params={"recipe_id": long_name}, json={}, headers={"If-None-Match": "*"})
    assert put.status_code == 200, put.text
    body = listed(client)
    assert names(body) == [("Master1", "Pattern", long_name, "Pattern")]
    assert long_name in body["recipes"]
    assert "warning" not in body


def test_a_folder_that_cannot_be_listed_is_told_and_the_rest_is_listed(client, tmp_path, monkeypatch):
    store_memory(tmp_path, 1)
    store_memory(tmp_path, 2, RoiKey("Closed", "Pattern"))
    folders = memory_file.os  # the module of the system
    scandir = folders.scandir

    def refusing(path):
        if str(path).endswith("Closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folders, "scandir", refusing)
    body = listed(client)
    assert names(body) == [("Master1", "Pattern", "default", "Pattern")]
    assert "'Closed' cannot be read" in body["warning"]


@pytest.mark.parametrize("folder", ["@recipes", "@recipes/line 2/models", "Master1/Closed"])
def test_a_folder_that_nobody_may_enter_hides_only_its_own_rois(client, tmp_path, monkeypatch, folder):
    of_folder = {
        "@recipes": {("Master1", "Pattern", "line 1", "Pattern"), ("Master1", "Pattern", "line 2", "Pattern")},
        "@recipes/line 2/models": {("Master1", "Pattern", "line 2", "Pattern")},
        "Master1/Closed": {("Master1", "Closed", "default", "Closed")},
    }[folder]
    for number, key in enumerate((KEY, RoiKey("Master1", "Closed"), IN_RECIPE, replace(IN_RECIPE, recipe_id="line 2"))):
        store_memory(tmp_path, number, key)
    every = set(names(listed(client)))
    closed = tmp_path / folder
    scandir, stat = os.scandir, os.stat

    def refusing(call, is_closed):
        def called(path, *arguments, **options):
            if is_closed(Path(os.fsdecode(path))):
                raise PermissionError(13, "Permission denied")
            return call(path, *arguments, **options)

        return called

    monkeypatch.setattr(os, "scandir", refusing(scandir, lambda path: path == closed))
    monkeypatch.setattr(os, "stat", refusing(stat, lambda path: path.parent == closed and folder == "Master1/Closed"))
    body = listed(client)
    assert set(names(body)) == every - of_folder
    assert body["warning"].count("cannot be read (Permission denied)") == 1


def test_no_embedding_is_read_and_no_header_twice(client, tmp_path, monkeypatch):
    store_memory(tmp_path, 1)
    store_threshold(tmp_path, 0.5)
    reads = []
    header = memory_file._header
    monkeypatch.setattr(memory_file, "_header", lambda file, name: reads.append(name) or header(file, name))
    for reader in (memory_cache, memory_file):
        monkeypatch.setattr(reader, "read_memory", lambda *_: pytest.fail("a bank was read"))
    assert only(client)["threshold"] == 0.5
    assert only(client)["threshold"] == 0.5
    assert len(reads) == 1
    store_memory(tmp_path, 2)
    reads.clear()
    assert only(client)["calibration"] == "stale"
    assert len(reads) == 1, "another file"
