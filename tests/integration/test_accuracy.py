"""Image AUROC on real inspection images, over HTTP, with the contract's defaults (2 % coreset, p99)."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import elpv_dataset
import pytest
from sklearn.metrics import roc_auc_score

from backend.network.weights import Weights
from harness.gui import Gui
from harness.server import uvicorn_command
from tests.integration.conftest import FULL, running

_PATIENCE_S = 500  # the two minutes of the GUI are too short for these fits if other tests keep the machine busy
DATA = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Split:
    train: list[Path]
    good: list[Path]
    defective: list[Path]


def mvtec(name: str, every_train: int = 1, every_test: int = 1) -> Split:
    """A data set in MVTec layout; of a large one, a part will do."""
    folder = DATA / name
    test = sorted(folder.glob("test/*/*"))[::every_test]
    good = [path for path in test if path.parent.name == "good"]
    return Split(sorted(folder.glob("train/good/*"))[::every_train], good, [path for path in test if path not in good])


def solar_cells() -> Split:
    """Monocrystalline cells of the package ``elpv-dataset``, for machines without the data sets."""
    folder = Path(elpv_dataset.__file__).parent / "data"
    rows = [line.split() for line in (folder / "labels.csv").read_text().splitlines()]
    mono = [(folder / name, float(probability)) for name, probability, kind in rows if kind == "mono"]
    good = [path for path, probability in mono if probability == 0]
    defective = [path for path, probability in mono if probability == 1]
    shuffled = random.Random(0)
    good, defective = shuffled.sample(good, 110), shuffled.sample(defective, 50)
    return Split(good[:80], good[80:], defective)


SETS: dict[str, tuple[Callable[[], Split], float]] = (
    {
        "hazelnut": (lambda: mvtec("hazelnut", every_test=2), 1.00),
        "elpv_mono": (lambda: mvtec("elpv_mono", every_train=4, every_test=2), 0.90),
        "magnetic_tile": (lambda: mvtec("magnetic_tile", every_train=4, every_test=4), 0.85),
    }
    if DATA.is_dir()
    else {"solar_cells": (solar_cells, 0.93)}
)
LARGE = ("elpv_mono", "magnetic_tile")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Gui]:
    """A client of the service at its default size."""
    with running(uvicorn_command, tmp_path_factory.mktemp("full"), weights, INPUT_SIZE=FULL) as server:
        yield replace(server.gui, patience_s=_PATIENCE_S)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LARGE else name for name in SETS]
)
def test_defective_parts_score_above_good_ones(
    full: Gui, name: str, record_property: Callable[[str, float], None]
) -> None:
    load, expected = SETS[name]
    split = load()
    fit = full.fit("Accuracy", name, [path.read_bytes() for path in split.train])
    assert fit.status == 200, fit.content
    assert fit.json["coreset_size"] == -(-fit.json["n_embeddings"] // 50)

    def score(path: Path) -> float:
        value: float = full.infer("Accuracy", name, path.read_bytes()).json["score"]
        return value

    good, defective = [score(path) for path in split.good], [score(path) for path in split.defective]
    auroc = float(roc_auc_score([0] * len(good) + [1] * len(defective), good + defective))
    record_property("auroc", auroc)
    print(f"{name}: image AUROC {auroc:.4f}")
    assert auroc >= expected
