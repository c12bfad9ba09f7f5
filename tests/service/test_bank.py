"""A memory bank over its life: honest scores at the fit, suspicious images, further images, what it was built from."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from backend.bank.images import BankImage, recorded_images, suspicious_images, thumbnail
from backend.common.config import Settings
from backend.common.errors import Conflict, DamagedMemory, InvalidRequest, InvalidShape, MemoryNotFound, TooLarge
from backend.common.roi_key import RoiKey
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.roi_mask import Circle
from backend.service import bank_report, explain
from backend.service import fit as fit_module
from backend.service.calibrate import calibrate
from backend.service.datasets import fit_stored, store_images
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY, as_bmp, image_named


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


def score(service, image, **more):
    return infer(service, KEY, image, Scoring(0.2, **more)).inference.score


def test_image_score_is_that_of_a_fit_without_it_if_all_patches_are_kept(service, parts):
    """The score that a fit gives an image is that by a bank of the other images, with or without a mask."""
    circle = Circle(kind="circle", cx=80, cy=60, r=40)
    whole = fit(service, KEY, parts, mm_per_px=0.2, keep_all=True)
    masked = fit(service, KEY, parts, mm_per_px=0.2, keep_all=True, shapes=[circle] * len(parts))
    for number, part in enumerate(parts):
        fit(service, KEY, [*parts[:number], *parts[number + 1 :]], mm_per_px=0.2, keep_all=True)
        # Distances of 0.04 come from products that are off by 1e-6.
        assert whole.ok_scores[number] == pytest.approx(score(service, part), abs=5e-5)
        assert masked.ok_scores[number] == pytest.approx(score(service, part, shape=circle), abs=5e-5)


def test_mask_that_selects_nothing_fails_the_fit_before_it_costs_time(service, parts):
    outside = Circle(kind="circle", cx=900, cy=900, r=4)
    with pytest.raises(InvalidShape):
        fit(service, KEY, parts, mm_per_px=0.2, shapes=[None] * 5 + [outside])
    assert service.store.memory_id(KEY) is None


def test_one_image_has_no_honest_score(service, parts):
    assert fit(service, KEY, parts[:1], mm_per_px=0.2).ok_scores is None


def test_scores_are_stored_with_the_memory_for_several_percentiles(service, parts):
    result = fit(service, KEY, parts, mm_per_px=0.2)
    images = recorded_images(service.fitted(KEY).metadata)
    assert [image.name for image in images] == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    assert [image.score(99) for image in images] == result.ok_scores
    for image in images:
        assert (image.height, image.width) == (120, 160)
        values = [image.score(percentile) for percentile in (95, 98, 99, 99.5, 99.9, 100)]
        assert values == sorted(values)


def test_every_embedding_of_the_bank_says_which_patch_it_is(service, features, parts):
    fit(service, KEY, parts, mm_per_px=0.2)
    memory = service.fitted(KEY).memory
    rows = np.concatenate(
        [features.extract(cv2.imdecode(np.frombuffer(part.read(), np.uint8), 1))[0] for part in parts]
    )
    np.testing.assert_allclose(memory.embeddings, l2_normalize(rows)[memory.patches], atol=1e-5)


def test_a_defective_image_among_the_good_ones_is_suspicious(service, parts):
    good = cv2.imdecode(np.frombuffer(parts[0].read(), np.uint8), cv2.IMREAD_COLOR)
    alike = [image_named(f"{number}.png", cv2.convertScaleAbs(good, alpha=1 + number / 50)) for number in range(8)]
    painted = cv2.circle(good.copy(), (80, 60), 25, (0, 0, 255), cv2.FILLED)
    result = fit(service, KEY, [*alike, image_named("bad.png", painted)], mm_per_px=0.2)
    assert [image.filename for image in result.suspicious] == ["bad.png"]
    report = bank_report.bank_report(service, KEY)
    assert [entry.image.name for entry in report.entries if entry.suspicious] == ["bad.png"]
    assert sum(entry.n_kept for entry in report.entries) == len(report.fitted.memory.embeddings)


def test_images_that_were_sent_twice_score_as_if_they_were_sent_once(service, parts):
    twice = fit(service, KEY, parts[:3] * 2, mm_per_px=0.2, keep_all=True).ok_scores
    once = fit(service, KEY, parts[:3], mm_per_px=0.2, keep_all=True).ok_scores
    assert twice == pytest.approx(once * 2, abs=1e-6)
    appended = fit(service, KEY, parts[:3], mm_per_px=0.2, append=True).ok_scores
    assert appended == pytest.approx(once, abs=1e-6)
    assert fit(service, KEY, parts[:1] * 2, mm_per_px=0.2).ok_scores is None


def test_too_few_or_unscored_images_are_not_suspected():
    images = [BankImage(f"{n}.png", f"{n}", 1, 1, 0, None, {"99": 0.5}) for n in range(4)] + [
        BankImage("x.png", "x", 1, 1, 0, None, {})
    ]
    assert suspicious_images([*images, BankImage("y.png", "y", 1, 1, 0, None, {"98": 2.0})], 99) == []
    assert [
        found.index for found in suspicious_images([BankImage("z.png", "z", 1, 1, 0, None, {"99": 0.9})], 99, images)
    ] == [0]


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
        with pytest.raises(Conflict, match="too unlike those of the model"):
            fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).metadata == before.metadata

    @pytest.mark.parametrize("rate", [0.02, 1.0])
    def test_radius_is_bounded_for_unscored_images_and_append_still_works(self, service, parts, monkeypatch, rate):
        """Too many images are not scored: the covering radius is then an upper bound, and more can be appended."""
        service = InspectionService(
            service.settings.model_copy(update={"coreset_rate": rate}), service.features, service.store
        )
        fit(service, KEY, parts[:4], mm_per_px=0.2)
        exact = service.fitted(KEY).metadata["covering_radius"]
        monkeypatch.setattr("backend.bank.building.MOST_PRODUCTS", 0)
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
        monkeypatch.setattr("backend.service.fit.check_memory", lambda *_: None)
        with pytest.raises(TooLarge, match="384 embeddings does not fit"):
            fit(service, KEY, parts[2:], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).memory_id == before

    def test_to_a_bank_of_every_patch_all_new_ones_are_added(self, service, parts):
        fit(service, KEY, parts[:1], mm_per_px=0.2, keep_all=True)
        assert fit(service, KEY, parts[1:3], mm_per_px=0.2, append=True).coreset_size == 3 * 64
        with pytest.raises(InvalidRequest, match="goes without append"):
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
        base_of, asked = fit_module._base, []

        def overtaken(service, key):
            base = base_of(service, key)
            asked.append(key)
            if len(asked) == 2:  # asked at the beginning, and again when its turn has come
                fit(elsewhere, KEY, parts[1:2], mm_per_px=0.2, append=True)
            return base

        monkeypatch.setattr(fit_module, "_base", overtaken)
        with pytest.raises(Conflict, match="append again"):
            fit(service, KEY, parts[2:3], mm_per_px=0.2, append=True)
        assert [image.name for image in recorded_images(service.fitted(KEY).metadata)] == ["0.png", "1.png"]

    def test_images_that_add_no_patch_are_not_lost_unsaid_either(self, service, features, parts, monkeypatch):
        fit(service, KEY, parts[:1], mm_per_px=0.2)
        copy = NamedImage("copy.png", lambda: as_bmp(parts[0].read()))
        elsewhere = InspectionService(service.settings, features, ModelStore(service.settings.models_dir))
        base_of, asked = fit_module._base, []

        def overtaken(service, key):
            base = base_of(service, key)
            asked.append(key)
            if len(asked) == 2:
                fit(elsewhere, KEY, [copy], mm_per_px=0.2, append=True)
            return base

        before = service.fitted(KEY).memory_id
        monkeypatch.setattr(fit_module, "_base", overtaken)
        with pytest.raises(Conflict, match="append again"):
            fit(service, KEY, parts[2:3], mm_per_px=0.2, append=True)
        assert service.fitted(KEY).memory_id == before, "the copy added nothing"
        assert [image.name for image in recorded_images(service.fitted(KEY).metadata)] == ["0.png", "copy.png"]


class TestExplain:
    def explain(self, service, image, point=None, **more):
        return explain.explain(service, KEY, image, mm_per_px=0.2, shape=None, point=point, with_pictures=True, **more)

    def test_it_judges_as_an_inference_does(self, service, parts):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        calibrate(service, KEY, [0.1], [], mm_per_px=0.2, area_mm2_thr=0)
        found, inferred = self.explain(service, parts[2]), infer(service, KEY, parts[2], Scoring(0.2))
        assert found.result.inference == inferred.inference
        assert found.result.decision == inferred.decision == "ng"
        assert len(found.reasons) == min(8, len(inferred.inference.regions))

    def test_pictures_show_the_good_image_where_it_was_kept(self, service, parts):
        widths = []
        for thumbnails in (False, True):
            fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=thumbnails)
            found = self.explain(service, parts[2], (10, 10))
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(found.pictures[0]), np.uint8), 1)
            widths.append(picture.shape[1])
            assert found.reasons[0].image.name in ("0.png", "1.png")
        assert widths[1] == 2 * widths[0] + 8

    def test_stored_images_are_shown_and_a_damaged_one_is_not(self, features, tmp_path, parts):
        # Room for one image at a time: who held the one that was sent while it asks for another would wait for ever.
        settings = Settings(models_dir=tmp_path, max_pixels=160 * 120 + 1, min_ok_samples=2)
        service = InspectionService(settings, features, ModelStore(tmp_path))
        names = store_images(service, KEY, "ok", parts[:2], [])
        fit_stored(service, KEY, mm_per_px=0.2, keep_all=False)
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(self.explain, service, parts[2], (10, 10)) for _ in range(8)]
            widths = {self.width(run.result(timeout=60).pictures[0]) for run in runs}
        assert widths == {2 * 384 + 8}
        for name in names:
            path = service.datasets.folder(KEY) / "ok" / name
            path.write_bytes(path.read_bytes()[:200])
        assert self.width(self.explain(service, parts[2], (10, 10)).pictures[0]) == 384

    def width(self, picture):
        return cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).shape[1]

    def test_a_place_outside_the_image_is_refused(self, service, parts):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        with pytest.raises(InvalidRequest, match="outside the image of 160x120"):
            self.explain(service, parts[2], (160, 10))


def tampered(service, **changes):
    """The ROI's memory file with some of its arrays replaced, or its images described otherwise."""
    path = service.settings.models_dir / "Master1" / "Pattern" / "memory.npz"
    with np.load(path) as file:
        arrays = dict(file)
    described = changes.pop("images", None)
    if described is not None:
        metadata = json.loads(str(arrays["metadata"]))
        metadata["images"] = [{**image, **described} for image in metadata["images"]]
        changes["metadata"] = np.array(json.dumps(metadata))
    np.savez(path, **{**arrays, **changes})


