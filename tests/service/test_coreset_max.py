"""``CORESET_MAX``: a memory bank keeps no more than that, and the fit says so."""

import numpy as np
import pytest

from backend.patchcore import k_center_greedy, l2_normalize
from backend.service.fit import fit
from tests.factories import KEY, service_with


@pytest.fixture
def fit_with(small_features, parts, tmp_path):
    def fitted(coreset_max, images=parts, **how):
        service = service_with(small_features, tmp_path, coreset_rate=0.1, coreset_max=coreset_max)
        return service, fit(service, KEY, images, mm_per_px=0.2, **how)

    return fitted


@pytest.mark.parametrize("coreset_max", [1, 7, 38])
def test_bank_keeps_the_first_picks_of_the_greedy_selection(fit_with, parts, coreset_max, small_features):
    service, result = fit_with(coreset_max)
    assert (result.n_embeddings, result.coreset_size) == (384, coreset_max)
    share = f"{100 * coreset_max / 384:.3g} % instead of 10 %"
    assert f"keeps {coreset_max} of 384 patch embeddings, {share}, because CORESET_MAX" in result.warning
    fitted = service.fitted(KEY)
    embeddings = l2_normalize(
        np.concatenate([small_features.extract(service.decode(image, None)[0])[0] for image in parts])
    )
    expected = embeddings[k_center_greedy(embeddings, 39)[:coreset_max]]
    assert fitted.memory.embeddings == pytest.approx(expected, abs=1e-6)
    assert fitted.metadata["coreset_rate"] == pytest.approx(coreset_max / 384)
    assert result.ok_scores is not None


@pytest.mark.parametrize("coreset_max", [None, 39, 1000])
def test_bank_below_the_limit_is_what_it_was(fit_with, coreset_max):
    service, result = fit_with(coreset_max)
    assert result.coreset_size == 39
    assert "CORESET_MAX" not in (result.warning or "")
    assert service.fitted(KEY).metadata["coreset_rate"] == 0.1


def test_fit_that_keeps_every_embedding_keeps_no_more_either(fit_with):
    _, result = fit_with(50, keep_all=True)
    assert result.coreset_size == 50
    assert "13 % instead of 100 %" in result.warning


def test_copies_of_images_do_not_exceed_the_limit_either(fit_with, parts):
    service, result = fit_with(400, [*parts, *parts], keep_all=True)
    assert (result.n_embeddings, result.coreset_size) == (768, 384)
    assert "keeps 384 of 768 patch embeddings, 50 % instead of 100 %" in result.warning
    assert sorted(service.fitted(KEY).memory.patches) == list(range(384)), "those of the first of two copies"


def test_what_is_appended_is_not_limited(fit_with, parts):
    service, _ = fit_with(5, parts[:2])
    result = fit(service, KEY, parts, mm_per_px=0.2, append=True)
    assert result.coreset_size > 5
    assert "CORESET_MAX" not in (result.warning or "")
