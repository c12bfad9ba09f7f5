import pytest

from backend.service.doubts import about_area, about_percentile, about_size


@pytest.mark.parametrize(("percentile", "meant"), [(0.99, "99"), (0.995, "99.5"), (1, "100"), (0.5, "50")])
def test_a_share_is_told_as_the_percentile_that_it_may_mean(percentile, meant):
    doubt = about_percentile(percentile, "score_percentile")
    assert f"score_percentile {percentile:g} is read as percent" in doubt
    assert f"send {meant} " in doubt


@pytest.mark.parametrize("percentile", [1.01, 50, 95, 99, 99.9, 100])
def test_a_percentile_above_one_is_no_share(percentile):
    assert about_percentile(percentile, "score_percentile") is None


def test_an_area_up_to_the_whole_roi_is_fine_and_a_larger_one_is_told():
    sizes = [(240, 300), (100, 700)]
    assert about_area(72_000 * 0.25, "area_mm2_thr", 0.5, sizes) is None
    doubt = about_area(72_000 * 0.25 + 1, "area_mm2_thr", 0.5, sizes)
    assert "area_mm2_thr 18001 mm² is larger than the whole ROI, 18000 mm² (300 × 240 pixels of 0.5 mm)" in doubt
    assert about_area(1e12, "area_mm2_thr", 0.5, []) is None, "older banks know no sizes"


FITTED = [(240, 300), (250, 310)]


@pytest.mark.parametrize(
    "image_hw", [(240, 300), (500, 620), (120, 150), (480, 300), (246, 614), (500, 310), (120, 300)]
)
def test_an_image_within_twice_the_range_of_the_fit_is_fine(image_hw):
    assert about_size(image_hw, FITTED) is None


@pytest.mark.parametrize("image_hw", [(501, 620), (119, 150), (240, 621), (240, 149), (130, 600), (500, 250 * 5)])
def test_an_image_beyond_twice_the_range_of_the_fit_is_told(image_hw):
    doubt = about_size(image_hw, FITTED)
    assert f"the image has {image_hw[1]} × {image_hw[0]} pixels, but those of the fit have 300–310 × 240–250" in doubt


def test_an_aspect_ratio_alone_is_told():
    square = [(100, 100), (200, 200)]  # 100 × 201 is within twice of either side
    assert about_size((100, 200), square) is None
    assert about_size((100, 201), square) is not None


def test_an_image_beside_a_bank_that_knows_no_sizes_is_fine():
    assert about_size((10, 10), []) is None