@pytest.mark.parametrize(
    "patches",
    [
        np.full(8, 2**62),
        np.full(8, -2),
        np.full(8, 128),
        np.zeros(7, np.int64),
        np.zeros(8),
        np.zeros((8, 1), np.int64),
    ],
)
def test_a_bank_that_says_nonsense_about_its_patches_is_damaged(service, parts, patches):
    assert fit(service, KEY, parts[:2], mm_per_px=0.2).n_embeddings == 128
    n_kept = len(service.fitted(KEY).memory.embeddings)
    tampered(service, patches=np.resize(patches, (n_kept, *patches.shape[1:])) if len(patches) == 8 else patches)
    for ask in (bank_report.bank_report, TestExplain().explain):
        with pytest.raises(DamagedMemory):
            ask(service, KEY) if ask is bank_report.bank_report else ask(service, parts[2])


@pytest.mark.parametrize("nonsense", [{"height": 10**400}, {"width": 0}, {"scores": {"99": 1e400}}, {"name": 7}])
def test_a_bank_that_says_nonsense_about_its_images_is_damaged(service, parts, nonsense):
    fit(service, KEY, parts[:2], mm_per_px=0.2)
    tampered(service, images=nonsense)
    with pytest.raises(DamagedMemory):
        bank_report.bank_report(service, KEY)


