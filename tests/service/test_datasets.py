"""Fit and infer from stored images, beside the same with images that are sent."""

import json

import pytest
from structlog.testing import capture_logs

from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.disk import progress as runs_module
from backend.service.datasets import fit_stored, infer_stored
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.pictures import CONTRACT_PICTURES, NO_PICTURES
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, service_with
from tests.service.stored import CIRCLE, score, store


@pytest.fixture
def service(features, tmp_path):
    return service_with(features, tmp_path, min_ok_samples=2)


def test_a_mask_that_cannot_be_used_leaves_the_images_of_a_fit_unscored(service, pngs):
    store(service, "ok", pngs[:1])
    store(service, "ok", pngs[1:2], shape_json='{"kind":"star"}')
    with capture_logs() as logged:
        assert fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False).ok_scores is None
    assert [line["event"] for line in logged if line["log_level"] == "warning"] == ["fit.images_not_scored"]


@pytest.mark.slow
def test_a_fit_from_stored_images_gives_the_memory_of_the_same_images_sent(fitted_on_its_own, pngs, features, tmp_path):
    fitted = fitted_on_its_own
    sent = InspectionService(Settings(models_dir=tmp_path / "b"), features, ModelStore(tmp_path / "b"))
    fit(sent, IN_RECIPE, [NamedImage("x.png", lambda png=png: png) for png in pngs[:2]], mm_per_px=0.2)
    assert fitted.store.memory_id(IN_RECIPE) == sent.store.memory_id(IN_RECIPE)
    assert fitted.recipes.mm_per_px("line 1") == 0.2


@pytest.mark.slow
def test_scale_is_that_of_the_image_else_the_default_else_an_error(service, pngs):
    """A scale of 0 in the metadata of an image counts as none."""
    key = RoiKey("Master1", "Pattern")
    fit(service, key, [NamedImage("x.png", lambda: pngs[0])], mm_per_px=0.2)
    for metadata in ({"mm_per_px": 0.5}, {"mm_per_px": 0}, {}):
        store(service, "ok", pngs[:1], key, **metadata)

    def scales(default):
        seen = []
        infer_stored(service, key, ["ok"], default_mm_per_px=default, wanted=NO_PICTURES, on_judged=seen.append)
        return [(judged.mm_per_px, judged.error is None) for judged in seen]

    assert scales(0.3) == [(0.5, True), (0.3, True), (0.3, True)]
    assert scales(None) == [(0.5, True), (None, False), (None, False)]


@pytest.mark.slow
def test_every_item_of_a_run_that_cannot_be_judged_says_why(fitted, pngs):
    folder = fitted.datasets.folder(IN_RECIPE) / "ok"
    names = store(fitted, "ok", [pngs[0]] * 3, shape_json='{"kind":"star"}')
    (folder / names[1]).write_bytes(pngs[0][: len(pngs[0]) // 2])
    (folder / f"{names[1]}.json").write_text("{}")
    (folder / f"{names[2]}.json").write_text("{")
    seen = []
    infer_stored(fitted, IN_RECIPE, ["ok"], default_mm_per_px=None, wanted=CONTRACT_PICTURES, on_judged=seen.append)
    errors = [judged.error for judged in seen]
    assert errors[:2] == [None, None]
    assert "star" in errors[2]
    assert "truncated or damaged" in errors[3]
    assert "metadata" in errors[4]
    assert seen[0].result.heatmap_png_base64


@pytest.mark.slow
def test_a_long_run_logs_how_far_it_is(fitted, monkeypatch):
    monkeypatch.setattr(runs_module, "_LOG_EVERY_S", 0)
    with capture_logs() as logged:
        infer_stored(
            fitted, IN_RECIPE, ["ok", "ng"], default_mm_per_px=None, wanted=NO_PICTURES, on_judged=lambda _: None
        )
    (line,) = [line for line in logged if line["event"] == "infer_dataset.progress"]
    assert {name: line[name] for name in ("step", "done", "total")} == {"step": "score", "done": 1, "total": 2}


@pytest.mark.slow
def test_the_metadata_may_hold_the_shape_as_text_or_as_it_is(fitted, pngs):
    store(fitted, "ng", pngs[3:4], shape_json=CIRCLE)
    store(fitted, "ng", pngs[3:4], shape_json=json.loads(CIRCLE))
    store(fitted, "ng", pngs[3:4], shape_json="")
    seen = []
    infer_stored(fitted, IN_RECIPE, ["ng"], default_mm_per_px=None, wanted=CONTRACT_PICTURES, on_judged=seen.append)
    masked, also_masked, whole = (judged.result.inference for judged in seen)
    heatmaps = [judged.result.heatmap_png_base64 for judged in seen]
    assert masked.score == also_masked.score == score(fitted, pngs[3], CIRCLE)
    assert whole.score == score(fitted, pngs[3])
    assert masked.score != whole.score
    assert heatmaps[0] == heatmaps[1] != heatmaps[2]
