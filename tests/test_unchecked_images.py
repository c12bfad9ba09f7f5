"""Bytes that nobody has looked at before they are asked for their bit depth."""

import numpy as np
import pytest

from backend.bit_depth import BitDepth, decode, unsettled
from backend.common.errors import InvalidImage, UnsupportedImage
from backend.utils import ImageLimits
from harness.tiff_files import tiff
from tests.factories import encoded

WIDE = np.full((20, 30, 1), 700, np.uint16)


@pytest.mark.parametrize("whole", [encoded(WIDE), tiff(WIDE), tiff(WIDE, order=">")], ids=["png", "tiff", "TIFF"])
def test_cut_files_of_16_bits_are_refused_wherever_they_end(whole):
    assert unsettled(whole, None)
    for length in range(len(whole)):
        cut = whole[:length]
        assert length > 24 or not unsettled(cut, None)
        with pytest.raises((InvalidImage, UnsupportedImage), match=r"^part: "):
            decode(cut, "part", ImageLimits(1 << 20, 1 << 20), BitDepth(10, 700))
