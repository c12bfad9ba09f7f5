"""Further images for a bank that there is: what is added, what stays, and what is refused."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.common.errors import Conflict, DamagedMemory, InvalidRequest, MemoryNotFound, TooLarge
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.roi_mask import Circle
from backend.service import bank_report, fit_request
from backend.service import fit as fit_module
from backend.service.calibrate import calibrate
from backend.service.fit import fit
from backend.service.fit_request import base_of
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY, with_one_pixel_changed


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


class TestAppend:
    def test_the_bank_keeps_what_it_has_and_covers_the_new_images_as_closely(self, service, features, parts):
        first = fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=True)
        before = service.fitted(KEY)
        radius = before.metadata["covering_radius"]
        result = fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)
        after = service.fitted(KEY)
        n = len(before.memory.embeddings)
        np.testing.assert_array_equal(after.memory.embeddings[:n], before.memory.embeddings)
        for part in parts:
            image = cv2.imdecode(np.frombuffer(part.read(), np.uint8), cv2.IMREAD_COLOR)
            assert after.memory.distances(features.extract(image)[0]).max() <= radius + 1e-5
        assert result.n_embeddings == first.n_embeddings * 3
        assert after.metadata["n_images"] == 6
        assert [image.name for image in recorded_images(after.metadata)] == [f"{number}.png" for number in range(6)]
        assert [bool(picture) for picture in service.store.thumbnails(after)] == [True] * 2 + [False] * 4
        owners = after.memory.patches[n:] // 64
        assert set(owners) <= {2, 3, 4, 5}
        assert len(result.ok_scores) == 4

    def test_what_is_new_is_picked_farthest_first_and_nothing_that_is_covered(self):
        def rows(n, seed):
            return l2_normalize(np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32))

        memory = PatchCoreMemory.build(rows(64, 0), (4, 4), 0.3)
        more, radius = rows(32, 1), 0.5
        longer = memory.extended(more.copy(), radius, 4)
        bank = memory.embeddings
        for picked, patch in zip(longer.embeddings[len(bank) :], longer.patches[len(bank) :], strict=True):
            distances = np.linalg.norm(more[:, None] - bank[None], axis=2).min(axis=1)
            assert distances.max() > radius
            np.testing.assert_allclose(picked, more[distances.argmax()], atol=1e-6)
            assert patch == 4 * 16 + distances.argmax()
            bank = np.vstack([bank, picked])
        assert np.linalg.norm(more[:, None] - bank[None], axis=2).min(axis=1).max() <= radius + 1e-5
        assert len(bank) > len(memory.embeddings)

    def test_images_that_the_bank_covers_add_nothing_and_keep_the_calibration(self, service, parts):
        fit(service, KEY, parts, mm_per_px=0.2)
        calibrate(service, KEY, [0.3, 0.4], [], mm_per_px=0.2)
        before = service.fitted(KEY)
        assert fit(service, KEY, parts[:2], mm_per_px=0.2, append=True).calibration_state == "applied"
        assert service.fitted(KEY).memory_id == before.memory_id

    def test_new_patches_make_the_calibration_stale(self, service, parts):
        fit(service, KEY, parts[:1], mm_per_px=0.2)
        calibrate(service, KEY, [0.3, 0.4], [], mm_per_px=0.2)
        assert fit(service, KEY, parts[1:], mm_per_px=0.2, append=True).calibration_state == "stale"

    def test_images_that_the_bank_has_are_not_appended_again(self, service, parts):
        first = fit(service, KEY, parts[:3], mm_per_px=0.2)
        calibrate(service, KEY, [0.3, 0.4], [], mm_per_px=0.2)
        again = fit(service, KEY, parts[:3], mm_per_px=0.2, append=True)
        assert again == replace(first, calibration_state="applied")
        mixed = fit(service, KEY, [parts[1], parts[4], parts[4]], mm_per_px=0.2, append=True)
        assert mixed.ok_scores[0] == first.ok_scores[1]
        assert mixed.ok_scores[1] == mixed.ok_scores[2]
        assert [image.name for image in recorded_images(service.fitted(KEY).metadata)][:4] == [
            "0.png",
            "1.png",
            "2.png",
            "4.png",
        ]

    def test_scores_of_another_blur_are_forgotten_and_the_source_is_not(self, service, features, parts):
        fit(service, KEY, parts[:3], mm_per_px=0.2, source="dataset")
        other = InspectionService(service.settings.model_copy(update={"blur_sigma": 5.0}), features, service.store)
        assert fit(other, KEY, parts[3:], mm_per_px=0.2, append=True).ok_scores is not None
        metadata = service.fitted(KEY).metadata
        assert [bool(image.scores) for image in recorded_images(metadata)] == [False] * 3 + [True] * 3
        assert metadata["source"] == "dataset"

    def test_scores_of_another_blur_or_another_mask_are_not_replied(self, service, features, parts):
        shape = Circle(kind="circle", cx=40, cy=40, r=30)
        fit(service, KEY, parts[:3], mm_per_px=0.2, shapes=[shape] * 3)
        assert fit(service, KEY, parts[:2], mm_per_px=0.2, append=True, shapes=[shape] * 2).ok_scores is not None
        assert fit(service, KEY, parts[:2], mm_per_px=0.2, append=True).ok_scores is None
        assert fit(service, KEY, parts[:4], mm_per_px=0.2, append=True).ok_scores is None
        other = InspectionService(service.settings.model_copy(update={"blur_sigma": 5.0}), features, service.store)
        assert fit(other, KEY, parts[:2], mm_per_px=0.2, append=True, shapes=[shape] * 2).ok_scores is None
        assert [entry.image.scores for entry in bank_report.bank_report(other, KEY).entries] == [{}] * 4

    def test_append_refuses_images_unlike_all_before_and_keeps_the_model(self, service, parts, monkeypatch):
        """Appending images that are all unlike those of the model would take minutes, so it is refused before."""
        settings = service.settings.model_copy(update={"coreset_rate": 0.5})
        service = InspectionService(settings, service.features, service.store)
        fit(service, KEY, parts[:1], mm_per_px=0.2)
        before = service.fitted(KEY)
        monkeypatch.setattr("backend.patchcore._MOST_APPENDED", 0)
        monkeypatch.setattr("backend.patchcore._MAX_POOL", 1)  # a pick at a time
        with pytest.raises(Conflict, match="differ too much from those of the model"):
            fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).metadata == before.metadata

    @pytest.mark.parametrize("rate", [0.02, 1.0])
    def test_radius_is_bounded_for_unscored_images_and_append_still_works(self, service, parts, monkeypatch, rate):
        """Of too many images a sample is scored: the covering radius is an upper bound, and more can be appended."""
        service = InspectionService(
            service.settings.model_copy(update={"coreset_rate": rate}), service.features, service.store
        )
        fit(service, KEY, parts[:4], mm_per_px=0.2)
        exact = service.fitted(KEY).metadata["covering_radius"]
        monkeypatch.setattr("backend.bank.building.MOST_PRODUCTS", 0)
        monkeypatch.setattr("backend.bank.leave_one_out_sample.MOST_PRODUCTS", 0)
        monkeypatch.setattr("backend.bank.leave_one_out_sample.LEAST_SAMPLED", 2)
        assert fit(service, KEY, parts[:4], mm_per_px=0.2).ok_scores is None
        bound = service.fitted(KEY).metadata["covering_radius"]
        if rate < 1:
            assert exact - 1e-6 <= bound <= 1.3 * exact
        else:
            assert bound == 0
        assert fit(service, KEY, parts, mm_per_px=0.2, append=True).n_embeddings == 6 * 64

    def test_a_bank_that_does_not_fit_into_memory_is_refused(self, service, parts, monkeypatch):
        fit(service, KEY, parts[:2], mm_per_px=0.2, keep_all=True)
        before = service.fitted(KEY).memory_id
        monkeypatch.setattr("backend.bank.memory_limits.free_memory", lambda: 10**9)
        monkeypatch.setattr("backend.bank.memory_limits._COPIES_OF_BANK", 10**4)
        monkeypatch.setattr("backend.service.fit_executor.check_memory", lambda *_: None)
        with pytest.raises(TooLarge, match="384 embeddings does not fit"):
            fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).memory_id == before

    def test_to_a_bank_of_every_patch_all_new_ones_are_added(self, service, parts):
        fit(service, KEY, parts[:1], mm_per_px=0.2, keep_all=True)
        assert fit(service, KEY, parts[1:3], mm_per_px=0.2, append=True).coreset_size == 3 * 64
        with pytest.raises(InvalidRequest, match="cannot be combined"):
            fit(service, KEY, parts, mm_per_px=0.2, append=True, keep_all=True)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("covering_radius", float("nan")),
            ("covering_radius", -1.0),
            ("n_images", float("inf")),
            ("coreset_rate", 10**400),
        ],
    )
    def test_a_model_that_says_nonsense_about_its_making_is_not_appended_to(self, service, parts, name, value):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        fitted = service.fitted(KEY)
        service.store.save_memory(KEY, fitted.memory, {**fitted.metadata, name: value})
        with pytest.raises((Conflict, DamagedMemory)):
            fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)

    def test_without_a_model_there_is_nothing_to_append_to(self, service, parts):
        with pytest.raises(MemoryNotFound):
            fit(service, KEY, parts, mm_per_px=0.2, append=True)

    def test_a_model_of_an_earlier_version_cannot_be_appended_to(self, service, parts):
        fit(service, KEY, parts, mm_per_px=0.2)
        fitted = service.fitted(KEY)
        older = {name: value for name, value in fitted.metadata.items() if name not in ("covering_radius", "images")}
        service.store.save_memory(KEY, PatchCoreMemory(fitted.memory.embeddings, fitted.memory.token_hw), older)
        assert recorded_images(service.fitted(KEY).metadata) == []
        with pytest.raises(Conflict, match="fit it anew"):
            fit(service, KEY, parts, mm_per_px=0.2, append=True)

    def test_the_default_recipes_model_is_not_appended_to_under_another_name(self, service, parts):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        other = RoiKey("Master1", "Pattern", recipe_id="line 1")
        with pytest.raises(Conflict, match="no memory bank of its own"):
            fit(service, other, parts[2:], mm_per_px=0.2, append=True)

    def test_of_two_at_once_none_is_lost_unsaid(self, service, features, parts, monkeypatch):
        fit(service, KEY, parts[:1], mm_per_px=0.2)
        elsewhere = InspectionService(service.settings, features, ModelStore(service.settings.models_dir))
        asked = []

        def overtaken(service, key):
            base = base_of(service, key)
            asked.append(key)
            if len(asked) == 2:  # asked at the beginning, and again when its turn has come
                fit(elsewhere, KEY, parts[1:2], mm_per_px=0.2, append=True)
            return base

        for module in (fit_module, fit_request):
            monkeypatch.setattr(module, "base_of", overtaken)
        with pytest.raises(Conflict, match="append again"):
            fit(service, KEY, parts[2:3], mm_per_px=0.2, append=True)
        assert [image.name for image in recorded_images(service.fitted(KEY).metadata)] == ["0.png", "1.png"]

    def test_images_that_add_no_patch_are_not_lost_unsaid_either(self, service, features, parts, monkeypatch):
        fit(service, KEY, parts[:1], mm_per_px=0.2)
        alike = NamedImage("alike.png", lambda: with_one_pixel_changed(parts[0].read()))
        elsewhere = InspectionService(service.settings, features, ModelStore(service.settings.models_dir))
        asked = []

        def overtaken(service, key):
            base = base_of(service, key)
            asked.append(key)
            if len(asked) == 2:
                fit(elsewhere, KEY, [alike], mm_per_px=0.2, append=True)
            return base

        before = service.fitted(KEY).memory_id
        for module in (fit_module, fit_request):
            monkeypatch.setattr(module, "base_of", overtaken)
        with pytest.raises(Conflict, match="append again"):
            fit(service, KEY, parts[2:3], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).memory_id == before, "it added nothing"
        assert [image.name for image in recorded_images(service.fitted(KEY).metadata)] == ["0.png", "alike.png"]
