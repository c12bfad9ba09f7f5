"""Normalisation, the greedy coreset and nearest neighbours, beside the plain formulas."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import cv2
import faiss
import numpy as np
import pytest
from sklearn.neighbors import KDTree

from backend import patchcore
from backend.common.roi_key import RoiKey
from backend.patchcore import (
    FaissIndex,
    PatchCoreMemory,
    SklearnIndex,
    build_index,
    coreset_size,
    k_center_greedy,
    l2_normalize,
)
from backend.storage import ModelStore

ROOT = Path(__file__).resolve().parents[1]
KEY = RoiKey("Master1", "Pattern")

# Squared distances between unit vectors of 384 float32 numbers are good to some 1e-6.
FLOAT_ERROR = 2e-6


@pytest.fixture(params=["as shipped", "tiny"])
def pools(request, monkeypatch):
    """Pools and blocks as shipped, and so small that a few points go through every branch."""
    if request.param == "tiny":
        for name, size in {"_BLOCK_ROWS": 50, "_MIN_POOL": 9, "_BLOCK_PICKS": 4, "_PICKS_PER_PIECE": 2}.items():
            assert size < getattr(patchcore, name)
            monkeypatch.setattr(patchcore, name, size)


def normalized_in_float64(embeddings):
    return np.stack([row / np.sqrt(sum(row * row)) for row in embeddings.astype(np.float64)])


def brute_force_distances(queries, bank):
    """Nearest-neighbour distances in float64, from differences and not from products."""
    bank = normalized_in_float64(bank)
    return np.array([np.sqrt(((bank - query) ** 2).sum(axis=1).min()) for query in normalized_in_float64(queries)])


def assert_greedy(picks, embeddings):
    """Replay the picks with the plain loop in float64: each is the farthest point from all picks before it.

    Where the runner-up is closer than float error the pick may be either; else it must be the one.
    """
    exact = embeddings.astype(np.float64)
    assert picks[0] in np.flatnonzero(
        (distances := ((exact - exact.mean(axis=0)) ** 2).sum(axis=1)) <= distances.min() + FLOAT_ERROR
    )
    nearest = np.full(len(exact), np.inf)
    undisputed = 0
    for last, pick in pairwise(picks):
        nearest = np.minimum(nearest, ((exact - exact[last]) ** 2).sum(axis=1))
        nearest[last] = -1
        assert nearest[pick] >= nearest.max() - FLOAT_ERROR
        undisputed += int((nearest >= nearest.max() - FLOAT_ERROR).sum() == 1)
    return undisputed


def test_normalising_gives_every_row_unit_length_and_keeps_its_direction():
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32) * np.float32(30)
    original = rows.copy()
    normalised = l2_normalize(rows)
    assert normalised.dtype == np.float32
    assert np.array_equal(rows, original)
    for row, expected in zip(normalised, normalized_in_float64(rows), strict=True):
        assert row == pytest.approx(expected, abs=1e-6)
    assert l2_normalize(np.array([[3, 4], [0, 0]], np.float32)).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]


@pytest.mark.parametrize(
    ("n", "rate", "size"),
    [
        (34992, 0.02, 700),  # the playbook's example: 699.84
        (100, 0.07, 7),  # 7.000000000000001 in floats
        (1000, 0.29, 290),
        (100, 0.0701, 8),
        (1024, 0.02, 21),  # 20.48
        (10, 0.001, 1),
        (1, 0.02, 1),
        (7, 1.0, 7),
        (3, 0.999, 3),
    ],
)
def test_the_coreset_is_the_share_rounded_up_and_at_least_one(n, rate, size):
    assert coreset_size(n, rate) == size


@pytest.mark.slow
def test_on_real_embeddings_the_picks_are_those_of_the_plain_loop(embeddings):
    normalised = l2_normalize(embeddings)
    picks = k_center_greedy(normalised, 400)
    assert len(set(picks.tolist())) == len(picks) == 400
    assert assert_greedy(picks, normalised) > 350


@pytest.mark.parametrize("seed", range(12))
def test_on_any_cloud_of_points_the_picks_are_those_of_the_plain_loop(seed, pools):
    random = np.random.default_rng(seed)
    n, dim = int(random.integers(1, 1500)), int(random.integers(2, 40))
    centres = random.normal(size=(int(random.integers(1, 20)), dim))
    spread = random.choice([0.01, 0.3, 3.0])
    cloud = centres[random.integers(0, len(centres), n)] + spread * random.normal(size=(n, dim))
    normalised = l2_normalize(cloud.astype(np.float32))
    n_select = int(random.integers(1, n + 1))
    picks = k_center_greedy(normalised, n_select)
    assert len(set(picks.tolist())) == len(picks) == n_select
    assert_greedy(picks, normalised)


@pytest.mark.parametrize("seed", range(6))
def test_of_points_equally_far_the_first_is_picked(seed, pools):
    # Corners of a cube with their copies: every product is a multiple of 1/4, exact in float32 in any order.
    random = np.random.default_rng(seed)
    corners = (random.integers(0, 2, size=(int(random.integers(1, 1500)), 4)) - 0.5).astype(np.float32)
    picks = k_center_greedy(corners, len(corners))
    expected = [picks[0]]
    squared = np.full(len(corners), np.inf)
    for _ in corners[1:]:
        squared = np.minimum(squared, ((corners - corners[expected[-1]]) ** 2).sum(axis=1))
        squared[expected[-1]] = -1
        expected.append(np.argmax(squared))  # the first of the farthest
    assert picks.tolist() == expected


@pytest.mark.slow
def test_the_picks_are_as_far_from_each_other_as_any_point_is_from_them(embeddings):
    # What makes the greedy a 2-approximation: no 300 balls of half that radius hold the picks and the farthest point.
    normalised = l2_normalize(embeddings).astype(np.float64)
    picks = k_center_greedy(normalised.astype(np.float32), 300)
    tree = KDTree(normalised[picks])
    covering_radius = tree.query(normalised)[0].max()
    packing_distance = tree.query(normalised[picks], k=2)[0][:, 1].min()
    assert packing_distance >= covering_radius - 1e-6
    assert covering_radius < KDTree(normalised[picks[:100]]).query(normalised)[0].max()


def test_duplicates_are_picked_once_until_nothing_else_is_left(pools):
    distinct = l2_normalize(np.random.default_rng(3).normal(size=(40, 16)).astype(np.float32))
    crowd = np.repeat(distinct, 50, axis=0)  # 2000 rows, more than a pool
    picks = k_center_greedy(crowd, 40)
    assert sorted(picks // 50) == list(range(40))
    more = k_center_greedy(crowd, 200)
    assert more[:40].tolist() == picks.tolist()
    assert len(set(more.tolist())) == 200


@pytest.mark.parametrize("n", [1, 2, 1023, 1024, 1025, 1300])
def test_selecting_as_many_as_there_are_selects_all(n, pools):
    cloud = l2_normalize(np.random.default_rng(n).normal(size=(n, 8)).astype(np.float32))
    assert sorted(k_center_greedy(cloud, n)) == list(range(n))
    same = np.repeat(cloud[:1], n, axis=0)
    assert sorted(k_center_greedy(same, n)) == list(range(n))


def test_progress_grows_up_to_the_whole_selection(embeddings):
    reports = []
    k_center_greedy(l2_normalize(embeddings), 400, lambda selected, total: reports.append((selected, total)))
    selected = [report[0] for report in reports]
    assert len(selected) > 10
    assert selected == sorted(set(selected))
    assert reports[-1] == (400, 400)
    assert {total for _, total in reports} == {400}


class Metered(np.ndarray):
    """Embeddings that count the scalar products they enter, and refuse to be read outside a turn."""

    taken = False
    turns: ClassVar[list[int]] = []

    @classmethod
    @contextmanager
    def turn(cls):
        assert not cls.taken, "a turn within a turn"
        cls.taken = True
        cls.turns.append(0)
        yield
        cls.taken = False

    def __getitem__(self, key):
        assert self.taken, "work outside a turn"
        return super().__getitem__(key)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        assert self.taken, "work outside a turn"
        plain = [np.asarray(array) for array in inputs]
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc in (np.matmul, np.vecdot):
            self.turns[-1] += result.size
        return result


@pytest.mark.slow
def test_work_is_done_in_bounded_turns_with_progress_in_between(embeddings, monkeypatch):
    """No turn computes more than a bounded number of products, and progress is reported only between the turns."""
    monkeypatch.setattr(Metered, "turns", [])
    normalised = l2_normalize(np.concatenate([embeddings, -embeddings, embeddings[:, ::-1]]))  # 18,432 rows
    expected = k_center_greedy(normalised, 900)
    taken_at_progress = []
    picks = k_center_greedy(
        normalised.view(Metered), 900, lambda *_: taken_at_progress.append(Metered.taken), Metered.turn
    )
    assert picks.tolist() == expected.tolist()
    assert set(taken_at_progress) == {False}
    assert max(Metered.turns) <= 1152 * 256  # a pool and a block of picks, of all 18,432 * 900 products
    # Lazily: most points are covered early.
    assert sum(Metered.turns) < 0.5 * len(normalised) * 900


def test_building_a_memory_takes_turns_from_the_normalising_on(embeddings, monkeypatch):
    monkeypatch.setattr(Metered, "turns", [])
    k_center_greedy(l2_normalize(embeddings), 123, turn=Metered.turn)
    selecting = len(Metered.turns)
    PatchCoreMemory.build(embeddings.copy(), (32, 32), 0.02, turn=Metered.turn)
    assert len(Metered.turns) == selecting + selecting + 1  # one block has room for the 6144 rows
    assert not Metered.taken


@pytest.mark.slow
def test_building_a_memory_takes_little_more_than_embeddings_and_result():
    # 1,000 of 200,000: an N x M matrix of anything is 200 MB at least, a copy of the embeddings 51 MB.
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((200_000, 64), dtype=np.float32)
    tracemalloc.start()
    PatchCoreMemory.build(embeddings, (1, 1), 0.005)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_the_first_pick_is_the_point_nearest_the_mean(embeddings):
    normalised = l2_normalize(embeddings[:2000])
    mean = normalised.astype(np.float64).mean(axis=0, keepdims=True)
    _, nearest = KDTree(normalised.astype(np.float64)).query(mean)
    assert k_center_greedy(normalised, 1).tolist() == [nearest[0, 0]]


@pytest.mark.slow
def test_a_memory_is_the_normalised_coreset_in_the_order_of_selection(embeddings):
    memory = PatchCoreMemory.build(embeddings.copy(), (32, 32), 0.02)
    assert memory.token_hw == (32, 32)
    assert memory.embeddings.shape == (123, 384)  # ceil(122.88)
    assert memory.embeddings.dtype == np.float32
    assert np.linalg.norm(memory.embeddings.astype(np.float64), axis=1) == pytest.approx(1, abs=1e-6)
    _, rows = KDTree(normalized_in_float64(embeddings)).query(memory.embeddings.astype(np.float64))
    assert_greedy(rows[:, 0], l2_normalize(embeddings))


def test_embeddings_are_normalised_in_place_and_memory_keeps_no_view(embeddings):
    """The memory holds a copy of what it chose and does not keep the embeddings alive."""
    given = embeddings.copy()
    memory = PatchCoreMemory.build(given, (32, 32), 0.02)
    assert np.array_equal(given, l2_normalize(embeddings))
    assert not np.shares_memory(given, memory.embeddings)
    assert memory.embeddings.base is None


def test_the_same_embeddings_give_the_same_bytes(embeddings):
    once, again = (PatchCoreMemory.build(embeddings.copy(), (32, 32), 0.02) for _ in range(2))
    assert once.embeddings.tobytes() == again.embeddings.tobytes()


def test_rate_1_keeps_every_embedding_in_order(embeddings):
    memory = PatchCoreMemory.build(embeddings[:1024].copy(), (32, 32), 1.0)
    assert np.abs(memory.embeddings - normalized_in_float64(embeddings[:1024])).max() < 1e-6


def test_faiss_is_used_where_it_is_installed(embeddings):
    assert isinstance(build_index(l2_normalize(embeddings[:10])), FaissIndex)


@pytest.mark.parametrize("index", [FaissIndex, SklearnIndex])
def test_distances_are_those_of_brute_force(index, embeddings, monkeypatch):
    monkeypatch.setattr(patchcore, "build_index", index)
    memory = PatchCoreMemory.build(embeddings[:3072].copy(), (32, 32), 0.2)
    assert isinstance(memory.index, index)
    queries = embeddings[3072::7]
    distances = memory.distances(queries)
    assert distances.shape == (len(queries),)
    assert distances.dtype == np.float32
    expected = brute_force_distances(queries, memory.embeddings)
    assert expected.min() > 0.05
    assert np.abs(distances - expected).max() < 1e-5


@pytest.mark.parametrize("index", [FaissIndex, SklearnIndex])
@pytest.mark.parametrize("n_queries", [1, 500])
def test_an_embedding_that_is_in_the_bank_has_distance_0(index, n_queries, embeddings, monkeypatch):
    monkeypatch.setattr(patchcore, "build_index", index)
    memory = PatchCoreMemory.build(embeddings[:2048].copy(), (32, 32), 1.0)
    assert memory.distances(embeddings[:n_queries]).max() < 1e-5


@pytest.mark.parametrize("index", [FaissIndex, SklearnIndex])
def test_embedding_in_the_bank_has_distance_0_even_beside_a_near_twin(index, embeddings, monkeypatch):
    # As in a bank of every embedding (memory_fit) of parts photographed twice: squared distances near zero drown in
    # float32 products, so a search by products alone takes the twin.
    monkeypatch.setattr(patchcore, "build_index", index)
    normalised = l2_normalize(embeddings[:1024])
    nudge = np.random.default_rng(0).normal(size=normalised.shape).astype(np.float32)
    twins = l2_normalize(normalised + 5e-4 * l2_normalize(nudge))
    memory = PatchCoreMemory.build(np.concatenate([twins, normalised]), (32, 32), 1.0)
    assert np.abs(memory.distances(normalised) - brute_force_distances(normalised, memory.embeddings)).max() < 1e-5


@pytest.mark.parametrize("index", [FaissIndex, SklearnIndex])
def test_distances_are_euclidean_on_the_unit_sphere_for_any_query_length(index, monkeypatch):
    monkeypatch.setattr(patchcore, "build_index", index)
    memory = PatchCoreMemory.build(np.array([[5, 0]], np.float32), (1, 1), 1.0)
    queries = np.array([[0.1, 0], [0, 3], [-9, 0], [1, 1]], np.float32)
    # The same direction, a right angle, the opposite, 45 degrees: 2 sin(angle / 2).
    assert memory.distances(queries) == pytest.approx([0, 2**0.5, 2, 2 * np.sin(np.pi / 8)], abs=1e-6)


def test_the_serialised_index_is_the_file_that_faiss_reads(embeddings, tmp_path):
    memory = PatchCoreMemory.build(embeddings[:1024].copy(), (32, 32), 0.1)
    assert isinstance(memory.index, FaissIndex)
    (tmp_path / "index.faiss").write_bytes(memory.index.serialized())
    index = faiss.read_index(str(tmp_path / "index.faiss"))
    assert isinstance(index, faiss.IndexFlatL2)
    assert np.array_equal(index.reconstruct_n(0, index.ntotal), memory.embeddings)


WITHOUT_FAISS = """
import sys
from itertools import pairwise
from pathlib import Path

