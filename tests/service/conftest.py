"""Images that several use cases are tested with, and ROIs that were fitted on some of them."""

import cv2
import pytest

from backend.service.datasets import fit_stored
from backend.service.fit import fit
from backend.utils import NamedImage
from tests.factories import IN_RECIPE, image_named, with_one_pixel_changed
from tests.service.stored import store


@pytest.fixture(scope="session")
def features(small_features):
    """The extractor at 112 pixels, which is quick. A module that needs 448 pixels has its own fixture."""
    return small_features


@pytest.fixture
def named(images):
    pngs = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    return [NamedImage(f"{number}.png", lambda png=png: png) for number, png in enumerate(pngs)]


@pytest.fixture(scope="session")
def parts(images):
    """Six good images: real ones, and the same a little brighter."""
    small = [cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA) for image in images[:3]]
    every = [*small, *(cv2.convertScaleAbs(image, alpha=1.03, beta=2) for image in small)]
    return [image_named(f"folder/{number}.png", image) for number, image in enumerate(every)]


@pytest.fixture(scope="session")
def pngs(images):
    small = [cv2.resize(image, (200, 200), interpolation=cv2.INTER_AREA) for image in images]
    return [cv2.imencode(".png", image)[1].tobytes() for image in small]


@pytest.fixture
def fitted(service, pngs):
    """Two OK images are stored, and a model that was fitted on others of the same kind."""
    store(service, "ok", pngs[:2])
    fit(
        service,
        IN_RECIPE,
        [NamedImage("x.png", lambda png=png: with_one_pixel_changed(png)) for png in pngs[:2]],
        mm_per_px=0.2,
    )
    return service


@pytest.fixture
def fitted_on_its_own(service, pngs):
    """Two OK images are stored, and the model was fitted on them."""
    store(service, "ok", pngs[:2])
    fit_stored(service, IN_RECIPE, mm_per_px=0.2, keep_all=False)
    return service
