"""Images that are stored for one ROI of a recipe, and what it scores them."""

from backend.disk.datasets import NewSample
from backend.roi_mask import parse_shape
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from tests.factories import IN_RECIPE

CIRCLE = '{"kind":"circle","cx":100,"cy":100,"r":90}'


def store(service, label, contents, key=IN_RECIPE, **metadata):
    return service.datasets.add(key, label, [NewSample(lambda c=c: c, ".png", metadata) for c in contents])


def score(service, content, shape=None, percentile=None):
    result = infer(
        service,
        IN_RECIPE,
        NamedImage("x.png", lambda: content),
        Scoring(0.2, shape=parse_shape(shape), percentile=percentile),
    )
    return result.inference.score