try:
    import faiss
except ModuleNotFoundError:
    pass
else:
    sys.exit("faiss is importable: this proves nothing")

import numpy as np
from backend.patchcore import PatchCoreMemory, SklearnIndex
from backend.disk.layout import RoiKey
from backend.storage import ModelStore

folder = Path(sys.argv[1])
embeddings, queries = np.load(folder / "embeddings.npy"), np.load(folder / "queries.npy")
memory = PatchCoreMemory.build(embeddings, (32, 32), 0.05)
assert isinstance(memory.index, SklearnIndex)
store = ModelStore(folder / "models")
store.save_memory(RoiKey("Master1", "Pattern"), memory, {})
loaded = ModelStore(folder / "models").load(RoiKey("Master1", "Pattern"))
np.save(folder / "distances.npy", loaded.memory.distances(queries))
"""


@pytest.fixture
def python_without_faiss(tmp_path):
    """Runs Python on every installed package but FAISS: not hidden from the import system, but not there."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for folder in dict.fromkeys(Path(module.__file__).resolve().parents[1] for module in (np, cv2, faiss)):
        for entry in folder.iterdir():
            if not entry.name.startswith("faiss") and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)

    def run(script, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)])}
        command = [sys.executable, "-S", "-c", script, *map(str, arguments)]  # -S: no site-packages of its own
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_without_faiss_everything_is_the_same_but_the_index_file(embeddings, tmp_path, python_without_faiss):
    np.save(tmp_path / "embeddings.npy", embeddings[:2048])
    np.save(tmp_path / "queries.npy", embeddings[2048:3072])
    with_faiss = PatchCoreMemory.build(embeddings[:2048].copy(), (32, 32), 0.05)
    ModelStore(tmp_path / "models").save_memory(KEY, PatchCoreMemory.build(embeddings[:100].copy(), (32, 32), 1.0), {})
    folder = tmp_path / "models" / "Master1" / "Pattern"
    assert (folder / "index.faiss").is_file()

    done = python_without_faiss(WITHOUT_FAISS, tmp_path)

    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(tmp_path / "distances.npy") - with_faiss.distances(embeddings[2048:3072])).max() < 1e-5
    assert not (folder / "index.faiss").exists(), "the index of the earlier fit is stale"
    ModelStore(tmp_path / "with faiss").save_memory(KEY, with_faiss, {})
    beside = tmp_path / "with faiss" / "Master1" / "Pattern"
    assert (folder / "memory.npz").read_bytes() == (beside / "memory.npz").read_bytes()

    # A process that has FAISS serves the model and brings the index back.
    loaded = ModelStore(tmp_path / "models").load(KEY)
    assert loaded is not None
    assert isinstance(loaded.memory.index, FaissIndex)
    assert (folder / "index.faiss").read_bytes() == (beside / "index.faiss").read_bytes()
