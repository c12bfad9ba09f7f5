"""Folders that commands work in, and the extractor that they use there."""

import shutil

import cv2
import pytest

from backend.commands.folders import GOOD_PARTS, check_folders
from backend.commands.image_files import find_images
from backend.common.config import Settings
from backend.common.errors import InvalidRequest
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


@pytest.fixture(scope="session")
def bank(features, images, tmp_path_factory):
    """A models folder with one ROI, fitted on one image and not calibrated."""
    folder = tmp_path_factory.mktemp("models")
    png = cv2.imencode(".png", images[0])[1].tobytes()
    fit(
        InspectionService(Settings(), features, ModelStore(folder)),
        KEY,
        [NamedImage("ok.png", lambda: png)],
        mm_per_px=0.2,
    )
    return folder


@pytest.fixture
def work(bank, features, images, tmp_path, monkeypatch):
    """A working folder with models/ and images in parts/, where commands use the loaded extractor."""
    shutil.copytree(bank, tmp_path / "models")
    for name, image in zip(["1.png", "2.jpg", "a/10.bmp", "a/1.png"], images[:4], strict=True):
        (tmp_path / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "parts" / name), cv2.resize(image, (200, 160), interpolation=cv2.INTER_AREA))
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def opened(settings):
        return InspectionService(settings, features, ModelStore(settings.models_dir))

    monkeypatch.setattr(InspectionService, "open", opened)
    return tmp_path


@pytest.fixture
def run(work, command_line):
    return command_line


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A folder as they come, below the working folder."""
    names = ["10.png", "2.PNG", "1.jpg", "b/7.webp", "a/c/8.bmp", "a/9.jpeg", "notes.txt", "a/Thumbs.db", ".hidden.png"]
    for name in [*names, ".cache/5.png"]:
        (tmp_path / "parts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "parts" / name).write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "parts"


@pytest.fixture
def refusal(tmp_path, monkeypatch):
    """Puts files into a folder; what `check_folders` then says of some paths, or None."""
    monkeypatch.chdir(tmp_path)

    def refusal(files, paths, parts=GOOD_PARTS):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(b"x")
        try:
            check_folders(find_images(paths)[0], paths, parts)
        except InvalidRequest as refused:
            return str(refused)
        return None

    return refusal
