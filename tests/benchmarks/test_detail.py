"""Scenes with small defects: their cells are pixels of the images, and what counts as found."""

import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.features import DinoV2Features
from backend.infer import image_scores
from backend.service.inspection import InspectionService
from benchmarks import detail, detail_sets, detail_times
from benchmarks.detail import Found
from benchmarks.detail_scenes import KINDS, SCENE_HW, SIZES, Defect, Tray, defects_of, plant
from benchmarks.detail_scores import OF_TOKENS, all_scores
from benchmarks.detail_tokens import Tokens

CELL = 256


class StubRuntime:
    """Tokens are the means of 14×14 pixels, and powers of them."""

    name, device, precision, block, batch = "stub", "cpu", "float32", None, 1
    grid_hw = (4, 4)

    def __init__(self, dim):
        self.dim, self.n_passes = dim, 0

    def forward(self, pixels):
        self.n_passes += 1
        means = pixels.reshape(len(pixels), 3, 4, 14, 4, 14).mean(axis=(1, 3, 5)).reshape(len(pixels), 16, 1)
        return np.cos(means * np.arange(self.dim, dtype=np.float32))


def stub_features(number, dim=32):
    return DinoV2Features(StubRuntime(dim), "stub", "0" * 64, 56, number)


@pytest.fixture
def service(monkeypatch):
    features = stub_features(1)
    stub = SimpleNamespace(
        settings=Settings(),
        features=stub_features(1, dim=8),
        features_of=lambda profile, number=1: features.at(number),
    )
    monkeypatch.setattr(InspectionService, "open", lambda settings: stub)


