"""The honest scores of the images of a fit: each by a bank of the others."""

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.common.errors import InvalidShape
from backend.patchcore import l2_normalize
from backend.roi_mask import Circle
from backend.service import bank_report
from backend.service.fit import fit
from backend.service.judge import infer
from backend.service.scoring import Scoring
from tests.factories import KEY, image_named


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


def score(service, image, **more):
    return infer(service, KEY, image, Scoring(0.2, **more)).inference.score


@pytest.mark.slow
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
