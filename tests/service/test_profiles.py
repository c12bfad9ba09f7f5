"""Profiles side by side on one service: what a fit records, what judges, and what is refused."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from backend.block_memory import BlockMemory, Landings
from backend.calib import ThresholdOptions
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import Conflict, IncompatibleMemory, InvalidRequest
from backend.common.profiles import PROFILES
from backend.common.roi_key import RoiKey
from backend.disk.memory_file import memory_id
from backend.features import DinoV2Features, ExtractorIdentity
from backend.service import fit as fit_module
from backend.service.calibrate import calibrate
from backend.service.explain import explain
from backend.service.fit import fit
from backend.service.inspection import InspectionService, differences_from
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import KEY, image_named, load, snapshot

OTHER = RoiKey("Master1", "Other")


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


@pytest.fixture
def service(features, block_features, tmp_path):
    return InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path), recommended=block_features)


@pytest.fixture
def fitted(service, parts):
    fit(service, KEY, parts, mm_per_px=0.2, profile="recommended")
    return service


def score(service, image, key=KEY, **more):
    return infer(service, key, image, Scoring(0.2, **more)).inference.score


def test_one_service_serves_both_profiles(fitted, parts):
    result = fit(fitted, OTHER, parts, mm_per_px=0.2)
    plain, recommended = fitted.fitted(OTHER), fitted.fitted(KEY)
    assert (plain.profile, recommended.profile) == ("contract", "recommended")
    assert "profile" not in plain.metadata
    assert recommended.metadata["extractor"]["block"] == "9+10+11+12"
    assert (plain.memory.dim, recommended.memory.dim) == (384, 4 * 384)
    assert result.profile == "contract"
    assert score(fitted, parts[0]) != score(fitted, parts[0], OTHER)


def test_the_score_is_that_of_the_banks_at_the_percentile_of_its_own(fitted, parts, block_features):
    memory = fitted.fitted(KEY).memory
    image = cv2.imdecode(np.frombuffer(parts[1].read(), np.uint8), cv2.IMREAD_COLOR)
    distances = memory.distances(block_features.extract(image)[0]).reshape(8, 8)
    upsampled = cv2.resize(distances, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    expected = np.percentile(cv2.GaussianBlur(upsampled, (0, 0), 1.0), 99.5)
    assert score(fitted, parts[1]) == pytest.approx(expected, abs=1e-6)


def test_the_banks_read_back_as_they_were_stored(fitted, tmp_path):
    stored, served = load(tmp_path), fitted.fitted(KEY)
    assert stored.memory_id == served.memory_id
    for ours, theirs in zip(stored.memory.banks, served.memory.banks, strict=True):
        np.testing.assert_array_equal(ours.embeddings, theirs.embeddings)
        np.testing.assert_array_equal(ours.patches, theirs.patches)
    for ours, theirs in zip(stored.memory.landings, served.memory.landings, strict=True):
        np.testing.assert_array_equal(ours.count, theirs.count)
        np.testing.assert_array_equal(ours.total, theirs.total)


def test_the_playbooks_keys_keep_their_meaning(fitted, tmp_path):
    with np.load(next(tmp_path.rglob("memory.npz"))) as arrays:
        assert arrays["emb"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(arrays["emb"], axis=1), 1, atol=1e-5)
        assert (int(arrays["token_h"]), int(arrays["token_w"])) == (8, 8)
        np.testing.assert_array_equal(arrays["emb"], fitted.fitted(KEY).memory.embeddings)


def test_an_extractor_of_the_last_block_refuses_such_a_bank(fitted, features):
    """Versions before profiles compare the identities alone, and refuse it with 409."""
    differences = differences_from(features, fitted.fitted(KEY))
    assert "block '9+10+11+12' instead of 'last'" in differences


def test_a_calibration_is_of_the_profiles_score_whatever_it_is_called(fitted, parts):
    scores = [score(fitted, part) for part in parts[:3]]
    calibration = calibrate(fitted, KEY, scores, [], mm_per_px=0.2, score_percentile=99)
    assert calibration.score_percentile == 99.5
    result = infer(fitted, KEY, parts[0], Scoring(0.2))
    assert result.inference.score == scores[0]


def test_appended_images_go_to_the_banks_of_the_model(fitted, parts, images):
    image = cv2.resize(images[4], (160, 120), interpolation=cv2.INTER_AREA)
    before = fitted.fitted(KEY)
    result = fit(fitted, KEY, [image_named("more.png", image)], mm_per_px=0.2, append=True)
    after = fitted.fitted(KEY)
    assert (result.profile, after.profile) == ("recommended", "recommended")
    for ours, theirs in zip(after.memory.banks, before.memory.banks, strict=True):
        np.testing.assert_array_equal(ours.embeddings[: len(theirs.embeddings)], theirs.embeddings)
    with pytest.raises(InvalidRequest, match="append keeps the profile of the model, recommended"):
        fit(fitted, KEY, parts[:1], mm_per_px=0.2, append=True, profile="contract")


def test_the_configured_profile_is_that_of_fits_that_name_none(features, block_features, tmp_path, parts):
    settings = Settings(models_dir=tmp_path, profile="recommended")
    service = InspectionService(settings, features, ModelStore(tmp_path), recommended=block_features)
    assert fit(service, KEY, parts[:2], mm_per_px=0.2).profile == "recommended"
    assert fit(service, KEY, parts[:2], mm_per_px=0.2, profile="contract").profile == "contract"


def test_a_profile_of_another_network_is_refused_and_nothing_is_stored(features, tmp_path, parts):
    settings = Settings(models_dir=tmp_path, model_name="own", weights=tmp_path / "w", weights_sha256="0" * 64)
    service = InspectionService(settings, features, ModelStore(tmp_path))
    before = snapshot(tmp_path)
    with pytest.raises(InvalidRequest, match="profile=recommended is for MODEL_NAME="):
        fit(service, KEY, parts[:2], mm_per_px=0.2, profile="recommended")
    assert snapshot(tmp_path) == before


def test_another_network_refuses_such_a_bank_and_says_refit(fitted, features, tmp_path):
    own = DinoV2Features(features.runtime, "own", "0" * 64, 112)
    settings = Settings(models_dir=tmp_path, model_name="own", weights=tmp_path / "w", weights_sha256="0" * 64)
    state = InspectionService(settings, own, ModelStore(tmp_path)).state(KEY)
    assert state.fitted is None
    assert "refit needed" in (state.refit_reason or "")


def test_a_bank_of_blocks_of_other_weights_is_refused(fitted, tmp_path, features, block_features):
    other = DinoV2Features(block_features.runtime, DEFAULT_MODEL, "f" * 64, 112)
    assert isinstance(other.identity, ExtractorIdentity)
    service = InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path), recommended=other)
    with pytest.raises(IncompatibleMemory, match="weights_sha256"):
        service.fitted(KEY)


def test_explanations_show_the_good_patch_that_is_alike(fitted, parts, block_features):
    found = explain(fitted, KEY, parts[0], mm_per_px=0.2, shape=None, point=None, with_pictures=False)
    (reason,) = found.reasons
    assert reason.image is not None
    pixels = cv2.imdecode(np.frombuffer(parts[0].read(), np.uint8), cv2.IMREAD_COLOR)
    memory = fitted.fitted(KEY).memory
    embeddings = block_features.extract(pixels)[0]
    x, y, _, _ = reason.box
    token = round(y * 8 / 120) * 8 + round(x * 8 / 160)
    assert reason.distance == pytest.approx(float(memory.distances(embeddings[token][None])[0]), abs=1e-6)
    last = embeddings[token, -384:] / np.linalg.norm(embeddings[token, -384:])
    nearest = np.linalg.norm(memory.banks[-1].embeddings - last, axis=1).argmin()
    assert reason.image_index == memory.banks[-1].patches[nearest] // 64


@pytest.mark.parametrize("damage", ["count", "total", "block"])
def test_damaged_blocks_are_told(fitted, tmp_path, damage):
    path = next(tmp_path.rglob("memory.npz"))
    with np.load(path) as arrays:
        values = dict(arrays)
    changes = {
        "count": {"landings_10": values["landings_10"][:-1]},
        "total": {"landed_9": np.full_like(values["landed_9"], np.nan)},
        "block": {"emb_11": values["emb_11"] * 2},
    }
    np.savez(path, **{**values, **changes[damage]})
    state = InspectionService(
        Settings(models_dir=tmp_path),
        fitted.features,
        ModelStore(tmp_path),
        recommended=fitted.features_of("recommended"),
    ).state(KEY)
    assert state.fitted is None
    assert "damaged" in (state.refit_reason or "")


def test_banks_that_differ_in_one_block_or_in_landings_have_other_ids(fitted):
    memory = fitted.fitted(KEY).memory
    first = memory.banks[0]
    turned = replace(first, embeddings=np.ascontiguousarray(first.embeddings[::-1]))
    more = Landings(memory.landings[1].count + 1, memory.landings[1].total)
    others = [
        BlockMemory((turned, *memory.banks[1:]), memory.landings),
        BlockMemory(memory.banks, (memory.landings[0], more, *memory.landings[2:])),
    ]
    assert len({memory_id(found) for found in (memory, *others)}) == 3


def test_each_of_the_four_banks_keeps_half_as_many_patches(fitted, parts):
    sizes = [fit(fitted, OTHER, parts, mm_per_px=0.2, profile=profile).coreset_size for profile in PROFILES]
    # 6 images of 64 patches: 2 % are 8, and 1 % are 4.
    assert sizes == [8, 4]


def test_a_refit_with_another_profile_meanwhile_stops_an_append(fitted, parts, monkeypatch):
    monkeypatch.setattr(fit_module, "chosen_for", lambda *_args, **_options: ("contract", 1))
    with pytest.raises(Conflict, match="was fitted with profile=recommended, detail=1 meanwhile: append once more"):
        fit(fitted, KEY, parts[:1], mm_per_px=0.2, append=True)


def test_scores_of_parts_that_are_not_good_are_no_reference_for_drift(fitted, monkeypatch):
    begun = []
    monkeypatch.setattr(fitted.drift, "begin", lambda _key, _calibration, scores: begun.append(list(scores)))
    calibrate(fitted, KEY, [0.4, 0.41, 0.9], [], mm_per_px=0.2, options=ThresholdOptions(not_good=(2,)))
    assert begun == [[0.4, 0.41]]
