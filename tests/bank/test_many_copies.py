"""Near copies by the thousand: the pairs that there are, counted and grouped in little memory."""

import itertools
import tracemalloc

import cv2
import numpy as np
import pytest

from backend.bank import copies
from backend.bank.copies import Copies, Look, copies_warning, near_copies, unlikeness


def frames(n_parts, n_frames, seed=0):
    """Looks of parts, of each several frames with a little noise; frames of different parts lie side by side."""
    rng = np.random.default_rng(seed)
    parts = [120 + 3 * cv2.GaussianBlur(rng.normal(0, 90, (64, 64)), (0, 0), 2) for _ in range(n_parts)]
    looks = []
    for number, part in itertools.product(range(n_frames), range(n_parts)):
        noisy = np.clip(parts[part] + rng.normal(0, 0.3, (64, 64)), 0, 255).astype(np.uint8)
        looks.append(Look(f"{part}-{number}", noisy))
    return looks


def brute_force(looks):
    """All pairs, by every distance at once."""
    if not looks:
        return []
    firsts = sorted({look.pixels_sha256: number for number, look in reversed(list(enumerate(looks)))}.values())
    distances = np.vstack([unlike for _, unlike in unlikeness([looks[number].miniature for number in firsts])])
    is_near = np.minimum(distances, distances.T) < copies._MOST_UNLIKE
    return [(firsts[i], firsts[j]) for i in range(len(firsts)) for j in range(i + 1, len(firsts)) if is_near[i, j]]


def groups(n, pairs):
    """Of each of n images the lowest one that it is joined to, by going along the pairs until nothing changes."""
    lowest = list(range(n))
    changed = True
    while changed:
        changed = False
        for pair in pairs:
            least = min(lowest[number] for number in pair)
            for number in pair:
                changed |= lowest[number] != least
                lowest[number] = least
    return lowest


@pytest.mark.parametrize("rows", [5, 8, 256])
@pytest.mark.parametrize(("n_parts", "n_frames"), [(0, 0), (1, 1), (1, 9), (9, 1), (4, 5)])
def test_pairs_and_groups_are_those_of_brute_force(n_parts, n_frames, rows, monkeypatch):
    monkeypatch.setattr(copies, "_ROWS_AT_ONCE", rows)
    looks = frames(n_parts, n_frames)
    looks += looks[1:4]  # the same pixels again
    expected = brute_force(looks)
    assert list(near_copies(looks)) == expected
    assert len(expected) == n_parts * n_frames * max(0, n_frames - 1) / 2
    own = [look.pixels_sha256 for look in looks]
    found = Copies.of(own, near_copies(looks))
    assert (found.n_pairs, found.named) == (len(expected), expected[:5])
    same = [(own.index(identity), number) for number, identity in enumerate(own)]
    assert found.identities == [own[number] for number in groups(len(own), [*expected, *same])]


@pytest.mark.parametrize("rows", [5, 256])
@pytest.mark.parametrize("n_known", [0, 1, 8, 11, 20])
def test_known_images_are_compared_with_the_others_alone(n_known, rows, monkeypatch):
    monkeypatch.setattr(copies, "_ROWS_AT_ONCE", rows)
    looks = frames(4, 5)
    assert list(near_copies(looks, n_known=n_known)) == [pair for pair in brute_force(looks) if pair[1] >= n_known]


def test_pairs_that_are_near_by_one_distance_alone_count(monkeypatch):
    """The share of the contrast that is not explained differs by whose contrast it is."""
    looks = frames(3, 1)
    distances = np.full((3, 3), 1, np.float32)
    distances[2, 0] = distances[1, 2] = 0
    monkeypatch.setattr(copies, "unlikeness", lambda *_: [(0, distances[:2]), (2, distances[2:])])
    assert list(near_copies(looks)) == [(0, 2), (1, 2)]


def test_pairs_of_many_frames_of_one_part_take_no_memory_each(monkeypatch):
    n = 256
    monkeypatch.setattr(copies, "unlikeness", lambda *_: [(0, np.zeros((n, n), np.float32))])
    looks = [Look(str(number), np.zeros((64, 64), np.uint8)) for number in range(n)]
    own = [look.pixels_sha256 for look in looks]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    found = Copies.of(own, near_copies(looks))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.n_pairs == n * (n - 1) // 2
    assert set(found.identities) == {own[0]}
    assert most - before < 6 * n * n  # of which four are the distances that this test made; pairs took 50
    said = copies_warning(own, found, grouped=False)
    assert said.startswith("32640 pairs of images look nearly the same (0 and 1, 0 and 2, ")
    assert "0 and 5, 32635 more)" in said


def test_comparison_of_many_images_takes_the_memory_that_a_fit_counts_with():
    random = np.random.default_rng(0)
    looks = [Look(str(number), random.integers(0, 256, (64, 64), np.uint8)) for number in range(640)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    assert list(near_copies(looks)) == []
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    at_any_number = 12 << 20
    assert most - before < len(looks) * copies.BYTES_PER_LOOK + len(looks) ** 2 // 8 + at_any_number
