"""Tiles that overlap: every token once, none from a border inside the ROI, and one map without seams."""

import cv2
import numpy as np
import pytest

from backend.common.config import DEFAULT_MODEL
from backend.features import DinoV2Features
from backend.infer import InferenceEngine, to_image_grid
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.patchcore import PatchCoreMemory
from backend.roi_mask import build_mask, parse_shape
from backend.tiles import MOST_DETAIL, Tile, Tiling

DETAILS = range(1, MOST_DETAIL + 1)


@pytest.mark.parametrize("detail", DETAILS)
@pytest.mark.parametrize("side", [1, 2, 3, 8, 32, 37])
def test_every_token_is_given_by_one_tile(detail, side):
    tiling = Tiling(detail, (side, side))
    times = np.zeros(tiling.grid_hw, int)
    assert len(tiling.tiles) == detail**2
    for tile in tiling.tiles:
        times[tile.rows, tile.columns] += 1
    assert (times == 1).all()


@pytest.mark.parametrize("detail", DETAILS)
def test_tiles_give_no_token_of_a_border_inside_the_roi(detail):
    tiling = Tiling(detail, (32, 32))
    for number, tile in enumerate(tiling.tiles):
        for axis, own in enumerate(tile.own):
            place = divmod(number, detail)[axis]
            assert own.start == (0 if place == 0 else 2)
            assert own.stop == (32 if place == detail - 1 else 30)
    rows, columns = tiling.tiles[-1].start
    assert (rows + 32, columns + 32) == tiling.grid_hw


def test_the_grid_is_as_fine_as_the_documentation_says():
    assert [Tiling(detail, (32, 32)).grid_hw[0] for detail in DETAILS] == [32, 60, 88, 116, 144]


@pytest.mark.parametrize("image_hw", [(240, 320), (75, 301), (9, 200)])
@pytest.mark.parametrize("sigma", [0, 1.0, 4.0])
def test_a_tile_that_a_mask_hides_reaches_no_pixel_of_it(image_hw, sigma):
    random, tiling = np.random.default_rng(7), Tiling(3, (8, 8))
    n_hidden = 0
    for _ in range(40):
        y, x = random.integers(0, image_hw[0]), random.integers(0, image_hw[1])
        mask = np.zeros(image_hw, bool)
        mask[y : y + random.integers(1, 90), x : x + random.integers(1, 90)] = True
        seen = tiling.within(mask, sigma)
        hidden = [tile for number, tile in enumerate(tiling.tiles) if number not in seen]
        n_hidden += len(hidden)
        distances = np.zeros(tiling.grid_hw, np.float32)
        for tile in hidden:
            distances[tile.rows, tile.columns] = 1000
        assert to_image_grid(distances, image_hw, sigma)[mask].max() == 0
    assert n_hidden > 40


def test_without_a_mask_every_tile_is_looked_at():
    assert Tiling(2, (8, 8)).within(None, 1.0) == [0, 1, 2, 3]
    assert Tiling(1, (8, 8)).within(np.eye(50, dtype=bool), 1.0) == [0]


def test_places_are_those_of_the_tiles_tokens():
    tiling = Tiling(3, (8, 8))
    grid = np.arange(20 * 20).reshape(20, 20)
    tile = tiling.tiles[5]
    np.testing.assert_array_equal(tiling.places([5]), grid[tile.rows, tile.columns].ravel())
    np.testing.assert_array_equal(tiling.places(range(9)), grid.ravel())
    np.testing.assert_array_equal(tiling.places([3, 4, 5]), grid[tile.rows].ravel())


def test_detail_1_is_the_extractor_itself(small_features, images):
    assert small_features.at(1) is small_features
    assert small_features.at(3).at(1).identity == small_features.identity
    assert "detail" not in small_features.identity.as_dict()
    assert small_features.at(3).identity.as_dict() == {**small_features.identity.as_dict(), "detail": 3}


@pytest.mark.parametrize("detail", [2, 3])
def test_tokens_are_those_of_each_tile_alone(small_features, images, detail):
    """The stretched image cut by hand, each part through the extractor as an image of its own."""
    image = images[1]
    side = 14 * (8 * detail - 2 * (detail - 1))
    assert min(image.shape[:2]) > side
    canvas = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    n = side // 14
    expected = np.full((n, n, 384), np.nan, np.float32)
    for down in range(detail):
        for across in range(detail):
            top, left = 6 * down, 6 * across
            part = canvas[14 * top : 14 * top + 112, 14 * left : 14 * left + 112]
            tokens = small_features.extract(np.ascontiguousarray(part))[0].reshape(8, 8, 384)
            first_y, first_x = int(down > 0), int(across > 0)
            expected[top + first_y :, left + first_x :][: 8 - first_y, : 8 - first_x] = tokens[first_y:, first_x:]
    # Of tokens that two tiles have, a later one overwrites all but those of its own border.
    found, token_hw = small_features.at(detail).extract(image)
    assert token_hw == (n, n)
    np.testing.assert_array_equal(found.reshape(n, n, 384), expected)


