"""Small defects beside anomalib's tiling: where its tiles lie, and what is asked of it."""

import cv2
import numpy as np
import pytest

from backend.tiles import Tiling
from benchmarks.anomalib_side.detail import judge, tiled
from benchmarks.detail_scenes import SCENE_HW, Defect, Tray


@pytest.mark.parametrize("detail", [1, 2, 3, 4, 5])
def test_its_tiles_lie_where_ours_do(detail):
    sizes = tiled(detail, 448)
    starts = list(range(0, sizes["canvas"] - sizes["tile"] + 1, sizes["stride"]))
    assert len(starts) == detail
    assert starts[-1] + sizes["tile"] == sizes["canvas"]
    assert {start // 14 for start in starts} == {tile.start[0] for tile in Tiling(detail, (32, 32)).tiles}


def test_every_defect_is_looked_at_alone_after_a_fit(tmp_path):
    grey = np.full((256, 256, 3), 120, np.uint8)
    tray, asked = Tray("set", (256, 256), [grey], [grey]), []

    def ask(order, **arguments):
        asked.append(order)
        if order == "fit":
            assert len(arguments["images"]) == 2
            return {"bank": 7, "bank_mb": 0.5}
        pixels = cv2.imread(arguments["image"])
        assert pixels.shape == (*SCENE_HW, 3)
        return {"score": float(np.count_nonzero(pixels != 120))}

    defects = [Defect("spot", size, 600, 700, 0.0, 1) for size in (16, 24)]
    found = judge(tray, 3, ask, tmp_path, 2, 2, [defects])
    assert asked == ["fit", *["infer"] * 4]
    assert (found.n_bank, found.clean) == (7, [0.0, 0.0])
    [(before, small)], [(_, large)] = found.scores["spot", 16], found.scores["spot", 24]
    assert 0 == before < small < large
