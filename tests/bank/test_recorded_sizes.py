"""The sizes of the images of a bank, which are read at every inference, and of which none is needed."""

import pytest

from backend.bank.images import recorded_sizes


def test_each_size_is_told_once_in_the_order_of_the_images():
    images = [{"height": h, "width": w, "name": "a.png"} for h, w in ((3, 4), (5, 6), (3, 4), (4, 3))]
    assert recorded_sizes({"images": images}) == [(3, 4), (5, 6), (4, 3)]


@pytest.mark.parametrize(
    "images", [None, 7, {"height": 3}, "ab", [7, None, "ab"], [{}], [{"height": [3], "width": 3}], [{"height": 0.5}]]
)
def test_what_is_no_list_of_sizes_tells_nothing(images):
    assert recorded_sizes({"images": images}) == recorded_sizes({}) == []
