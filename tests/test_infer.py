"""From a distance map to score, heatmap and regions."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scipy import ndimage

from backend.common.errors import InvalidShape
from backend.features import preprocess
from backend.infer import InferenceEngine, Region, find_regions, to_heatmap, to_image_grid
from backend.patchcore import PatchCoreMemory
from backend.roi_mask import build_mask, parse_shape
from backend.tiles import Tiling
from backend.utils import percentile

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def upsampled_by_scipy(distances, image_hw):
    """Bilinear between token centres, with half-pixel centres, constant beyond the outermost ones."""
    rows, columns = (
        (np.arange(size) + 0.5) * tokens / size - 0.5 for size, tokens in zip(image_hw, distances.shape, strict=True)
    )
    places = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(distances.astype(np.float64), places, order=1, mode="nearest")


def blurred_by_scipy(values, sigma):
    """Convolution with a sampled, normalised Gaussian as wide as OpenCV derives for floats, borders reflected."""
    if sigma == 0:
        return values
    radius = (round(sigma * 8 + 1) | 1) // 2
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    for axis in (0, 1):
        values = ndimage.convolve1d(values, kernel, axis=axis, mode="mirror")  # scipy's name for dcb|abcd|cba
    return values


def percentile_by_sorting(values, percent):
    ordered = np.sort(np.asarray(values, np.float64).ravel())
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def plain_heatmap(distance_map, mask):
    low, high = np.percentile(distance_map, (1, 99))
    scaled = (distance_map - np.float32(low)) * np.float32(255 / (high - low))
    heatmap = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return heatmap if mask is None else np.where(mask, heatmap, 0)


def plain_regions(distance_map, mask, threshold, min_px, mm_per_px):
    """Every component by itself: labelled and counted by scipy, outlined by OpenCV in an image with nothing else."""
    defective = distance_map >= np.float32(min(threshold, 1e30))
    labels, _ = ndimage.label(defective if mask is None else defective & mask, EIGHT_NEIGHBOURS)
    regions = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[rows, columns] == label
        area_px = int(component.sum())
        if area_px >= min_px:
            height, width = component.shape
            outlines, _ = cv2.findContours(component.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            contour = (outlines[0][:, 0] + (columns.start, rows.start)).tolist()
            box = (columns.start, rows.start, width, height)
            regions.append(Region(*box, float(area_px), area_px * mm_per_px**2, contour))
    return sorted(regions, key=lambda region: (-region.area_px, region.y, region.x))


class GivenDistances:
    """In place of the extractor: embeddings that lie at given distances from the one in `BANK`."""

    def __init__(self, distances):
        self.distances = np.asarray(distances, np.float64)

    dim = 2

    @property
    def tiling(self):
        return Tiling(1, self.distances.shape)

    @property
    def token_hw(self):
        return self.distances.shape

    def each_tile(self, image, run, tiles):
        angles = 2 * np.arcsin(self.distances.ravel() / 2)
        assert tiles == [0]
        yield self.tiling.tiles[0], np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


BANK = PatchCoreMemory.build(np.array([[1, 0]], np.float32), (1, 1), 1.0)


def infer(distances, image_hw=(64, 96), *, shape=None, blur_sigma=1.0, **options):
    engine = InferenceEngine(GivenDistances(distances), blur_sigma)
    image = np.zeros((*image_hw, 3), np.uint8)
    return engine.run(image, BANK, **{"mm_per_px": 0.2, "shape": parse_shape(shape), **options})


@pytest.fixture(scope="module")
def real_distances(features, images):
    """Token distances of one real part to the memory bank of another, float32 [32, 32]."""
    memory = PatchCoreMemory.build(features.extract(images[0])[0], (32, 32), 0.1)
    return memory.distances(features.extract(images[1])[0]).reshape(32, 32)


@pytest.fixture
def distances():
    """A token grid of distances, [8, 8], none alike."""
    return np.random.default_rng(5).permutation(np.linspace(0.2, 0.9, 64)).reshape(8, 8)


# --- the map


@pytest.mark.parametrize("image_hw", [(64, 96), (150, 420), (33, 8), (5, 3), (1, 1), (1, 50), (77, 1)])
@pytest.mark.parametrize("sigma", [0, 0.5, 1.0, 2.3])
def test_the_map_is_the_grid_upsampled_bilinearly_and_blurred(distances, image_hw, sigma):
    brought = to_image_grid(distances.astype(np.float32), image_hw, sigma)
    assert brought.shape == image_hw
    assert brought.dtype == np.float32
    expected = blurred_by_scipy(upsampled_by_scipy(distances, image_hw), sigma)
    assert np.abs(brought - expected).max() < 2e-6


def test_the_map_of_a_grid_that_is_not_square_keeps_its_axes():
    grid = np.random.default_rng(0).random((3, 7)).astype(np.float32)
    assert (
        np.abs(to_image_grid(grid, (40, 30), 1.0) - blurred_by_scipy(upsampled_by_scipy(grid, (40, 30)), 1)).max()
        < 2e-6
    )


@pytest.mark.parametrize("image_hw", [(900, 1200), (2000, 300), (3, 300_000), (1, 400_000), (400_000, 1)])
@pytest.mark.parametrize("sigma", [0.05, 1.0, 3.7, 40])
def test_a_large_map_is_blurred_in_blocks_that_do_not_show(real_distances, image_hw, sigma):
    whole = cv2.GaussianBlur(cv2.resize(real_distances, image_hw[::-1], interpolation=cv2.INTER_LINEAR), (0, 0), sigma)
    assert np.array_equal(to_image_grid(real_distances, image_hw, sigma), whole.reshape(image_hw))


def test_an_engine_blurs_by_sigma_1_unless_told(distances):
    expected = blurred_by_scipy(upsampled_by_scipy(distances, (64, 96)), 1.0)
    engine = InferenceEngine(GivenDistances(distances))
    inference = engine.run(np.zeros((64, 96, 3), np.uint8), BANK, mm_per_px=0.2)
    assert np.abs(inference.distance_map - expected).max() < 1e-5


# --- the score


@pytest.mark.parametrize("percent", [99, 50, 99.9, 100, 0.5])
@pytest.mark.parametrize(
    "shape",
    [
        None,
        '{"kind":"rect","x":10,"y":5,"w":40,"h":30}',
        '{"kind":"circle","cx":48,"cy":32,"r":32}',
        '{"kind":"annulus","cx":48,"cy":32,"r":30.5,"r_inner":11}',
        '{"kind":"rect","x":95,"y":63,"w":1,"h":1}',
    ],
)
def test_the_score_is_the_percentile_of_the_masked_map_as_it_is(distances, shape, percent):
    inference = infer(distances, shape=shape, score_percentile=percent)
    expected_map = blurred_by_scipy(upsampled_by_scipy(distances, (64, 96)), 1.0)
    mask = build_mask(parse_shape(shape), (64, 96))
    counted = expected_map if mask is None else expected_map[mask]
    assert inference.score == pytest.approx(percentile_by_sorting(counted, percent), abs=1e-5)
    assert np.abs(inference.distance_map - expected_map).max() < 1e-5, "the mask moves nothing"


def test_the_score_is_p99_unless_told(distances):
    inference = infer(distances)
    assert inference.score == pytest.approx(percentile_by_sorting(inference.distance_map, 99), abs=1e-6)


def test_every_hotspot_that_is_injected_raises_the_score_or_leaves_it():
    grid = np.full((32, 32), 0.3)
    scores = [infer(grid, (150, 420)).score]
    for token in np.random.default_rng(1).permutation(1024)[:40]:
        grid.flat[token] = 1.2
        scores.append(infer(grid, (150, 420)).score)
    assert scores[0] == pytest.approx(0.3, abs=1e-5)
    assert all(later >= earlier for earlier, later in pairwise(scores))
    assert scores[-1] > 0.8
    assert len(set(scores)) > 20


def test_the_hotter_a_hotspot_the_higher_the_score():
    scores = []
    for heat in np.linspace(0.3, 2, 18):
        grid = np.full((32, 32), 0.3)
        grid[10:14, 20:24] = heat
        scores.append(infer(grid, (150, 420)).score)
    assert all(later > earlier for earlier, later in pairwise(scores))


# --- the heatmap


@pytest.mark.parametrize("shape", [None, '{"kind":"circle","cx":48,"cy":32,"r":20}'])
def test_heatmap_stretches_percentiles_1_to_99_and_is_0_outside_the_mask(distances, shape):
    """The percentiles 1 to 99 of the distance map are stretched to 0 to 255."""
    inference = infer(distances, shape=shape)
    low, high = (percentile_by_sorting(inference.distance_map, percent) for percent in (1, 99))
    expected = np.clip((inference.distance_map.astype(np.float64) - low) / (high - low) * 255, 0, 255)
    mask = build_mask(parse_shape(shape), (64, 96))
    if mask is not None:
        assert mask.any()
        assert expected[~mask].max() > 100, "there is something to hide"
        expected[~mask] = 0
    assert inference.heatmap.shape == (64, 96)
    assert inference.heatmap.dtype == np.uint8
    assert np.abs(inference.heatmap - expected).max() <= 0.5 + 1e-3
    assert inference.heatmap.max() == 255 or mask is not None


@pytest.mark.parametrize("image_hw", [(5, 6), (1, 1), (1, 700), (600, 1000)])
def test_the_heatmap_of_a_flat_map_is_black(image_hw):
    flat = np.full(image_hw, 0.7, np.float32)
    assert not to_heatmap(flat, None, *percentile(flat, 1, 99)).any()


# --- the regions


def blobs(seed):
    """A map with components of every size and shape, many of them with holes or touching at corners only."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.random((120, 200)), 3)
    speckled = smooth + 0.03 * random.random((120, 200))
    return speckled.astype(np.float32), float(np.quantile(speckled, 0.7))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_regions_are_the_8_connected_components_at_or_above_the_threshold(seed, masked):
    distance_map, threshold = blobs(seed)
    mask = build_mask(parse_shape('{"kind":"circle","cx":90,"cy":60,"r":55.5}'), (120, 200)) if masked else None
    regions = find_regions(distance_map, mask, threshold, 0, 0.5)

    defective = distance_map >= np.float32(threshold)
    if mask is not None:
        defective &= mask
    labels, n_labels = ndimage.label(defective, EIGHT_NEIGHBOURS)
    assert n_labels > 50
    assert n_labels < ndimage.label(defective)[1], "4 and 8 neighbours must differ here"
    areas = np.bincount(labels.ravel())
    expected = sorted(
        (
            (x.start, y.start, x.stop - x.start, y.stop - y.start, areas[label])
            for label, (y, x) in enumerate(ndimage.find_objects(labels), start=1)
        ),
        key=lambda box: (-box[4], box[1], box[0]),
    )
    assert [(r.x, r.y, r.w, r.h, r.area_px) for r in regions] == expected
    assert [r.area_mm2 for r in regions] == pytest.approx([r.area_px * 0.25 for r in regions])
    assert all(type(r.area_px) is float and type(r.x) is int for r in regions)


