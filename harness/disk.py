"""Checks a models folder after a crash: whether it is complete and consistent."""

import json
from dataclasses import dataclass
from pathlib import Path

import faiss

from backend.common.files import TEMPORARY_PREFIX
from backend.common.image_headers import SUFFIXES
from backend.common.roi_key import RoiKey
from backend.disk.layout import INDEX_FILE, current_files, dataset_folder
from harness.versions import Version, Versions, read_memory


@dataclass(frozen=True)
class StoredRoi:
    """A model on disk: its version, and the version and threshold of its calibration."""

    version: Version
    calibrated: Version | None
    threshold: float | None


class Broken(Exception):
    """What is stored is no whole model."""


def stored(root: Path, ids: dict[str, str], versions: Versions) -> StoredRoi:
    """Read a model with plain numpy, FAISS and json, once the service has read it too.

    Raises:
        Broken: its files are damaged, or of several versions.
    """
    place = current_files(root, RoiKey(**ids))
    try:
        version = versions.of_memory(place.memory)
    except Exception as exc:  # whatever numpy and zipfile raise of a damaged file
        raise Broken(f"memory.npz: {exc!r}") from exc
    if version is None:
        raise Broken("memory.npz: embeddings and metadata are of no one version")
    embeddings, _ = read_memory(place.memory)
    index = faiss.IndexFlatL2(embeddings.shape[1])
    index.add(embeddings)
    is_pulled = root.name.startswith("pulled-")  # a store keeps no index: whoever reads a bank makes it
    if not is_pulled and place.memory.with_name(INDEX_FILE).read_bytes() != faiss.serialize_index(index).tobytes():
        raise Broken("index.faiss is not that of memory.npz")
    if not place.calibration.exists():
        return StoredRoi(version, None, None)
    try:
        calibration = json.loads(place.calibration.read_bytes())
    except ValueError as exc:
        raise Broken(f"calib.json: {exc!r}") from exc
    calibrated = versions.of_id(calibration["memory_id"])
    if calibrated is None:
        raise Broken("calib.json names a memory that never was")
    return StoredRoi(version, calibrated, calibration["threshold"])


def stored_images(root: Path, ids: dict[str, str]) -> dict[str, bytes]:
    """The stored good images of a ROI by their names.

    Raises:
        Broken: one has no metadata, or metadata that are not its own.
    """
    folder = dataset_folder(root, RoiKey(**ids)) / "ok"
    images = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    for name in images:
        try:
            metadata = json.loads((folder / f"{name}.json").read_bytes())
        except (OSError, ValueError) as exc:
            raise Broken(f"metadata of {name}: {exc!r}") from exc
        if metadata["roi_id"] != ids["roi_id"]:
            raise Broken(f"metadata of {name} are of another ROI")
    return images


def leftovers(root: Path) -> list[str]:
    """What killed writers left: temporary files, metadata without an image, runs that nobody does any more.

    And the embeddings of a fit, which the command line keeps to go on from, and the service never. A file of progress
    that is empty yet is nobody's: it goes an hour later.
    """
    orphans = [
        path for suffix in SUFFIXES for path in root.rglob(f"*{suffix}.json") if not path.with_suffix("").exists()
    ]
    runs = [path for path in (root / ".runs").glob("*") if path.suffix != ".part" or path.stat().st_size]
    waiting = [*root.rglob("recipe.json.*"), *root.rglob(".calib.next.json")]
    found = [*root.rglob(f"{TEMPORARY_PREFIX}*"), *orphans, *runs, *waiting, *root.glob(".fit-*")]
    return sorted(path.relative_to(root).as_posix() for path in found)
