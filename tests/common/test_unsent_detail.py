"""Progressive JPEGs whose scans leave out detail: legal, but nothing tells them from files cut between two scans."""

import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.common.errors import InvalidImage
from backend.utils import ImageLimits, decode_image
from harness.hostile_files import pixels, saved

LIMITS = ImageLimits(1 << 20, 1 << 20)
WHOLE = saved(Image.fromarray(pixels(96, 64)), "JPEG", progressive=True)
GREY = saved(Image.fromarray(pixels(96, 64)).convert("L"), "JPEG", progressive=True)


def scans(jpeg):
    """Where each scan begins, and what it sends: components, first and last coefficient, bits."""
    place, found = 0, []
    while (place := jpeg.find(b"\xff\xda", place)) >= 0:
        n_components = jpeg[place + 4]
        names = tuple(jpeg[place + 5 : place + 5 + 2 * n_components : 2])
        found.append((place, names, *struct.unpack_from("BBB", jpeg, place + 5 + 2 * n_components)))
        place += 2
    return found


def without(jpeg, *left_out):
    """The file without some of its scans, by their number."""
    starts = [scan[0] for scan in scans(jpeg)] + [len(jpeg) - 2]
    ends = []
    for start, following in itertools.pairwise(starts):
        tables = jpeg.find(b"\xff\xc4", start, following)  # of the next scan
        ends.append(following if tables < 0 else tables)
    cut = jpeg
    for number in sorted(left_out, reverse=True):
        cut = cut[: starts[number]] + cut[ends[number] :]
    return cut


def refusal(content):
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None, "the decoder takes it"
    with pytest.raises(InvalidImage) as caught:
        decode_image(content, "a.jpg", LIMITS)
    assert caught.type is InvalidImage
    return str(caught.value)


def test_bands_that_are_never_sent_are_counted():
    assert [scan[1:] for scan in scans(GREY)][:3] == [((1,), 0, 0, 1), ((1,), 1, 5, 2), ((1,), 6, 63, 2)]
    n = len(scans(GREY))
    for n_kept, told in (
        (1, "lack 63 of 64 coefficients, and the last bits of 1;"),
        (2, "lack 58 of 64 coefficients, and the last bits of 6;"),
    ):
        said = refusal(without(GREY, *range(n_kept, n)))
        assert f"its {n_kept} scans {told}" in said


def test_bits_that_are_never_sent_are_counted():
    last = len(scans(GREY)) - 1
    said = refusal(without(GREY, last))
    assert f"its {last} scans lack 0 of 64 coefficients, and the last bits of 63" in said


def test_of_several_components_the_one_that_lacks_most_counts():
    blue = next(number for number, scan in enumerate(scans(WHOLE)) if scan[1] == (2,) and scan[2] == 1)
    last = max(number for number, scan in enumerate(scans(WHOLE)) if scan[1] == (2,))
    said = refusal(without(WHOLE, blue, last))
    assert "lack 63 of 64 coefficients, and the last bits of 0;" in said
    assert "the file was cut between two scans, or saved without its detail; send the whole file" in said


def test_whole_files_are_taken():
    for content in (WHOLE, GREY):
        assert decode_image(content, "a.jpg", LIMITS).shape == (64, 96, 3)
