"""Honest scores of a fit's own images, against plain loops and real refits."""

import random
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import cv2
import elpv_dataset
import numpy as np
import pytest
from scipy import stats

from backend.bank.leave_one_out import hold_out
from backend.bank.patches import LocalPatches
from backend.common.config import DEFAULT_MODEL
from backend.features import DinoV2Features
from backend.infer import image_scores
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.patchcore import PatchCoreMemory, greedy_cover, l2_normalize

PATCHES = 16


@pytest.fixture(scope="module")
def solar_cells_embedded(weights):
    """Embeddings of good monocrystalline cells of the package ``elpv-dataset``, in random order."""
    folder = Path(elpv_dataset.__file__).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    good = [folder / name for name, probability, kind in rows if kind == "mono" and float(probability) == 0]
    chosen = random.Random(0).sample(good, 60)
    features = DinoV2Features(OpenVinoRuntime(weights.path, 224), DEFAULT_MODEL, weights.sha256, 224)
    return np.stack([features.extract(cv2.imread(str(path)))[0] for path in chosen])


def unit_rows(n, dim=8, seed=0):
    return l2_normalize(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def brute_force(embeddings, n_images, memory):
    """Distances of each image to the bank of the others, by distances alone and one patch at a time."""
    owner, image = memory.patches // PATCHES, np.arange(len(embeddings)) // PATCHES

    def distance(rows, bank):
        return np.linalg.norm(rows[:, None].astype(np.float64) - bank[None], axis=2).min(axis=1)

    radius = distance(embeddings, memory.embeddings).max()
    found, unique = [], []
    for number in range(n_images):
        bank, others = memory.embeddings[owner != number], embeddings[image != number]
        while (uncovered := distance(others, bank)).max() > radius + 1e-5:
            bank = np.vstack([bank, others[uncovered.argmax()]])
        found.append(distance(embeddings[image == number], bank))
        unique.append(np.count_nonzero(found[-1] > radius + 1e-5))
    return radius, np.array(found), unique


@pytest.mark.parametrize(("n_images", "rate"), [(2, 0.2), (6, 0.1), (6, 0.5), (12, 0.05)])
def test_every_image_is_compared_with_the_bank_of_the_others(n_images, rate):
    embeddings = unit_rows(n_images * PATCHES, seed=n_images)
    memory = PatchCoreMemory.build(embeddings, (4, 4), rate)
    held_out = hold_out(LocalPatches(embeddings, np.arange(n_images)), memory.embeddings, memory.patches // PATCHES)
    radius, distances, unique = brute_force(embeddings, n_images, memory)
    assert held_out.covering_radius == pytest.approx(radius, abs=1e-5)
    np.testing.assert_allclose(held_out.distances, distances, atol=1e-5)
    assert held_out.n_unique.tolist() == unique


def test_distance_is_to_the_nearest_patch_of_another_image_if_all_are_kept():
    """With every patch in the bank, the distance of a held-out patch is that to the nearest one of another image."""
    embeddings = unit_rows(4 * PATCHES)
    held_out = hold_out(LocalPatches(embeddings, np.arange(4)), embeddings, np.arange(4 * PATCHES) // PATCHES)
    every = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2).reshape(4, PATCHES, 4, PATCHES)
    for number in range(4):
        others = np.delete(every[number], number, axis=1).reshape(PATCHES, -1)
        np.testing.assert_allclose(held_out.distances[number], others.min(axis=1), atol=1e-5)


def test_an_image_without_others_has_no_honest_distances():
    embeddings = unit_rows(PATCHES)
    held_out = hold_out(LocalPatches(embeddings, np.arange(1)), embeddings[:3], np.zeros(3, np.int64))
    assert held_out.distances is None


def test_twins_are_no_news_to_each_other():
    one = unit_rows(PATCHES)
    embeddings = np.concatenate([one, one, one])
    memory = PatchCoreMemory.build(embeddings, (4, 4), 0.2)
    held_out = hold_out(LocalPatches(embeddings, np.arange(3)), memory.embeddings, memory.patches // PATCHES)
    assert held_out.n_unique.tolist() == [0, 0, 0]
    assert held_out.distances.max() <= held_out.covering_radius + 1e-5


def test_copies_of_an_image_are_no_others_to_each_other():
    one = unit_rows(6 * PATCHES).reshape(6, PATCHES, -1)
    twice = np.concatenate([one, one[:4]]).reshape(-1, one.shape[-1])
    numbers = np.array([0, 1, 2, 3, 4, 5, 0, 1, 2, 3])
    memory = PatchCoreMemory.build(twice, (4, 4), 0.1)
    held_out = hold_out(LocalPatches(twice, numbers), memory.embeddings, numbers[memory.patches // PATCHES])
    np.testing.assert_allclose(held_out.distances[6:], held_out.distances[:4], atol=1e-5)
    once = one.reshape(-1, one.shape[-1])
    alone = hold_out(LocalPatches(once, np.arange(6)), memory.embeddings, numbers[memory.patches // PATCHES])
    np.testing.assert_allclose(held_out.distances[:6], alone.distances, atol=1e-5)
    same = hold_out(
        LocalPatches(twice[:PATCHES].repeat(2, axis=0), np.zeros(2, np.int64)), twice[:3], np.zeros(3, np.int64)
    )
    assert same.distances is None


def test_an_image_that_gave_the_whole_bank_is_compared_with_the_others():
    embeddings = unit_rows(2 * PATCHES)
    held_out = hold_out(LocalPatches(embeddings, np.arange(2)), embeddings[:1], np.zeros(1, np.int64))
    picks = greedy_cover(embeddings[PATCHES:], np.full(PATCHES, -2, np.float32), np.float32(2))
    assert len(picks) == PATCHES  # nothing is near enough: all are picked
    assert np.isfinite(held_out.distances).all()
    assert held_out.distances.max() <= 2


def test_images_of_an_earlier_fit_stay_in_the_bank_of_every_image():
    earlier, embeddings = unit_rows(5, seed=9), unit_rows(2 * PATCHES)
    held_out = hold_out(LocalPatches(embeddings, np.arange(2)), earlier, np.full(5, -1))
    expected = np.linalg.norm(embeddings[:, None] - earlier[None], axis=2).min(axis=1)
    np.testing.assert_allclose(held_out.distances.reshape(-1), expected, atol=1e-5)


def test_the_work_is_cut_into_turns_and_told():
    embeddings, told, turns = unit_rows(6 * PATCHES), [], []

    class Turn:
        def __enter__(self):
            turns.append("in")

        def __exit__(self, *_exc):
            turns.append("out")

    memory = PatchCoreMemory.build(embeddings, (4, 4), 0.1)
    hold_out(
        LocalPatches(embeddings, np.arange(6), Turn),
        memory.embeddings,
        memory.patches // PATCHES,
        lambda *done: told.append(done),
    )
    assert told == [(number, 6) for number in range(1, 7)]
    assert all(pair in (("in", "out"), ("out", "in")) for pair in pairwise(turns))
    assert len(turns) >= 2 * 7


def test_a_cover_picks_the_farthest_until_all_are_near():
    embeddings = unit_rows(60)
    cosine = embeddings @ embeddings[0]
    picks = greedy_cover(embeddings, cosine.copy(), np.float32(0.5))
    for number, pick in enumerate(picks):
        nearest = np.max(embeddings @ embeddings[[0, *picks[:number]]].T, axis=1)
        assert pick == np.argmin(nearest)
    assert np.max(embeddings @ embeddings[[0, *picks]].T, axis=1).min() >= 0.5 - 1e-5


@pytest.mark.slow
def test_honest_scores_are_those_of_fresh_parts_and_naive_ones_are_not(solar_cells_embedded):
    """Real cells, split by chance: the same kind of part, so the same distribution of scores if nothing is fooled."""
    own, fresh = solar_cells_embedded[:30], solar_cells_embedded[30:]
    embeddings = own.reshape(-1, own.shape[-1]).copy()
    grid = (round(own.shape[1] ** 0.5),) * 2
    memory = PatchCoreMemory.build(embeddings, grid, 0.02)
    held_out = hold_out(
        LocalPatches(embeddings, np.arange(len(own))), memory.embeddings, memory.patches // own.shape[1]
    )

    def score(distances):
        return image_scores(distances.reshape(grid), (300, 300), None, 1.0, [99])[0]

    honest = [score(distances) for distances in held_out.distances]
    naive = [score(memory.distances(image)) for image in own]
    new = [score(memory.distances(image)) for image in fresh]
    assert stats.ks_2samp(honest, new).pvalue > 0.05
    assert stats.ks_2samp(naive, new).pvalue < 1e-4
    refitted = []
    for number in range(0, len(own), 6):
        others = np.delete(own, number, axis=0).reshape(-1, own.shape[-1])
        refitted.append(score(PatchCoreMemory.build(others, grid, 0.02).distances(own[number])))
    assert np.mean(np.array(honest[::6]) - refitted) == pytest.approx(0, abs=0.015)


def test_a_cover_leaves_its_turn_after_few_picks():
    embeddings, turns = unit_rows(3000, dim=64), []

    def turn():
        turns.append(1)
        return nullcontext()

    picks = greedy_cover(embeddings, np.full(3000, -2, np.float32), np.float32(0.999), turn)
    assert len(picks) == 3000
    assert len(turns) > 5
