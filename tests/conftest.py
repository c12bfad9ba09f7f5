"""What every test shares: the real weights, real images and the real extractor, a service, and models as stored."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from backend.commands.main import main
from backend.common import files
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.profiles import RECOMMENDED_BLOCKS
from backend.features import DinoV2Features
from backend.network.weights import CANONICAL_NAME, Weights, find_weights
from backend.patchcore import PatchCoreMemory
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from harness import open_files
from harness.no_network import sitecustomize as no_network
from tests.factories import KEY, SHARED, memory_of, store_memory, store_threshold
from tests.remembering import RememberingRuntime

_DATA_SETS = ("elpv_mono", "hazelnut", "magnetic_tile")

# Of this process, and by the environment of every Python that a test starts.
_FOLDER = tempfile.TemporaryDirectory(prefix="no-network-")
_RECORD = Path(_FOLDER.name) / "record"
_RECORD.touch()
os.environ[no_network.RECORD] = str(_RECORD)
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(no_network.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)


@pytest.fixture(scope="session", autouse=True)
def nothing_leaves_the_machine_in_the_end() -> Iterator[None]:
    """Fails the run where a fixture or the end of a process reached another machine."""
    yield
    assert _attempts() == []


@pytest.fixture(autouse=True)
def nothing_leaves_the_machine() -> Iterator[None]:
    """Fails a test while which something tried to reach another machine: see `harness/no_network`."""
    yield
    assert _attempts() == []


def _attempts() -> list[str]:
    if not _RECORD.stat().st_size:
        return []
    attempts = _RECORD.read_text(encoding="utf-8").splitlines()
    os.truncate(_RECORD, 0)  # the next test did nothing
    return attempts


@pytest.fixture
def windows_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, or Linux that refuses for files that are open what Windows refuses."""
    if not open_files.IS_POSSIBLE:
        pytest.skip("which files are open can be told on Linux only")
    if sys.platform != "win32":
        monkeypatch.setattr(files, "_WINDOWS", True)
        for name in ("replace", "rename", "unlink", "remove", "rmdir"):
            monkeypatch.setattr(os, name, open_files.refusing(getattr(os, name)))


@pytest.fixture
def command_line(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `roi-anomaly` with arguments, in this process; gives its exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status: str | int | None = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = stop.code
        out, err = capfd.readouterr()
        if isinstance(status, str):  # what the interpreter does with it
            return 1, out, err + status
        return status or 0, out, err

    return command


@pytest.fixture(scope="session")
def weights() -> Weights:
    """The published weights: from ../shared, else from wherever the service itself finds them."""
    given = SHARED / "weights" / CANONICAL_NAME
    return find_weights(Settings(weights=given) if given.is_file() else Settings())


@pytest.fixture(scope="session")
def images() -> list[npt.NDArray[np.uint8]]:
    """Real inspection images, good and defective, uint8 [H, W, 3] BGR; the last is twice as wide as high."""
    # By name: another data set beside these must not change what the tests look at.
    folders = [folder for name in _DATA_SETS for folder in sorted((SHARED / "data" / name).glob("test/*"))]
    files = [min(folder.iterdir()) for folder in folders]
    if not files:
        spec = find_spec("elpv_dataset")
        assert spec is not None, "pip install -r requirements/dev.txt"
        assert spec.origin is not None
        files = sorted(Path(spec.origin).parent.glob("data/images/*.png"))
    chosen = [files[round(index)] for index in np.linspace(0, len(files) - 1, 5)]
    read = [np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR), dtype=np.uint8) for file in chosen]
    return [*read, read[0][: read[0].shape[1] // 2]]


@pytest.fixture(scope="session")
def full_features(weights: Weights) -> DinoV2Features:
    """The extractor as the service runs it: OpenVINO, 448 pixels."""
    return DinoV2Features(RememberingRuntime(weights.path, 448), DEFAULT_MODEL, weights.sha256, 448)


@pytest.fixture(scope="session")
def features(full_features: DinoV2Features) -> DinoV2Features:
    """The extractor of `service`; folders and modules may have another one."""
    return full_features


@pytest.fixture(scope="session")
def embeddings(features: DinoV2Features, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Real patch embeddings, float32 [6144, 384], as the extractor gives them: not normalised. Read-only."""
    extracted = np.concatenate([features.extract(image)[0] for image in images])
    extracted.flags.writeable = False  # shared by the tests, and building a memory normalises in place
    return extracted


@pytest.fixture(scope="session")
def small_features(weights: Weights) -> DinoV2Features:
    """The extractor at 112 pixels, which is quick, for what does not depend on how good the scores are."""
    return DinoV2Features(RememberingRuntime(weights.path, 112), DEFAULT_MODEL, weights.sha256, 112)


@pytest.fixture(scope="session")
def block_features(weights: Weights) -> DinoV2Features:
    """The extractor of the recommended profile at 112 pixels."""
    runtime = RememberingRuntime(weights.path, 112, blocks=RECOMMENDED_BLOCKS)
    return DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 112)


@pytest.fixture
def service(features: DinoV2Features, tmp_path: Path) -> InspectionService:
    """A service on a models folder of its own, with the module's own `features` where it has some."""
    return InspectionService(Settings(models_dir=tmp_path), features, ModelStore(tmp_path))


@pytest.fixture
def fitted_folder(tmp_path: Path) -> tuple[Path, PatchCoreMemory]:
    """A models folder with one fitted ROI; its folder, its memory."""
    memory = memory_of(1)
    ModelStore(tmp_path).save_memory(KEY, memory, {"coreset_rate": 1.0})
    return tmp_path / "Master1" / "Pattern", memory


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A models folder whose ROI was fitted, calibrated to 0.4, fitted anew and calibrated to 0.6."""
    store_memory(tmp_path, 1, n_images=3, n_embeddings=60)
    store_threshold(tmp_path, 0.4)
    store_memory(tmp_path, 2)
    store_threshold(tmp_path, 0.6)
    return tmp_path
