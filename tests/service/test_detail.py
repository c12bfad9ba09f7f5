"""ROIs that are looked at in tiles: what a fit records, what repeats it, what masks hide, and who waits for whom."""

import threading
import time
from functools import partial
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from backend.bank import memory_limits
from backend.bank.images import recorded_images
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import IncompatibleMemory, InvalidRequest, RunCancelled, TooLarge
from backend.common.roi_key import RoiKey
from backend.disk.progress import RunBoard
from backend.features import DinoV2Features
from backend.infer import image_scores
from backend.patchcore import PatchCoreMemory
from backend.roi_mask import parse_shape
from backend.service.calibrate import calibrate
from backend.service.detail import settle_detail
from backend.service.explain import explain
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.region_scores import FitRegions
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import KEY, load

OTHER = RoiKey("Master1", "Other")
# Of the 160 x 120 pixels of the parts: it lies in the first of nine tiles, and the rest of the first row and column
# reach it at most.
CORNER = parse_shape('{"kind":"rect","x":0,"y":0,"w":40,"h":30}')


class Counted:
    """A runtime that counts its passes, and does something before each."""

    def __init__(self, runtime):
        self._runtime, self.n_passes = runtime, 0
        self.before = lambda number: None

    def __getattr__(self, name):
        return getattr(self._runtime, name)

    def forward(self, pixels):
        self.n_passes += 1
        self.before(self.n_passes)
        return self._runtime.forward(pixels)


@pytest.fixture
def runtime(small_features):
    return Counted(small_features.runtime)


@pytest.fixture
def features(runtime, weights):
    return DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 112)


@pytest.fixture
def service(features, block_features, tmp_path):
    return InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path), recommended=block_features)


def pixels_of(part):
    return cv2.imdecode(np.frombuffer(part.read(), np.uint8), cv2.IMREAD_COLOR)


def bank_of(extractor, parts):
    """A bank from the tokens of whole images, and of each image from those of the others."""
    tokens = [extractor.extract(pixels_of(part))[0] for part in parts]
    return PatchCoreMemory.build(np.concatenate(tokens), extractor.token_hw, 0.02 / extractor.tiling.detail)


def test_a_fit_records_its_detail_and_its_grid(service, features, parts, tmp_path):
    result = fit(service, KEY, parts, mm_per_px=0.2, detail=3)
    stored = load(tmp_path)
    assert (result.detail, result.token_hw) == (3, (20, 20))
    assert (stored.detail, stored.memory.token_hw) == (3, (20, 20))
    assert stored.metadata["extractor"]["detail"] == 3
    assert result.n_embeddings == stored.metadata["n_embeddings"] == len(parts) * 400
    expected = bank_of(features.at(3), parts)
    np.testing.assert_array_equal(stored.memory.embeddings, expected.embeddings)
    np.testing.assert_array_equal(stored.memory.patches, expected.patches)


def test_detail_1_stores_what_was_stored_before(service, features, parts, tmp_path):
    fit(service, KEY, parts, mm_per_px=0.2)
    fit(service, OTHER, parts, mm_per_px=0.2, detail=1)
    plain, named = load(tmp_path), load(tmp_path, OTHER)
    assert plain.memory_id == named.memory_id
    assert plain.metadata["extractor"] == named.metadata["extractor"] == features.identity.as_dict()
    assert "detail" not in repr({**plain.metadata, **named.metadata})
    assert "tiles" not in plain.metadata | named.metadata
    np.testing.assert_array_equal(plain.memory.embeddings, bank_of(features, parts).embeddings)


def test_every_inference_repeats_the_detail_of_the_bank(service, features, runtime, parts):
    fit(service, KEY, parts, mm_per_px=0.2, detail=2)
    before = runtime.n_passes
    result = infer(service, KEY, parts[1], Scoring(0.2, percentile=99))
    assert runtime.n_passes == before + 4
    extractor = features.at(2)
    distances = bank_of(extractor, parts).distances(extractor.extract(pixels_of(parts[1]))[0])
    expected = image_scores(distances.reshape(extractor.token_hw), (120, 160), None, 1.0, [99])
    assert result.inference.score == pytest.approx(expected[0], abs=1e-6)


