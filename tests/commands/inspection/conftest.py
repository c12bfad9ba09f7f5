"""A working folder with good images, bad images and parts, where `inspect` uses small extractors."""

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.storage import ModelStore


def part(number, *, is_bad=False):
    """A grey part with a texture of its own; a bad one has a dark stroke."""
    noise = np.random.default_rng(number).normal(0, 6, (90, 110)).astype(np.float32)
    grey = np.clip(130 + cv2.GaussianBlur(noise, (0, 0), 1.5) * 3, 0, 255).astype(np.uint8)
    if is_bad:
        cv2.line(grey, (25, 30 + number % 20), (80, 60), 20, 7)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


@pytest.fixture
def folders(tmp_path, monkeypatch, features, block_features):
    """widget/good with ten images, bad with three, parts with one good part and one bad one."""
    sets = {
        "widget/good": [part(number) for number in range(10)],
        "bad": [part(number, is_bad=True) for number in range(20, 23)],
        "parts": [part(30), part(31, is_bad=True)],
    }
    for folder, images in sets.items():
        (tmp_path / folder).mkdir(parents=True)
        for number, image in enumerate(images, 1):
            cv2.imwrite(str(tmp_path / folder / f"{number}.png"), image)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def opened(settings):
        return InspectionService(settings, features, ModelStore(settings.models_dir), recommended=block_features)

    monkeypatch.setattr(InspectionService, "open", opened)
    return tmp_path


@pytest.fixture
def forwards(block_features, monkeypatch):
    """Counts images that go through the network."""
    seen = []
    forward = block_features.runtime.forward

    def counted(pixels):
        seen.extend(pixels)
        return forward(pixels)

    monkeypatch.setattr(block_features.runtime, "forward", counted)
    return seen


@pytest.fixture
def run(folders, command_line):
    return command_line
