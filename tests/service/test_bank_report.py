"""What a bank was built from, as it is told."""

import pytest

from backend.common.errors import DamagedMemory
from backend.service import bank_report
from backend.service.fit import fit
from tests.factories import KEY, tampered


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


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