def test_honest_scores_are_of_the_fine_map(service, parts, features):
    found = fit(service, KEY, parts[:2], mm_per_px=0.2, detail=2, keep_all=True)
    extractor = features.at(2)
    for part, other, score in zip(parts[:2], parts[1::-1], found.ok_scores, strict=True):
        bank = PatchCoreMemory.build(extractor.extract(pixels_of(other))[0], extractor.token_hw, 1.0)
        distances = bank.distances(extractor.extract(pixels_of(part))[0]).reshape(extractor.token_hw)
        # A product in float32 is a distance of some 1e-3 near 0, and these are far from it.
        assert score == pytest.approx(image_scores(distances, (120, 160), None, 1.0, [99])[0], abs=1e-3)


def test_both_details_are_served_at_once(service, parts):
    fit(service, KEY, parts, mm_per_px=0.2, detail=2)
    fit(service, OTHER, parts, mm_per_px=0.2)
    assert service.fitted(KEY).memory.token_hw == (14, 14)
    assert service.fitted(OTHER).memory.token_hw == (8, 8)
    assert infer(service, OTHER, parts[0], Scoring(0.2)).inference.score < 2
    assert infer(service, KEY, parts[0], Scoring(0.2)).inference.score < 2


def test_an_append_keeps_the_detail_and_refuses_another(service, parts):
    fit(service, KEY, parts[:3], mm_per_px=0.2, detail=2)
    for detail in (None, 2, "auto"):
        result = fit(service, KEY, parts[3:], mm_per_px=0.2, append=True, detail=detail)
        assert (result.detail, result.token_hw) == (2, (14, 14))
    with pytest.raises(InvalidRequest, match="append keeps the detail of the model, 2: leave detail out, or fit anew"):
        fit(service, KEY, parts[:1], mm_per_px=0.2, append=True, detail=3)
    assert service.fitted(KEY).memory.patches.max() < 6 * 14 * 14


def test_the_setting_is_for_fits_that_name_no_detail(features, tmp_path, parts):
    service = InspectionService(Settings(models_dir=tmp_path, detail=2), features, ModelStore(tmp_path))
    assert fit(service, KEY, parts[:2], mm_per_px=0.2).detail == 2
    assert fit(service, KEY, parts[:2], mm_per_px=0.2, detail=1).detail == 1


@pytest.mark.parametrize("detail", [0, 6, "3", 2.0])
def test_a_bank_of_an_impossible_detail_needs_a_refit(service, parts, detail):
    fit(service, KEY, parts[:2], mm_per_px=0.2)
    fitted = service.fitted(KEY)
    extractor = {**fitted.metadata["extractor"], "detail": detail}
    service.store.save_memory(KEY, fitted.memory, {**fitted.metadata, "extractor": extractor})
    with pytest.raises(IncompatibleMemory, match=r"detail .* instead of 1"):
        service.fitted(KEY)


def test_a_grid_of_another_tiling_needs_a_refit(service, parts):
    fit(service, KEY, parts[:2], mm_per_px=0.2)
    fitted = service.fitted(KEY)
    extractor = {**fitted.metadata["extractor"], "detail": 2}
    service.store.save_memory(KEY, fitted.memory, {**fitted.metadata, "extractor": extractor})
    with pytest.raises(IncompatibleMemory, match=r"a token grid of \(8, 8\) instead of \(14, 14\)"):
        service.fitted(KEY)