class _Shifted(Tiling):
    """The grid of detail 2, cut into nine tiles whose seams lie elsewhere."""

    @property
    def tiles(self):
        along = [(0, slice(0, 11)), (7, slice(11, 19)), (14, slice(19, 30))]
        return tuple(Tile((row, column), rows, columns) for row, rows in along for column, columns in along)


@pytest.fixture(scope="module")
def maps(weights, images):
    """The distance map of a part by detail 2 and by a tiling with other seams, each with a bank of its own."""

    def of(extractor: DinoV2Features) -> np.ndarray:
        memory = PatchCoreMemory.build(extractor.extract(images[0])[0], extractor.token_hw, 0.1)
        return InferenceEngine(extractor).run(images[1], memory, mm_per_px=1).distances

    runtime = OpenVinoRuntime(weights.path, 224)
    ours, shifted = (DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 224, detail=2) for _ in range(2))
    shifted.tiling = _Shifted(2, runtime.grid_hw)
    return of(ours), of(shifted)


def test_the_map_hardly_depends_on_where_tiles_are_cut(maps):
    ours, shifted = maps
    assert ours.shape == shifted.shape == (30, 30)
    assert np.corrcoef(ours.ravel(), shifted.ravel())[0, 1] > 0.8
    assert np.median(ours) == pytest.approx(np.median(shifted), rel=0.05)
    assert np.percentile(ours, 99) == pytest.approx(np.percentile(shifted, 99), rel=0.1)


def test_the_map_has_no_seams(maps):
    """Between tiles neighbouring tokens differ hardly more than within one."""
    for distances, cuts in zip(maps, ([15], [11, 19]), strict=True):
        for grid in (distances, distances.T):
            steps = np.abs(np.diff(grid, axis=0)).mean(axis=1)
            within = np.delete(steps, [cut - 1 for cut in cuts])
            for cut in cuts:
                assert steps[cut - 1] < within.mean() + 3 * within.std()


def test_a_mask_s_score_needs_only_the_tiles_that_it_shows(small_features, images):
    extractor, shape = small_features.at(3), parse_shape('{"kind":"circle","cx":60,"cy":60,"r":50}')
    image = cv2.resize(images[1], (400, 300), interpolation=cv2.INTER_AREA)
    memory = PatchCoreMemory.build(extractor.extract(images[0])[0], extractor.token_hw, 0.1)
    passes = []

    def run(pixels):
        passes.append(pixels)
        return small_features.runtime.forward(pixels[None])[0]

    options = {"mm_per_px": 1, "shape": shape, "threshold": 0.3, "run_network": run}
    engine = InferenceEngine(extractor)
    few = engine.run(image, memory, **options)
    assert len(passes) == len(extractor.tiling.within(build_mask(shape, (300, 400)), 1.0)) < 9
    every = engine.run(image, memory, **options, every_tile=True)
    assert len(passes) == 9 + len(extractor.tiling.within(build_mask(shape, (300, 400)), 1.0))
    assert (few.score, few.regions) == (every.score, every.regions)
    assert few.regions
    mask = build_mask(shape, (300, 400))
    np.testing.assert_array_equal(few.distance_map[mask], every.distance_map[mask])
    hidden = np.setdiff1d(np.arange(400), extractor.tiling.places(extractor.tiling.within(mask, 1.0)))
    assert len(set(few.distances.ravel()[hidden])) == 1
    assert not few.embeddings[hidden].any()


def test_the_network_sees_a_tile_at_a_time(small_features, images):
    shapes = []

    def run(pixels):
        shapes.append(pixels.shape)
        return small_features.runtime.forward(pixels[None])[0]

    small_features.at(3).extract(images[0], run)
    assert shapes == [(3, 112, 112)] * 9


def test_embeddings_are_kept_only_where_they_are_wanted(small_features, images):
    extractor = small_features.at(2)
    expected = extractor.extract(images[0])[0]
    memory = PatchCoreMemory.build(expected.copy(), extractor.token_hw, 0.1)
    engine = InferenceEngine(extractor)
    with_them = engine.run(images[0], memory, mm_per_px=1)
    without = engine.run(images[0], memory, mm_per_px=1, keeps_embeddings=False)
    np.testing.assert_array_equal(with_them.embeddings, expected)
    assert without.embeddings.shape == (0, 384)
    assert without.score == with_them.score
