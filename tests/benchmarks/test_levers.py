from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from backend.features import preprocess
from backend.infer import InferenceEngine
from backend.network.runtimes import openvino
from backend.network.runtimes.torch import timm
from backend.patchcore import PatchCoreMemory, l2_normalize
from benchmarks.levers.recipes import RULES, TURNED, DataSet, Foreground, Recipe, Search, joined, judge, maps, score
from benchmarks.levers.views import Network, TokenFiles, View, resample_position_grid, stretch
from benchmarks.splits import open_split


@pytest.fixture(scope="module")
def network(weights):
    return Network(weights)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """Real images in MVTec layout: two to fit, one of either kind to score, one of them with a mask."""
    folder = tmp_path_factory.mktemp("parts")
    places = ("train/good/0", "train/good/1", "test/good/0", "test/scratch/0")
    for place, image in zip(places, images, strict=False):
        file = folder / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)
    mask = folder / "ground_truth/scratch/0_mask.png"
    mask.parent.mkdir(parents=True)
    cv2.imwrite(str(mask), np.full(images[3].shape[:2], 255, np.uint8))
    return folder


@pytest.fixture(scope="module")
def data_set(folder, network, tmp_path_factory):
    return DataSet(open_split(folder), TokenFiles(folder, tmp_path_factory.mktemp("tokens"), network))


@pytest.fixture
def bank():
    chance = np.random.default_rng(3)
    return PatchCoreMemory(l2_normalize(chance.normal(size=(60, 16)).astype(np.float32)), (6, 10))


@pytest.mark.slow
def test_the_default_recipe_scores_as_the_service_does(data_set, features, images):
    recipe = Recipe()
    judged = judge(data_set, recipe)
    embeddings = np.concatenate([features.extract(image)[0] for image in images[:2]])
    memory = PatchCoreMemory.build(embeddings, features.token_hw, 0.02)
    engine = InferenceEngine(features)
    served = [engine.run(image, memory, mm_per_px=1) for image in images[2:4]]
    assert judged.bank == len(memory.embeddings)
    (scores,) = score(data_set, judged, [recipe])
    assert [scores.good[0], scores.defective[0]] == pytest.approx([one.score for one in served], abs=1e-5)
    for (distance_map, kept), one in zip(maps(data_set, judged, recipe), served, strict=True):
        assert kept.all()
        assert np.abs(distance_map - one.distance_map).max() < 1e-4


@pytest.mark.slow
def test_more_references_bring_every_patch_nearer_or_leave_it_where_it_is(data_set):
    few = judge(data_set, Recipe(coreset_rate=1))
    many = judge(data_set, Recipe(coreset_rate=1, references=TURNED))
    assert many.bank == 4 * few.bank
    for near, far in zip(many.distances, few.distances, strict=True):
        assert (near <= far).all()


def test_images_are_stretched_as_the_service_stretches_them(images):
    for image in images:
        assert np.abs(stretch(image, (448, 448)) - preprocess(image, 448)).max() < 1e-5


def test_views_turn_and_mirror_the_image_that_the_network_gets(images):
    image = cv2.resize(images[0], (448, 448))
    shown = View().show(image)
    assert np.array_equal(View(quarter_turns=1).show(image), np.rot90(shown, axes=(1, 2)))
    mirrored = View(quarter_turns=2, mirrored=True).show(image)
    assert np.array_equal(mirrored, shown[:, ::-1])  # upside down


@pytest.mark.parametrize("hw", [(600, 120), (300, 300), (200, 333)])
def test_a_grid_that_keeps_the_aspect_ratio_has_as_many_tokens(hw):
    rows, columns = View(keeps_aspect=True).grid_hw(hw)
    assert rows * columns == pytest.approx(1024, rel=0.02)
    assert rows / columns == pytest.approx(hw[0] / hw[1], rel=0.05)
    assert View().grid_hw(hw) == (32, 32)


@pytest.mark.slow
def test_other_grids_and_blocks_are_those_of_timm(weights, network, images):
    reference = timm.create_model(
        "vit_small_patch14_dinov2",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights.path)},
        num_classes=0,
        dynamic_img_size=True,
    ).eval()
    pixels = stretch(images[0], (18 * 14, 25 * 14))
    with torch.inference_mode():
        expected = reference.forward_intermediates(
            torch.from_numpy(pixels)[None], indices=[5, 11], norm=True, output_fmt="NLC", intermediates_only=True
        )
    for tokens, of_timm in zip(network.tokens(pixels, (6, 12)), expected, strict=True):
        cosine = (l2_normalize(tokens) * l2_normalize(of_timm[0].numpy())).sum(axis=1)
        assert cosine.min() > 0.99999
    square = resample_position_grid(network._tensors["pos_embed"], (32, 32))
    assert np.array_equal(square, openvino.resample_position_grid(network._tensors["pos_embed"], 32))