def test_a_contour_is_the_outline_of_its_component():
    distance_map, threshold = blobs(7)
    defective = distance_map >= np.float32(threshold)
    labels, _ = ndimage.label(defective, EIGHT_NEIGHBOURS)
    for region in find_regions(distance_map, None, threshold, 0, 1.0):
        contour = np.array(region.contour)
        assert all(type(value) is int for value in region.contour[0])
        touched = {int(labels[y, x]) for x, y in contour}
        assert len(touched) == 1, "the points lie on one component"
        component = labels == touched.pop()
        assert component.sum() == region.area_px
        filled = np.zeros(labels.shape, np.uint8)
        cv2.fillPoly(filled, [contour], 1)
        rows, columns = np.nonzero(filled)
        box = [columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1]
        assert box == [region.x, region.y, region.w, region.h]
        assert np.array_equal(filled.astype(bool), ndimage.binary_fill_holes(component))


def test_a_component_in_the_hole_of_another_is_one_of_its_own():
    distance_map = np.zeros((401, 403), np.float32)
    for inset in range(0, 200, 4):
        cv2.rectangle(distance_map, (inset, inset), (402 - inset, 400 - inset), 1)
    distance_map[40:44, 0] = 0  # the outermost ring is open and has no hole
    regions = find_regions(distance_map, None, 0.5, 0, 0.5)
    assert regions == plain_regions(distance_map, None, 0.5, 0, 0.5)
    assert len(regions) == 50
    assert regions[0].area_px == 2 * 403 + 2 * 399 - 4