class TestMasks:
    @pytest.fixture
    def masked(self, service, parts):
        fit(service, KEY, parts, mm_per_px=0.2, detail=3, shapes=[CORNER] * len(parts))
        return service

    def test_hidden_tiles_are_neither_embedded_nor_in_the_bank(self, masked, runtime, features, parts, tmp_path):
        tiles = features.at(3).tiling.within(np.pad(np.ones((30, 40), bool), ((0, 90), (0, 120))), 1.0)
        assert runtime.n_passes == len(parts) * len(tiles)
        assert len(tiles) < 9
        stored = load(tmp_path)
        assert stored.metadata["tiles"] == tiles
        places = features.at(3).tiling.places(tiles)
        assert set(stored.memory.patches % 400) <= set(places)
        assert stored.metadata["n_embeddings"] == len(parts) * len(places)

    def test_honest_scores_are_of_what_the_mask_shows(self, masked, service, parts, features, tmp_path):
        """They are those of a bank of the shown tokens alone."""
        extractor = features.at(3)
        places = extractor.tiling.places(load(tmp_path).metadata["tiles"])
        fit(service, OTHER, parts[:2], mm_per_px=0.2, detail=3, keep_all=True, shapes=[CORNER] * 2)
        scores = service.fitted(OTHER).metadata["images"]
        for part, other, image in zip(parts[:2], parts[1::-1], scores, strict=True):
            shown = PatchCoreMemory.build(extractor.extract(pixels_of(other))[0][places], (1, 1), 1.0)
            distances = np.zeros(400, np.float32)
            distances[places] = shown.distances(extractor.extract(pixels_of(part))[0][places])
            expected = image_scores(distances.reshape(20, 20), (120, 160), CORNER, 1.0, [99])[0]
            assert image["scores"]["99"] == pytest.approx(expected, abs=1e-3)

    def test_an_inference_looks_at_the_shown_tiles_alone(self, masked, runtime, parts):
        n_tiles, before = len(masked.fitted(KEY).metadata["tiles"]), runtime.n_passes
        result = infer(masked, KEY, parts[0], Scoring(0.2, CORNER))
        assert runtime.n_passes == before + n_tiles
        assert result.warning is None

    def test_a_mask_that_shows_more_than_the_fit_saw_is_said(self, masked, parts):
        warning = infer(masked, KEY, parts[0], Scoring(0.2)).warning
        n_hidden = 9 - len(masked.fitted(KEY).metadata["tiles"])
        assert f"the mask shows {n_hidden} of 9 tiles that the masks of the fit hid" in warning

    def test_an_append_with_a_wider_mask_adds_its_tiles(self, masked, parts, images):
        more = SimpleNamespace(image=cv2.resize(images[4], (160, 120), interpolation=cv2.INTER_AREA))
        png = cv2.imencode(".png", more.image)[1].tobytes()
        named = type(parts[0])("more.png", lambda: png)
        fit(masked, KEY, [named], mm_per_px=0.2, append=True)
        assert "tiles" not in masked.fitted(KEY).metadata
        assert infer(masked, KEY, parts[0], Scoring(0.2)).warning is None

    def test_an_append_makes_no_map_of_what_an_earlier_mask_hid(self, service, parts):
        for some, how in ((parts[:2], {"shapes": [CORNER] * 2}), (parts[2:4], {"append": True})):
            fit(service, KEY, some, mm_per_px=0.2, profile="recommended", detail=3, **how)
        regions = FitRegions(service, service.fitted(KEY), 1.0, 0.2)
        images = recorded_images(service.fitted(KEY).metadata)
        assert [regions.scores(image, None, [99], None) is None for image in images] == [True, True, False, False]

    def test_a_place_that_the_mask_hides_can_be_asked_about(self, masked, parts):
        found = explain(masked, KEY, parts[1], mm_per_px=0.2, shape=CORNER, point=(150, 110), with_pictures=False)
        (reason,) = found.reasons
        assert reason.distance > 0
        assert reason.box == (144, 108, 8, 6)


