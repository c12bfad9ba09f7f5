"""What a page shows first."""

import pytest

from backend.commands.report.content import ScoredImage, telling
from tests.commands.report.sections import IMAGES

TEST = [image for image in IMAGES if image.kind != "train"]


@pytest.mark.parametrize(
    ("kind", "score", "verdict"),
    [
        ("good", 0.5, "false reject"),
        ("good", 0.49, None),
        ("defective", 0.49, "escape"),
        ("defective", 0.5, None),
        ("train", 0.9, None),
        ("part", 0.9, None),
        ("part", 0.1, None),
    ],
)
def test_only_a_decision_that_is_known_to_be_wrong_has_a_verdict(kind, score, verdict):
    image = ScoredImage("a", kind, "a", score)
    assert image.verdict(0.5) == verdict
    assert image.verdict(None) is None


def test_wrong_decisions_come_first_then_what_is_nearest_to_the_threshold():
    names = [TEST[place].name for place in telling(TEST, 0.5, 99)]
    assert names[:3] == ["good/3.png", "bent/0.png", "hole/0.png"], "wrong, nearest first"
    assert names[3:] == ["good/2.png", "good/1.png", "bent/1.png", "good/0.png", "hole/1.png", "hole/2.png"]


def test_of_more_images_than_fit_the_most_telling_stay():
    assert [TEST[place].name for place in telling(TEST, 0.5, 4)][3:] == ["good/2.png"]


def test_without_a_threshold_images_are_taken_at_even_steps():
    assert telling(TEST, None, 3) == [0, 3, 6]
    assert telling(TEST, None, 99) == list(range(9))