@pytest.mark.slow
def test_tens_of_thousands_of_islands_are_found_and_each_has_its_own_area():
    distance_map = np.random.default_rng(2).random((1000, 1200)).astype(np.float32)
    distance_map[::4], distance_map[:, ::7] = 0, 0
    labels, n_labels = ndimage.label(distance_map >= np.float32(0.5), EIGHT_NEIGHBOURS)
    areas = np.bincount(labels.ravel())[1:]
    assert n_labels > 20_000
    regions = find_regions(distance_map, None, 0.5, 0, 1.0)
    assert [region.area_px for region in regions] == sorted(areas.tolist(), reverse=True)
    corners = {(y.start, x.start, area) for (y, x), area in zip(ndimage.find_objects(labels), areas, strict=True)}
    assert {(region.y, region.x, region.area_px) for region in regions} == corners


def test_a_pixel_exactly_at_the_threshold_is_defective():
    distance_map = np.full((4, 4), 0.25, np.float32)
    distance_map[1, 2] = np.float32(0.7)
    for threshold, found in [(0.7, 1), (float(np.nextafter(np.float32(0.7), np.float32(1))), 0), (0.25, 1), (0.26, 1)]:
        assert len(find_regions(distance_map, None, threshold, 0, 1.0)) == found
    assert find_regions(distance_map, None, 0.25, 0, 1.0)[0].area_px == 16
    assert find_regions(distance_map, None, 0.7, 0, 1.0)[0].contour == [[2, 1]]