def test_thumbnails_are_those_of_the_bank_that_is_asked_about_or_none(service, parts):
    fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=True)
    old = service.fitted(KEY)
    assert len(service.store.thumbnails(old)) == 2
    fit(service, KEY, parts[2:], mm_per_px=0.2, thumbnails=True)
    assert service.store.thumbnails(old) == []
    assert len(service.store.thumbnails(service.fitted(KEY))) == 4


@pytest.mark.parametrize("huge", [True, False])
def test_a_thumbnail_that_is_none_is_not_shown(service, parts, huge):
    fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=True)
    bomb = cv2.imencode(".png", np.zeros((4000, 4000), np.uint8))[1].tobytes() if huge else b"no image"
    tampered(
        service,
        thumbnails=np.frombuffer(bomb * 2, np.uint8),
        thumbnail_ends=np.array([len(bomb), 2 * len(bomb)]),
    )
    assert TestExplain().width(TestExplain().explain(service, parts[2], (10, 10)).pictures[0]) == 384


def test_a_score_is_that_of_its_percentile_to_the_last_digit():
    image = BankImage("a.png", "0", 1, 1, None, None, {"99": 0.4, "99.5": 0.5, "99.99996": 0.6})
    assert [image.score(percent) for percent in (99, 99.0, 99.5, 99.99996)] == [0.4, 0.4, 0.5, 0.6]
    assert [image.score(percent) for percent in (100, 99.0000001)] == [None, None]


def test_thumbnails_are_small_and_keep_the_aspect_of_the_image():
    for height, width in [(2000, 1000), (100, 50), (3, 3000)]:
        small = cv2.imdecode(np.frombuffer(thumbnail(np.zeros((height, width, 3), np.uint8)), np.uint8), 1)
        scale = min(1, 384 / max(height, width))
        assert small.shape[:2] == (max(1, round(height * scale)), max(1, round(width * scale)))


@pytest.mark.parametrize(
    "images",
    [
        "x",
        [1],
        [{"name": "a"}],
        [{"name": "a", "sha256": "b", "height": 0, "width": 1, "n_unique": 0, "shape": None, "scores": {}}],
        [
            {
                "name": "a",
                "sha256": "b",
                "height": 1,
                "width": 1,
                "n_unique": 0,
                "shape": None,
                "scores": {"99": float("nan")},
            }
        ],
    ],
)
def test_damaged_words_about_the_images_are_an_error(images):
    with pytest.raises(DamagedMemory):
        recorded_images({"images": json.loads(json.dumps(images))})