@pytest.fixture(scope="module")
def tray_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    rng = np.random.default_rng(0)
    for name in ("train/good", "test/good", "test/defect"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(100, 130, (CELL, CELL + 4, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def tray(tray_folder):
    return Tray.open(tray_folder)


def mirrored(image):
    return [image[::down, ::across] for down in (1, -1) for across in (1, -1)]


def test_every_cell_of_a_scene_is_pixels_of_one_image(tray):
    scene = tray.fit_scenes(1)[0]
    assert scene.shape == (*SCENE_HW, 3)
    for row in range(SCENE_HW[0] // CELL):
        for column in range(SCENE_HW[1] // CELL):
            cell = scene[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
            assert any(
                np.array_equal(cell, crop)
                for image in tray.fit
                for left in range(5)
                for crop in mirrored(image[:, left : left + CELL])
            )


def test_no_image_is_in_fit_scenes_and_in_test_scenes(tray):
    assert len(tray.fit) == len(tray.test) == 3
    assert not any(np.array_equal(fitted, tested) for fitted in tray.fit for tested in tray.test)


def test_scenes_are_the_same_every_time_and_differ(tray):
    first, second = tray.test_scenes(2)
    assert np.array_equal(tray.test_scenes(1)[0], first)
    assert not np.array_equal(first, second)


def test_a_scene_has_a_defect_of_each_kind_and_size():
    defects = defects_of(7)
    assert [(d.kind, d.size) for d in defects] == [(kind, size) for kind in KINDS for size in SIZES]
    assert defects_of(7) == defects
    assert defects_of(8) != defects


@pytest.mark.parametrize("defect", [*defects_of(0)[::5], Defect("spot", 48, 2, 2040, 0.0, 1)])
def test_a_planted_defect_is_of_its_size_and_at_its_place(tray, defect):
    scene = tray.test_scenes(1)[0]
    rows, columns = np.nonzero((plant(scene, defect) != scene).any(axis=2))
    edge = defect.size / 2 + 4
    assert defect.y - edge <= rows.min() <= rows.max() <= defect.y + edge
    assert defect.x - edge <= columns.min() <= columns.max() <= defect.x + edge
    spans = np.ptp(rows) + 1, np.ptp(columns) + 1
    if edge <= defect.x and defect.y + edge < SCENE_HW[0]:
        assert np.hypot(*spans) >= defect.size, "from end to end"


def found_of(clean, scores):
    return Found("set", "contract", 3, "p99", True, 1, 1.0, clean, scores)


def test_found_is_what_scores_above_the_scenes_without_defects():
    scores = {(kind, size): [(0.3, 0.5 + size / 100), (0.5, 0.4)] for kind in KINDS for size in SIZES}
    found = found_of([0.3, 0.62, 0.5], scores)
    assert found.limit == 0.62
    assert [found.share("spot", size) for size in SIZES] == [0.0 if size <= 12 else 0.5 for size in SIZES]
    assert found.mean_share == pytest.approx(4 / 6 * 0.5)
    assert found.smallest("spot") is None
    found.scores["spot", 24] = found.scores["spot", 32] = [(0.3, 0.7), (0.3, 0.8)]
    assert found.smallest("spot") is None, "larger ones are not found"
    found.scores["spot", 48] = [(0.3, 0.7), (0.3, 0.8)]
    assert found.smallest("spot") == 24


def test_of_two_hundred_scenes_two_may_score_above_the_limit():
    assert found_of([float(n) for n in range(200)], {}).limit == 197.0


def test_a_scene_that_reaches_the_limit_without_a_defect_tells_nothing():
    scores = {(kind, size): [(0.6, 0.61), (0.3, 0.4)] for kind in KINDS for size in SIZES}
    found = found_of([0.6, 0.3], scores)
    assert found.share("spot", 8) == 0.0
    found.scores["spot", 8] = [(0.6, 0.61)]
    assert np.isnan(found.share("spot", 8))
    assert found.mean_share == 0.0, "what tells nothing does not count"


def test_what_was_not_planted_is_neither_found_nor_missed():
    found = found_of([0.3], {("spot", 16): [(0.2, 0.4)]})
    assert np.isnan(found.share("spot", 24))
    assert found.smallest("spot") == 16
    assert found.smallest("scratch") is None


def test_scores_of_tokens_equal_plain_loops():
    rng = np.random.default_rng(0)
    grid = rng.random((18, 21), np.float32)
    rows, columns = grid.shape
    padded = np.pad(grid.astype(np.float64), 7, mode="edge")
    local = np.array([[padded[y : y + 15, x : x + 15].mean() for x in range(columns)] for y in range(rows)])
    corners = [(y, x) for y in range(rows - 1) for x in range(columns - 1)]
    of_four = {(y, x): grid[y : y + 2, x : x + 2].mean() for y, x in corners}
    scores = all_scores(grid, (198, 231), 0, (50, 100), others=True)
    assert scores == {
        "p50": pytest.approx(image_scores(grid, (198, 231), None, 0, [50])[0]),
        "p100": pytest.approx(grid.max()),
        "mean of the 4 highest": pytest.approx(np.sort(grid.ravel())[-4:].mean()),
        "mean of 2×2": pytest.approx(max(of_four.values())),
        "less the local mean": pytest.approx((grid - local).max(), abs=1e-6),
        "less the local mean, mean of the 4 highest": pytest.approx(
            np.sort((grid - local).ravel())[-4:].mean(), abs=1e-6
        ),
        "mean of 2×2 less the local mean": pytest.approx(
            max(of_four[place] - local[place] for place in corners), abs=1e-6
        ),
    }
    assert set(scores) - set(all_scores(grid, (198, 231), 0, (50, 100), others=False)) == set(OF_TOKENS)


def test_only_the_tiles_that_see_a_defect_are_looked_at_again(tray):
    features = stub_features(3)
    scene, defect = tray.test_scenes(1)[0], Defect("spot", 48, 1200, 1000, 0.0, 1)
    tokens = Tokens(features, None)
    grid = tokens.of_scene("clean0", scene).reshape(*features.token_hw, -1)
    n_passes = features.runtime.n_passes
    for tile, own in tokens.of_defect(0, scene, defect):
        part = grid[tile.rows, tile.columns]
        part[:] = own.reshape(part.shape)
    assert features.runtime.n_passes - n_passes < 9
    assert np.array_equal(grid.reshape(-1, features.dim), features.extract(plant(scene, defect))[0])


def test_kept_tokens_need_no_network(tray, tmp_path):
    scene, defect = tray.test_scenes(1)[0], Defect("scratch", 48, 1200, 1000, 0.0, 1)
    features = stub_features(2)

    def all_tokens():
        tokens = Tokens(features, tmp_path)
        return [tokens.of_scene("clean0", scene), *(own for _, own in tokens.of_defect(0, scene, defect))]

    first, n_passes = all_tokens(), features.runtime.n_passes
    second = all_tokens()
    assert features.runtime.n_passes == n_passes
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert np.allclose(first[0], features.extract(scene)[0], atol=1e-2), "float16"


def test_a_quick_run_prints_every_score_of_both_profiles(tray_folder, service, capsys, tmp_path):
    figure = tmp_path / "shares.png"
    detail.main([str(tray_folder), "--quick", "--others", "--figure", str(figure)])
    assert cv2.imread(str(figure)).shape == (480, 1200, 3)
    printed = capsys.readouterr().out
    for profile in ("contract", "recommended"):
        for score in ("p99.5", "p100", *OF_TOKENS):
            assert (
                len(re.findall(rf"^\| {tray_folder.name} \| {profile}, {score}(?:, the default)? \|", printed, re.M))
                == 4
            )
    assert "| recommended, p99.5, the default | 1 |" in printed
    assert "| recommended, p100, the default | 2 |" in printed


def test_of_a_data_set_as_it_is_each_detail_stands_beside_one(tray_folder, service, capsys):
    detail_sets.main([str(tray_folder), "--splits", "2"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if " 3 + 3 " in line]
    assert [(line[1], line[2], line[3]) for line in lines] == [
        (profile, "3 + 3", number) for profile in ("contract", "recommended") for number in "12"
    ]
    assert [bool(line[5].strip(" |")) for line in lines] == [False, True] * 2


@pytest.mark.parametrize("more", [[], ["--cpu", "--apart", "--bank", "2"]])
def test_times_stand_beside_as_many_passes_of_detail_one(tray_folder, service, capsys, more):
    detail_times.main([str(tray_folder), "--details", "1", "2", "--rounds", "1", "--profile", "recommended", *more])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| recommended")]
    assert [row[1] for row in rows] == ["1", "2"]
    n_whole, n_tiles = (int(row[2]) for row in rows)
    # 30 images of 4×4 and of 6×6 tokens, 1 % and half of that.
    assert (n_whole, n_tiles) == (5, 11 if more else 6)
    ratio = r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)"
    assert all(re.fullmatch(rf"{ratio} \| {ratio} \|", " | ".join(row[5:])) for row in rows)
