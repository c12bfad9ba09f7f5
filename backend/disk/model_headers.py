"""Models without their embeddings: which model a ROI uses, and the header of its file, for lists of many ROIs."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path

from backend.common.errors import StorageError
from backend.common.roi_key import RoiKey
from backend.disk.calibration_file import read_calibration
from backend.disk.candidates import find_model
from backend.disk.fitted import CalibrationState, JudgedBy, calibrated_as, calibration_for
from backend.disk.layout import ModelFiles, current_files
from backend.disk.memory_cache import FileIdentity, identity_of
from backend.disk.memory_file import FORMAT_VERSION, Header, read_header

_MAX_KEPT = 10_000
_LARGE = ("images", "covering_radii")  # of the metadata; nobody asks a header for them


@dataclass(frozen=True)
class FoundHeader:
    """The model that a ROI uses, according to its header.

    Attributes:
        files: where it is.
        header: header of its file; ``images`` of the metadata are left out.
    """

    files: ModelFiles
    header: Header


class ModelHeaders:
    """Reads headers of the models below one folder; unchanged files are not read again. Thread-safe.

    Args:
        root: the models folder.
        blur_sigma: Gaussian σ of the maps that images are scored by, in pixels; see `applicable`.
    """

    def __init__(self, root: Path, blur_sigma: float) -> None:
        self._root = root
        self._blur_sigma = blur_sigma
        self._kept: OrderedDict[Path, tuple[FileIdentity, Header]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: RoiKey) -> FoundHeader | None:
        """The model that `ModelStore.load` would find; None if the ROI was never fitted.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            IncompatibleMemory: it was fitted for another ROI.
            StorageError: its file has a damaged header, cannot be read, or is of a newer version.
        """
        found = find_model(self._root, key, self._read)
        return None if found is None else FoundHeader(*found)

    def judged_by(self, key: RoiKey, found: FoundHeader) -> tuple[JudgedBy, CalibrationState] | None:
        """The calibration of a ROI, and its state.

        Args:
            key: the ROI.
            found: its model.

        Returns:
            None if the embeddings would be needed: for a model of an older backend with a calibration of this service.

        Raises:
            StorageError: the calibration is damaged or cannot be read.
        """
        files, memory_id = found.files, found.header.metadata.get("memory_id")
        if files.layout == "current" and isinstance(memory_id, str):
            calibration, state, calibrated = calibration_for(self._root, key, files, memory_id, self._blur_sigma)
            return JudgedBy(memory_id, calibration, calibrated), state
        own = current_files(self._root, calibrated_as(key, files.key)).calibration
        if own != files.calibration and own.exists():
            return None
        beside = read_calibration(files.calibration)
        if beside is not None and beside.memory_id is not None:
            return None
        return JudgedBy("", beside, files.key), "applied" if beside else "none"

    def _read(self, path: Path) -> Header | None:
        header = self._kept_or_read(path)
        if header is not None and header.version is not None and header.version > FORMAT_VERSION:
            raise StorageError(
                f"the stored memory has format version {header.version}, newer than this service: update or refit"
            )
        return header

    def _kept_or_read(self, path: Path) -> Header | None:
        try:
            identity = identity_of(path.stat())
        except OSError:  # as a rule there is none; where there is, reading it says what is wrong
            identity = None
        with self._lock:
            kept = self._kept.get(path)
            if kept is not None and kept[0] == identity:
                self._kept.move_to_end(path)
                return kept[1]
        header = read_header(path)
        if header is None:
            return None
        few = {name: value for name, value in header.metadata.items() if name not in _LARGE}
        header = replace(header, metadata=few)
        if identity is not None:
            with self._lock:
                self._kept[path] = identity, header
                while len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
        return header