@pytest.mark.parametrize(
    ("area_mm2_thr", "mm_per_px", "kept"),
    [
        (1.0, 0.2, [36, 25]),  # 1 mm² is 25 px: exactly at the limit is kept, 24 px are dropped
        (0.96, 0.2, [36, 25, 24]),
        (1.0001, 0.2, [36]),
        (0.25, 0.1, [36, 25]),
        (36, 1.0, [36]),
        (36.5, 1.0, []),
        (0, 0.2, [36, 25, 24, 1]),
        (1.0, 2.0, [36, 25, 24, 1]),  # a pixel is 4 mm²
    ],
)
def test_islands_below_the_limit_in_square_millimetres_are_dropped(area_mm2_thr, mm_per_px, kept):
    distance_map = np.zeros((40, 40), np.float32)
    distance_map[2:8, 2:8] = 1  # 36
    distance_map[20:25, 20:25] = 1  # 25
    distance_map[30:36, 5:9] = 1  # 24
    distance_map[39, 39] = 1
    regions = find_regions(distance_map, None, 0.5, area_mm2_thr, mm_per_px)
    assert [region.area_px for region in regions] == kept
    assert [region.area_mm2 for region in regions] == pytest.approx([px * mm_per_px**2 for px in kept])


@pytest.mark.parametrize("mm_per_px", [0.01, 0.03, 0.07, 0.1, 0.15, 0.3, 0.7, 1.1])
def test_an_island_of_exactly_the_limit_is_kept_at_any_scale(mm_per_px):
    for side in range(1, 30):
        distance_map = np.zeros((32, 32), np.float32)
        distance_map[:side, :side] = 1
        limit = round(side * side * mm_per_px**2, 10)  # as a user writes it
        assert len(find_regions(distance_map, None, 0.5, limit, mm_per_px)) == 1
        assert not find_regions(distance_map, None, 0.5, limit * 1.0001, mm_per_px)


def test_without_a_threshold_there_are_no_regions_and_with_one_there_are(distances):
    assert infer(distances).regions == []
    inference = infer(distances, threshold=0.6)
    labels, n_labels = ndimage.label(inference.distance_map >= np.float32(0.6), EIGHT_NEIGHBOURS)
    assert len(inference.regions) == n_labels > 1
    assert sum(region.area_px for region in inference.regions) == np.count_nonzero(labels)


# --- all of it, against the plain way


@pytest.mark.parametrize("image_hw", [(150, 420), (700, 900), (1, 700), (700, 1)])
@pytest.mark.parametrize("kind", ["none", "rect", "circle", "annulus"])
def test_score_heatmap_and_regions_are_those_of_the_plain_way_bit_for_bit(real_distances, image_hw, kind):
    height, width = image_hw
    round_shape = {"kind": kind, "cx": width / 2, "cy": height / 2, "r": 0.4 * max(image_hw), "r_inner": height / 9}
    rect = {"kind": kind, "x": 0.3, "y": 0, "w": width / 2 + 0.5, "h": height / 2 + 0.5}
    shape = "" if kind == "none" else json.dumps(rect if kind == "rect" else round_shape)
    mask = build_mask(parse_shape(shape), image_hw)
    assert (mask is None) == (kind == "none")
    expected_map = infer(real_distances, image_hw).distance_map
    counted = expected_map if mask is None else expected_map[mask]
    for threshold, percent in [(0.0, 99), (np.median(counted), 50), (np.percentile(counted, 97), 99.9), (1e300, 100)]:
        options = {"threshold": float(threshold), "score_percentile": percent, "area_mm2_thr": 0.4}
        inference = infer(real_distances, image_hw, shape=shape, **options)
        assert np.array_equal(inference.distance_map, expected_map)
        assert inference.score == np.percentile(counted, (percent,))[0]
        assert np.array_equal(inference.heatmap, plain_heatmap(expected_map, mask))
        assert inference.regions == plain_regions(expected_map, mask, threshold, 10, 0.2)
        if options["threshold"] in (0, 1e300):
            assert bool(inference.regions) == (options["threshold"] == 0)