def test_an_explanation_names_patches_of_the_fine_grid(service, parts):
    fit(service, KEY, parts, mm_per_px=0.2, detail=3)
    found = explain(service, KEY, parts[0], mm_per_px=0.2, shape=None, point=(81, 61), with_pictures=False)
    assert found.reasons[0].box == (80, 60, 8, 6)
    x, y, w, h = found.reasons[0].image_box
    assert (w, h) == (8, 6)
    assert (x % 8, y % 6) == (0, 0)


def test_the_recommended_profile_judges_by_the_largest_distance(service, parts):
    result = fit(service, KEY, parts, mm_per_px=0.2, profile="recommended", detail=2)
    assert (result.profile, result.token_hw) == ("recommended", (14, 14))
    found = infer(service, KEY, parts[0], Scoring(0.2, percentiles=(100.0,))).inference
    assert found.score == found.scores[0]
    scores = [infer(service, KEY, part, Scoring(0.2)).inference.score for part in parts[:3]]
    assert calibrate(service, KEY, scores, [], mm_per_px=0.2).score_percentile == 100
    images = service.fitted(KEY).metadata["images"]
    assert result.ok_scores == [image["scores"]["100"] for image in images]
    maps = service.store.honest_maps(service.fitted(KEY))
    assert maps[0].shape == (14, 14)


def test_another_inference_gets_the_network_between_two_tiles(service, runtime, parts):
    fit(service, KEY, parts, mm_per_px=0.2, detail=3)
    fit(service, OTHER, parts, mm_per_px=0.2)
    started, waits, done = threading.Event(), threading.Event(), []
    begun = runtime.n_passes

    def before(number):
        if number == begun + 2:  # the second tile runs, and somebody else asks
            started.set()
            assert waits.wait(20)

    runtime.before = before
    slow = threading.Thread(target=lambda: (infer(service, KEY, parts[0], Scoring(0.2)), done.append("fine")))
    slow.start()
    assert started.wait(20)
    quick = threading.Thread(target=lambda: (infer(service, OTHER, parts[1], Scoring(0.2)), done.append("plain")))
    quick.start()
    while not service.queue._inferences:  # until it waits for the network
        assert quick.is_alive()
        time.sleep(0.01)
    waits.set()
    quick.join(20)
    slow.join(20)
    assert done == ["plain", "fine"]
    assert runtime.n_passes == begun + 9 + 1


def test_an_inference_gets_the_network_between_two_tiles_of_a_fit(service, runtime, parts):
    fit(service, OTHER, parts, mm_per_px=0.2)
    started, waits, seen = threading.Event(), threading.Event(), []
    begun = runtime.n_passes

    def before(number):
        if number == begun + 2:
            started.set()
            assert waits.wait(20)
        time.sleep(0.05)  # a pass that is remembered takes no time

    runtime.before = before
    fitting = threading.Thread(target=partial(fit, service, KEY, parts[:1], mm_per_px=0.2, detail=3))
    fitting.start()
    assert started.wait(20)
    quick = threading.Thread(
        target=lambda: (infer(service, OTHER, parts[1], Scoring(0.2)), seen.append(runtime.n_passes))
    )
    quick.start()
    while not service.queue._inferences:
        assert quick.is_alive()
        time.sleep(0.01)
    waits.set()
    quick.join(20)
    fitting.join(20)
    assert seen[0] < begun + 10
    assert service.fitted(KEY).detail == 3


def test_a_fit_ends_at_the_tile_during_which_it_is_cancelled(service, runtime, parts):
    def before(number):
        if number == 4:
            board = RunBoard(service.settings.models_dir)
            for run in board.running():
                board.cancel(run["run_id"])

    runtime.before = before
    with pytest.raises(RunCancelled):
        fit(service, KEY, parts, mm_per_px=0.2, detail=3)
    assert runtime.n_passes == 4
    assert not service.state(KEY).fitted