@pytest.mark.slow
def test_tokens_are_extracted_once(folder, data_set, monkeypatch):
    image = folder / "train/good/0.png"
    first = data_set.files.tokens(image, View(), 12)
    monkeypatch.setattr(data_set.files, "_network", None)
    assert np.array_equal(data_set.files.tokens(image, View(), 12), first)


def test_k_neighbours_give_their_mean_distance(bank):
    queries = np.random.default_rng(4).normal(size=(50, 16)).astype(np.float32)
    expected, _ = NearestNeighbors(n_neighbors=3).fit(bank.embeddings).kneighbors(l2_normalize(queries))
    found = Search(bank, Recipe(neighbours=3)).distances(queries)
    assert found == pytest.approx(expected.mean(axis=1), abs=1e-4)


def test_density_reweighting_is_equation_7_of_patchcore(bank):
    queries = np.random.default_rng(5).normal(size=(20, 16)).astype(np.float32)
    expected = []
    for query in l2_normalize(queries).astype(float):
        to_bank = np.linalg.norm(bank.embeddings - query, axis=1)
        nearest = bank.embeddings[to_bank.argmin()]
        support = np.argsort(np.linalg.norm(bank.embeddings - nearest, axis=1))[:9]
        expected.append((1 - np.exp(to_bank.min()) / np.exp(to_bank[support]).sum()) * to_bank.min())
    assert Search(bank, Recipe(reweighted=True)).distances(queries) == pytest.approx(expected, abs=1e-4)


def test_blocks_count_alike_when_joined_and_neighbours_are_averaged():
    chance = np.random.default_rng(6)
    small, large = chance.normal(size=(5, 6, 8)).astype(np.float32), 100 * chance.normal(size=(5, 6, 8))
    both = joined([small, large.astype(np.float32)], Recipe(blocks=(9, 12)))
    norms = np.linalg.norm(both.reshape(5, 6, 2, 8), axis=3)
    assert norms == pytest.approx(np.ones_like(norms), abs=1e-5)
    averaged = joined([small], Recipe(neighbourhood=3))
    assert averaged[2, 3] == pytest.approx(small[1:4, 2:5].mean(axis=(0, 1)), abs=1e-6)


def test_the_top_percent_is_of_the_largest_values():
    values = np.random.default_rng(8).permutation(np.arange(1, 1001)).astype(np.float32)
    assert RULES["mean of the top 1 % of patches"](values, values) == np.arange(991, 1001).mean()
    assert RULES["p99.5"](values, values) == pytest.approx(np.percentile(values, 99.5))
    assert RULES["maximum"](values, values) == 1000


def test_the_foreground_is_what_the_border_is_not():
    chance = np.random.default_rng(9)
    part = np.zeros((16, 16), bool)
    part[4:12, 5:13] = True
    direction = chance.normal(size=32)
    tokens = [(part[..., None] * direction * 3 + chance.normal(size=(16, 16, 32))).astype(np.float32) for _ in range(4)]
    found = Foreground(tokens)
    assert np.mean(found.of(tokens[0]) == part) > 0.98
    only_background = tokens[0].copy()
    only_background[part] = tokens[0][0, 0]
    assert found.of(only_background).all()


def test_a_part_of_a_large_set_is_always_the_same_part(tmp_path):
    for place, count in (("train/good", 50), ("test/good", 101), ("test/dent", 101)):
        (tmp_path / place).mkdir(parents=True)
        for number in range(count):
            (tmp_path / place / f"{number:03}.png").touch()
    split = open_split(tmp_path, most_train=8, every=2)
    assert [path.stem for path in split.train] == ["000", "007", "014", "021", "028", "035", "042", "049"]
    assert (len(split.good), len(split.defective), split.masks) == (50, 51, [])
    assert len(open_split(tmp_path, every=1).good) == 101
    (tmp_path / "test/dent").rename(tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="test/TYPE"):
        open_split(tmp_path)


def test_recipes_that_differ_in_what_follows_the_distances_share_them():
    assert Recipe(rule="maximum", blur_sigma=4).distances == Recipe().distances
    assert replace(Recipe(), neighbours=3).distances != Recipe().distances
