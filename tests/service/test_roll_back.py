"""Rolling back as a use case: to models of this extractor and this scale, which then judge as they did."""

import cv2
import pytest

from backend.common.errors import Conflict, IncompatibleMemory
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate as calibrate_scores
from backend.service.fit import fit as fit_images
from backend.service.judge import infer
from backend.service.roll_back import roll_back
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, KEY, memory_of, same_memory, snapshot, unit_rows


@pytest.fixture(scope="module")
def features(full_features):
    return full_features


def served_memory(service, seed):
    return PatchCoreMemory.build(unit_rows(10, 384, seed), (32, 32), 1.0)


@pytest.mark.parametrize(
    ("part", "value"), [("input_size", 518), ("precision", "bfloat16"), ("weights_sha256", "0" * 64), (None, None)]
)
def test_a_version_of_another_extractor_is_refused_and_says_what_differs(service, tmp_path, part, value):
    identity = service.features.identity.as_dict()
    other = memory_of(1) if part is None else served_memory(service, 1)
    service.store.save_memory(KEY, other, {"extractor": identity if part is None else {**identity, part: value}})
    service.store.save_memory(KEY, served_memory(service, 2), {"extractor": identity})
    before = snapshot(tmp_path)
    expected = "16 numbers per embedding instead of 384" if part is None else f"{part} '?{value}"
    with pytest.raises(
        IncompatibleMemory, match=f"version 1 of .* another extractor .*{expected}.*nothing was changed"
    ):
        roll_back(service, KEY)
    assert snapshot(tmp_path) == before
    service.store.save_memory(KEY, served_memory(service, 3), {"extractor": identity})
    version, fitted = roll_back(service, KEY)
    assert (version.number, same_memory(fitted, served_memory(service, 2))) == (2, True)


def test_a_version_of_another_scale_than_the_recipes_is_refused(service, tmp_path):
    for seed, mm_per_px in ((1, 0.3), (2, 0.2)):
        service.store.save_memory(IN_RECIPE, served_memory(service, seed), {"mm_per_px": mm_per_px})
    with service.recipes.locking_scale(IN_RECIPE.recipe_id, 0.2):
        pass
    with pytest.raises(Conflict, match=r"version 1 of .* mm_per_px 0\.3, but its recipe is locked to 0\.2; nothing"):
        roll_back(service, IN_RECIPE)
    service.store.save_memory(IN_RECIPE, served_memory(service, 3), {"mm_per_px": 0.2})
    assert roll_back(service, IN_RECIPE)[0].number == 2


@pytest.mark.slow
def test_what_was_inferred_before_a_change_is_inferred_after_rolling_back(service, images):
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    named = [NamedImage(f"{i}.png", lambda png=png: png) for i, png in enumerate(pngs)]
    fit_images(service, KEY, named[:2], mm_per_px=0.2)
    calibrate_scores(service, KEY, [0.3], [], mm_per_px=0.2)
    before = infer(service, KEY, named[4], Scoring(0.2))
    fit_images(service, KEY, named[2:4], mm_per_px=0.2)
    calibrate_scores(service, KEY, [0.9], [], mm_per_px=0.2)
    between = infer(service, KEY, named[4], Scoring(0.2))
    assert between.inference.score != before.inference.score
    roll_back(service, KEY, 2)
    after = infer(service, KEY, named[4], Scoring(0.2))
    assert (after.inference, after.heatmap_png_base64) == (before.inference, before.heatmap_png_base64)
    assert (after.calibration, after.decision) == (before.calibration, before.decision)
