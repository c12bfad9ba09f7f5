"""The honest distance maps that a fit of the recommended profile keeps with its memory bank."""

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.common.config import Settings
from backend.common.errors import StorageError
from backend.infer import image_scores
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.factories import KEY, image_named, tampered

MAPS = ("honest_maps", "honest_map_images")


@pytest.fixture
def service(block_features, small_features, tmp_path):
    return InspectionService(
        Settings(models_dir=tmp_path), small_features, ModelStore(tmp_path), recommended=block_features
    )


@pytest.fixture
def fitted(service, parts):
    fit(service, KEY, parts[:4], mm_per_px=0.2, profile="recommended")
    return service


def leave_out(service, *names):
    path = service.settings.models_dir / "Master1" / "Pattern" / "memory.npz"
    with np.load(path) as file:
        kept = {name: array for name, array in file.items() if name not in names}
    np.savez(path, **kept)


@pytest.mark.slow
def test_scores_of_the_fit_follow_from_its_honest_maps(fitted):
    """Within a new process, from the file alone: each image scores by its map what the fit recorded as its score."""
    model = fitted.fitted(KEY)
    maps = ModelStore(fitted.settings.models_dir).honest_maps(model)
    assert list(maps) == [0, 1, 2, 3]
    for number, image in enumerate(recorded_images(model.metadata)):
        assert (maps[number].shape, maps[number].dtype) == ((8, 8), np.float32)
        (score,) = image_scores(maps[number], (image.height, image.width), None, 1.0, [99.5])
        assert round(score, 6) == image.score(99.5)


@pytest.mark.slow
def test_append_keeps_the_maps_and_adds_those_of_new_images(fitted, parts, images):
    before = fitted.store.honest_maps(fitted.fitted(KEY))
    more = image_named("more.png", cv2.resize(images[4], (160, 120), interpolation=cv2.INTER_AREA))
    fit(fitted, KEY, [parts[0], more], mm_per_px=0.2, append=True)
    after = fitted.store.honest_maps(fitted.fitted(KEY))
    assert list(after) == [0, 1, 2, 3, 4]
    for number, distances in before.items():
        np.testing.assert_array_equal(after[number], distances)
    image = recorded_images(fitted.fitted(KEY).metadata)[4]
    assert round(image_scores(after[4], (120, 160), None, 1.0, [99.5])[0], 6) == image.score(99.5)


@pytest.mark.slow
def test_a_bank_of_an_earlier_version_has_no_maps_and_grows(fitted, parts):
    leave_out(fitted, *MAPS)
    assert fitted.store.honest_maps(fitted.fitted(KEY)) == {}
    fit(fitted, KEY, parts[4:5], mm_per_px=0.2, append=True)
    assert list(fitted.store.honest_maps(fitted.fitted(KEY))) == [4]


def test_the_contracts_profile_keeps_no_maps(service, parts):
    fit(service, KEY, parts[:3], mm_per_px=0.2)
    with np.load(service.settings.models_dir / "Master1" / "Pattern" / "memory.npz") as arrays:
        assert not set(MAPS) & set(arrays)
    assert service.store.honest_maps(service.fitted(KEY)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        {"honest_maps": np.zeros((3, 8, 8), np.float32)},
        {"honest_maps": np.full((4, 8, 8), np.nan, np.float32)},
        {"honest_maps": np.zeros((4, 8, 8))},
        {"honest_map_images": np.array([0, 1, 2, 4])},
        {"honest_map_images": np.array([0, 1, 2, 2])},
    ],
    ids=["too few", "no numbers", "another type", "of no image", "twice"],
)
def test_damaged_maps_are_refused(fitted, damage):
    tampered(fitted, **damage)
    with pytest.raises(StorageError, match="honest distance maps are damaged: refit this ROI"):
        fitted.store.honest_maps(fitted.fitted(KEY))
