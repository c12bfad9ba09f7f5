"""Builders that several test modules share: ids, memory banks, models as they are stored, images, services."""

import base64
import json
import os
from pathlib import Path

import cv2
import faiss
import numpy as np

from backend.calib import Calibration, calibrate
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage

# Beside a developer's checkout; everything is proven the same without it, from PyPI.
SHARED = Path(__file__).resolve().parents[2] / "shared"

KEY = RoiKey("Master1", "Pattern")
IN_RECIPE = RoiKey("Master1", "Pattern", "line 1")

ORDINARY = ["Master1", "Pattern", "A B", "ro.i", "a-b_c~d", "0", "x" * 240, "CONSOLE", "com", "lpt10x", "nulls.txt"]
AWKWARD = [
    "..",
    ".",
    "...",
    "../../etc/passwd",
    "a/b",
    "a\\b",
    "a:b",
    "C:\\x",
    "\0",
    "a\0b",
    "a\nb",
    "CON",
    "con",
    "nul.txt",
    "Com1",
    "LPT9.a.b",
    "aux",
    "x.",
    "x ",
    "x. .",
    " x",
    " ",
    ".hidden",
    ".tmp-1",
    ".lock",
    "%",
    "%2E",
    "%2E%2E",
    "%252E",
    "é",  # one code point
    "e\u0301",  # two that look the same
    "ﬁ",
    "fi",
    "ñandú",
    "日本",
    "🙂",
    "a*b?c",
    '<>|"',
    "tab\t",
    "\u202eevil",
]

LAYOUTS = ["L0", "L1", "L2"]


def unit_rows(n, dim, seed):
    return l2_normalize(np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32))


def memory_of(seed, n=20, dim=16):
    return PatchCoreMemory.build(unit_rows(n, dim, seed), (4, 5), 1.0)


def calibration_of(fitted: FittedRoi | None, threshold=0.5) -> Calibration:
    memory_id = fitted.memory_id if fitted else None
    return calibrate([threshold], [], mm_per_px=0.2, area_mm2_thr=1.0, score_percentile=99, memory_id=memory_id)


def load(root, key=KEY) -> FittedRoi:
    """What another process finds: a store of its own."""
    fitted = ModelStore(root).load(key)
    assert fitted is not None
    return fitted


def same_memory(fitted, memory):
    return np.array_equal(fitted.memory.embeddings, memory.embeddings) and fitted.memory.token_hw == memory.token_hw


def index_bytes(embeddings):
    index = faiss.IndexFlatL2(embeddings.shape[1])
    index.add(embeddings)
    return faiss.serialize_index(index).tobytes()


def snapshot(root):
    """Every file with its content and time: what must not change."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def write_memory(path, embeddings, token_hw, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, emb=embeddings, token_h=token_hw[0], token_w=token_hw[1], **more)


def older_files(root, layout, key):
    """Where the older backends kept a ROI: memory, index and calibration."""
    if layout == "L0":
        folder = root / key.role_id / key.roi_id
        return folder / "memory.npz", folder / "index.faiss", folder / "calib.json"
    if layout == "L1":
        stem = "_".join(
            "".join(c if (c.isascii() and c.isalnum()) or c in "-_" else "_" for c in text)
            for text in (key.role_id, key.roi_id)
        )
    else:
        stem = "__".join(
            base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (key.role_id, key.roi_id)
        )
    return root / f"{stem}.npz", root / f"{stem}_index.faiss", root / f"{stem}_calib.json"


def encoded(image):
    return cv2.imencode(".png", image)[1].tobytes()


def with_one_pixel_changed(content):
    """Another image, which looks the same."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    image[0, 0, 0] ^= 1
    return encoded(image)


def image_named(name, image):
    content = encoded(image)
    return NamedImage(name, lambda: content)


def service_with(features, folder, **settings):
    return InspectionService(Settings(models_dir=folder, **settings), features, ModelStore(folder))


def store_memory(root, seed, key=KEY, **metadata):
    ModelStore(root).save_memory(key, memory_of(seed), metadata)


def store_threshold(root, threshold, key=KEY):
    store = ModelStore(root)
    store.save_calibration(key, calibration_of(store.load(key), threshold))


def served(root, key=KEY):
    """Seed of the memory bank that is served, and the threshold that is applied."""
    fitted = load(root, key)
    (seed,) = (seed for seed in range(1, 10) if same_memory(fitted, memory_of(seed)))
    return seed, fitted.calibration.threshold if fitted.calibration else None


def listed(root, key=KEY, store=None):
    """Number, what replaced it, and threshold of each version, the newest first."""
    return [
        (version.number, version.facts.replaced_by, calibration.threshold if calibration else None)
        for version, calibration in (store or ModelStore(root)).versions(key)
    ]


def without_versions(root):
    """Every file of the models themselves, with its content."""
    return {name: content for name, (content, _) in snapshot(root).items() if "/.versions/" not in name}


def refusing(monkeypatch, owner, name, number, when=lambda *_: True):
    call = getattr(owner, name)

    def refused(*arguments, **options):
        if when(*arguments):
            raise OSError(number, os.strerror(number))
        return call(*arguments, **options)

    monkeypatch.setattr(owner, name, refused)


def write_calibration(root, **values):
    """A calibration of KEY as somebody else may have written it."""
    (root / "Master1" / "Pattern" / "calib.json").write_text(json.dumps(values))


def memory_id(root):
    return ModelStore(root).memory_id(KEY)


def tampered(service, **changes):
    """The memory file of KEY with some of its arrays replaced, or its images described otherwise."""
    path = service.settings.models_dir / "Master1" / "Pattern" / "memory.npz"
    with np.load(path) as file:
        arrays = dict(file)
    described = changes.pop("images", None)
    if described is not None:
        metadata = json.loads(str(arrays["metadata"]))
        metadata["images"] = [{**image, **described} for image in metadata["images"]]
        changes["metadata"] = np.array(json.dumps(metadata))
    np.savez(path, **{**arrays, **changes})


def smooth_parts(n):
    """Parts that differ, uint8 [96, 96, 3]: smooth noise."""
    rng = np.random.default_rng(3)
    noise = (rng.integers(0, 256, (12, 12, 3), np.uint8) for _ in range(n))
    return [cv2.resize(small, (96, 96), interpolation=cv2.INTER_CUBIC) for small in noise]