def test_a_fit_that_was_stopped_goes_on_with_what_its_tiles_gave(service, runtime, parts, tmp_path):
    def before(number):
        if number == 12:
            raise KeyboardInterrupt

    runtime.before = before
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(service, KEY, parts[:2], mm_per_px=0.2, detail=3, checkpoint=checkpoint)
    runtime.before = lambda number: None
    fit(service, KEY, parts[:2], mm_per_px=0.2, detail=3, checkpoint=checkpoint)
    assert runtime.n_passes == 12 + 9
    fit(service, OTHER, parts[:2], mm_per_px=0.2, detail=3)
    assert service.fitted(KEY).memory_id == service.fitted(OTHER).memory_id


def test_the_memory_of_a_fit_is_checked_with_its_tiles(service, parts, monkeypatch):
    monkeypatch.setattr(memory_limits, "free_memory", lambda: 0)
    with pytest.raises(TooLarge, match=r"6 images × 400 patches × \(384 × 4 \+ 64\) bytes"):
        fit(service, KEY, parts, mm_per_px=0.2, detail=3)


class TestChoice:
    @pytest.fixture
    def settle(self, weights):
        runtime = SimpleNamespace(grid_hw=(32, 32), precision="float32", block=None)
        return partial(settle_detail, features=DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 448))

    def test_a_number_is_taken_as_it_is(self, settle):
        found = settle(3, sizes=[(2048, 2448)], mm_per_px=0.1, smallest_defect_mm=None)
        assert (found.number, found.reason, found.warning) == (3, None, None)

    @pytest.mark.parametrize(
        ("size", "number"), [((448, 448), 1), ((896, 700), 1), ((897, 700), 2), ((2048, 2448), 3), ((4000, 6000), 5)]
    )
    def test_auto_shrinks_no_side_more_than_twice(self, settle, size, number):
        found = settle("auto", sizes=[(10, 10), size], mm_per_px=0.1, smallest_defect_mm=None)
        assert found.number == number
        assert found.reason.startswith(f"detail={number}: the {max(size)} pixels of the ROI's longer side are ")

    @pytest.mark.parametrize(("pixels", "number"), [(46, 1), (25, 2), (17, 3), (13, 4), (11, 5)])
    def test_auto_lets_the_smallest_defect_cover_enough_tokens(self, settle, pixels, number):
        found = settle("auto", sizes=[(2048, 2448)], mm_per_px=0.05, smallest_defect_mm=pixels * 0.05)
        assert found.number == number
        assert f"a defect of {pixels * 0.05:g} mm is {pixels} pixels long, and a token " in found.reason
        assert "overlooked" not in found.reason

    def test_a_defect_that_no_detail_shows_is_said(self, settle):
        found = settle("auto", sizes=[(2048, 2448)], mm_per_px=0.05, smallest_defect_mm=0.3)
        assert found.number == 5
        assert found.reason == (
            "detail=5: a defect of 0.3 mm is 6 pixels long, and a token 17: it covers 0.35 tokens, and may be "
            "overlooked, because a spot stands out from 0.6 tokens on"
        )

    def test_auto_goes_no_further_than_every_pixel(self, settle):
        found = settle("auto", sizes=[(512, 512)], mm_per_px=0.05, smallest_defect_mm=0.05)
        assert found.number == 2

    def test_a_small_roi_in_many_tiles_is_said(self, settle):
        found = settle(4, sizes=[(300, 512)], mm_per_px=0.05, smallest_defect_mm=None)
        assert found.warning == (
            "detail=4 enlarges the ROI from 512 × 300 to 1624 × 1624 pixels and takes 16 passes an image: "
            "detail=2 shows every pixel, too, and takes 4"
        )
        assert settle(2, sizes=[(300, 512)], mm_per_px=0.05, smallest_defect_mm=None).warning is None

    def test_a_named_detail_tells_what_the_smallest_defect_covers(self, settle):
        found = settle(1, sizes=[(2048, 2448)], mm_per_px=0.05, smallest_defect_mm=0.6)
        assert found.reason.startswith(
            "detail=1: a defect of 0.6 mm is 12 pixels long, and a token 76.5: it covers 0.16 tokens"
        )