# --- the mask


def test_defect_outside_the_mask_counts_in_no_score_heatmap_or_region():
    clean = np.full((32, 32), 0.3)
    clean[4:6, 4:6] = 0.4
    dirty = clean.copy()
    dirty[20:28, 20:28] = 1.5
    left_top = '{"kind":"rect","x":0,"y":0,"w":200,"h":75}'
    options = {"image_hw": (150, 420), "shape": left_top, "threshold": 0.35}
    without, with_defect = infer(clean, **options), infer(dirty, **options)
    assert with_defect.score == without.score
    assert with_defect.regions == without.regions
    assert len(without.regions) == 1
    assert not with_defect.heatmap[75:].any()
    assert not with_defect.heatmap[:, 200:].any()
    assert infer(dirty, (150, 420), threshold=0.35).score > 1
    assert len(infer(dirty, (150, 420), threshold=0.35).regions) == 2


def test_a_mask_cuts_a_region_and_its_area():
    grid = np.full((8, 8), 0.2)
    grid[2:6, 2:6] = 1.0
    half = '{"kind":"rect","x":0,"y":0,"w":48,"h":64}'
    whole, cut = infer(grid, threshold=0.6).regions, infer(grid, threshold=0.6, shape=half).regions
    assert len(whole) == len(cut) == 1
    assert cut[0].x + cut[0].w == 48
    assert cut[0].area_px == whole[0].area_px / 2


def test_a_shape_without_a_pixel_is_refused_before_the_network_runs():
    class Unused:
        def each_tile(self, image, run, tiles):
            raise AssertionError("the network ran")

    shape = parse_shape('{"kind":"circle","cx":500,"cy":5,"r":2}')
    with pytest.raises(InvalidShape, match="selects no pixel of the 96x64 image"):
        InferenceEngine(Unused()).run(np.zeros((64, 96, 3), np.uint8), BANK, mm_per_px=0.2, shape=shape)


# --- with the real network


@pytest.mark.slow
def test_shared_network_gets_the_image_pixels_and_its_tokens_are_used(features, images):
    """Where the network is shared, the engine asks it once with the preprocessed image and trusts what it answers."""
    roi = images[-1]
    asked = []

    def run_network(pixels):
        asked.append(pixels)
        return features.runtime.forward(pixels[None])[0]

    engine = InferenceEngine(features)
    memory = PatchCoreMemory.build(features.extract(images[0])[0], features.token_hw, 0.1)
    shared = engine.run(roi, memory, mm_per_px=0.2, run_network=run_network)
    assert shared.score == engine.run(roi, memory, mm_per_px=0.2).score
    assert [pixels.tobytes() for pixels in asked] == [preprocess(roi, 448).tobytes()]


@pytest.mark.slow
@pytest.mark.parametrize("place", [(60, 24), (210, 75), (380, 120)], ids=lambda place: f"x={place[0]},y={place[1]}")
def test_planted_defect_in_a_roi_that_is_not_square_is_found_at_its_pixel(features, images, place):
    roi = cv2.resize(images[0], (420, 150), interpolation=cv2.INTER_AREA)
    embeddings, token_hw = features.extract(roi)
    memory = PatchCoreMemory.build(embeddings, token_hw, 1.0)
    engine = InferenceEngine(features)
    assert engine.run(roi, memory, mm_per_px=0.2).distance_map.max() < 1e-5

    x, y = place
    half_width, half_height = 14, 6
    defective = roi.copy()
    defective[y - half_height : y + half_height, x - half_width : x + half_width] = (0, 0, 255)
    defective[y - half_height : y + half_height : 4, x - half_width : x + half_width] = (255, 255, 0)
    threshold = 0.7
    inference = engine.run(defective, memory, mm_per_px=0.2, threshold=threshold)

    token_width, token_height = 420 / token_hw[1], 150 / token_hw[0]
    peak_y, peak_x = np.unravel_index(inference.distance_map.argmax(), (150, 420))
    assert abs(peak_x + 0.5 - x) <= half_width + token_width
    assert abs(peak_y + 0.5 - y) <= half_height + token_height
    largest = inference.regions[0]
    assert largest.x <= x < largest.x + largest.w
    assert largest.y <= y < largest.y + largest.h
    assert largest.area_px < 8 * (2 * half_width) * (2 * half_height)
    assert inference.heatmap[y, x] > 200
