"""A small data set in MVTec layout, and `evaluate` run on it with the loaded extractor."""

import importlib.util
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.commands.evaluate import evaluation
from backend.common.config import Settings
from backend.common.profiles import CONTRACT
from tests.factories import SHARED


def sources():
    """Real images: of training, good, defective, and the masks of these."""
    nuts = SHARED / "data" / "hazelnut"
    if nuts.is_dir():
        train, good, bad = (sorted((nuts / place).iterdir()) for place in ("train/good", "test/good", "test/colour"))
        masks = [nuts / "ground_truth" / "colour" / f"{path.stem}_mask.png" for path in bad[:3]]
        return train[:4], good[:3], bad[:3], [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in masks]
    package = importlib.util.find_spec("elpv_dataset")
    assert package is not None, "pip install -r requirements/dev.txt"
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    good = [data / name for name, probability, kind in rows if kind == "mono" and float(probability) == 0]
    bad = [data / name for name, probability, kind in rows if kind == "mono" and float(probability) == 1][:3]
    masks = []
    for path in bad:  # cracked cells come without masks: what is darkest will do
        cell = cv2.GaussianBlur(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (0, 0), 4)
        masks.append(255 * (cell <= np.quantile(cell, 0.1)).astype(np.uint8))
    return good[:4], good[4:7], bad, masks


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A data set in MVTec layout: 4 good images to fit on, 3 good ones, and 3 defective ones of two types."""
    folder = tmp_path_factory.mktemp("sets") / "part"
    train, good, bad, masks = sources()
    for place, images in (("train/good", train), ("test/good", good), ("test/a", bad[:2]), ("test/b", bad[2:])):
        (folder / place).mkdir(parents=True)
        for number, path in enumerate(images):
            image = cv2.imread(str(path))
            cv2.imwrite(str(folder / place / f"{number}.png"), image)
    for name, mask in zip(("a/0", "a/1", "b/0"), masks, strict=True):
        path = folder / "ground_truth" / f"{name}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), mask)
    return folder


@pytest.fixture
def part(pristine, features, tmp_path, monkeypatch, request):
    """A copy of the data set as part/ in the working folder, where commands use the loaded extractor."""
    shutil.copytree(pristine, tmp_path / "part")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def opened(settings, profile):
        return (features if profile == CONTRACT else request.getfixturevalue("block_features")), None

    monkeypatch.setattr(evaluation, "open_features", opened)
    return tmp_path / "part"


@pytest.fixture
def run(part, command_line):
    """Runs `evaluate`; gives its exit status, stdout and stderr."""

    return partial(command_line, "evaluate")
