"""Warnings about images of a data set that look nearly the same."""

from collections.abc import Sequence

from backend.bank.copies import Copies, Look, copies_of_known, near_copies

_MOST_NAMED = 5


def near_copy_remarks(
    train: Sequence[str], train_looks: Sequence[Look], test: Sequence[str], test_looks: Sequence[Look]
) -> list[str]:
    """Warnings that images look nearly the same as training images; without those that have the same pixels.

    Args:
        train, test: names of the images.
        train_looks, test_looks: of each of them.
    """
    remarks = []
    copies = Copies.of([look.pixels_sha256 for look in train_looks], near_copies(train_looks))
    if copies.n_pairs:
        pairs = _listed([f"{train[first]} and {train[second]}" for first, second in copies.named], copies.n_pairs)
        look = "pair of training images looks" if copies.n_pairs == 1 else "pairs of training images look"
        remarks.append(
            f"{copies.n_pairs} {look} nearly the same ({pairs}): if they show the same part, the threshold is too low"
        )
    numbers = {look.pixels_sha256: number for number, look in reversed(list(enumerate(train_looks)))}
    known = list(numbers.values())
    others = [number for number, look in enumerate(test_looks) if look.pixels_sha256 not in numbers]
    found = copies_of_known([train_looks[number] for number in known], [test_looks[number] for number in others])
    if found:
        named = [f"test/{test[others[other]]} and {train[known[number]]}" for other, number in found.items()]
        look = "test image looks" if len(found) == 1 else "test images look"
        remarks.append(
            f"{len(found)} {look} nearly the same as training images ({_listed(named, len(found))}): if they show the "
            "same part, they score too low, and the results are wrong; remove them from test/ or from train/good"
        )
    return remarks


def _listed(named: Sequence[str], n_all: int) -> str:
    listed = list(named[:_MOST_NAMED])
    if n_all > len(listed):
        listed.append(f"{n_all - len(listed)} more")
    return ", ".join(listed)
