"""Models on disk: ``memory.npz``, ``index.faiss`` and ``calib.json`` in a folder that `layout` names.

A fit replaces ``memory.npz`` in one rename, so a reader or a crash sees the old model or the new one. Everything else
is checked against it: the index is rebuilt if it is missing, stale or damaged, and a calibration names the memory bank
of its scores. Earlier versions of a model are kept, see `versions`. Layouts of older backends are read, but never
written. The contents of files are defined in `memory_file` and `calibration_file`.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from backend.block_memory import Memory
from backend.calib import Calibration
from backend.common.config import KEEP_VERSIONS
from backend.common.errors import IncompatibleMemory, InvalidRequest, StaleModel, StorageError
from backend.common.files import write_atomic
from backend.common.roi_key import RoiKey
from backend.disk import history
from backend.disk.calibration_file import calibration_bytes, read_calibration
from backend.disk.calibration_inputs import CalibrationInputs, with_inputs
from backend.disk.candidates import candidates, find_model
from backend.disk.fitted import (
    FittedRoi,
    JudgedBy,
    calibrated_as,
    calibration_for,
    inputs_of,
    refuse_if_calibrated_since,
)
from backend.disk.image_arrays import HonestMaps, Miniatures, read_honest_maps, read_miniatures, read_thumbnails
from backend.disk.layout import CALIBRATION_FILE, ModelFiles, current_files
from backend.disk.memory_cache import FileIdentity, MemoryCache, identity_of
from backend.disk.memory_file import (
    StoredMemory,
    memory_bytes,
    memory_id,
    summarise,
    written_memory_id,
)
from backend.disk.model_writer import ModelWriter
from backend.disk.name_clashes import refuse_clashes
from backend.disk.path_lengths import refuse_long_paths
from backend.disk.rollback import restore_model
from backend.disk.stale import StaleCalibrations
from backend.disk.versions import Change, Version

log: Any = structlog.get_logger(__name__)


class ModelStore:
    """Reads and writes the models below one folder. Several processes may share it.

    Args:
        root: the models folder; created at the first write.
        keep_versions: how many versions are kept of each model; 0 keeps none.
        blur_sigma: Gaussian σ of the maps that images are scored by; a calibration of other scores is not applied. None
            applies every calibration.
    """

    def __init__(self, root: Path, keep_versions: int = KEEP_VERSIONS, blur_sigma: float | None = None) -> None:
        self._root = root
        self._blur_sigma = blur_sigma
        self._cache = MemoryCache()
        self._writer = ModelWriter(root, keep_versions, self._cache)
        self._stale = StaleCalibrations(root, blur_sigma)

    def memory_id(self, key: RoiKey) -> str | None:
        """Identity of the ROI's memory bank, whatever its calibration; None if the ROI was never fitted.

        Raises:
            InvalidRequest, IncompatibleMemory, StorageError: as `load`.
        """
        found = self._find(key)
        return found[1].memory_id if found else None

    def load(self, key: RoiKey, *, with_calibration: bool = True) -> FittedRoi | None:
        """Read the model of a ROI; unchanged files come from memory.

        Args:
            key: the ROI.
            with_calibration: False does not read the calibration, because the caller will replace it.

        Returns:
            None if the ROI was never fitted.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            IncompatibleMemory: the embeddings are not L2-normalised, or another ROI's.
            StorageError: files are damaged or cannot be read.
        """
        while (found := self._find(key)) is not None:
            files, loaded = found
            calibration, state, calibrated = (
                calibration_for(self._root, key, files, loaded.memory_id, self._blur_sigma)
                if with_calibration
                else (None, "none", files.key)
            )
            # Between the two reads another model and its calibration may have come: then this was never what there is.
            # Only a calibration that goes before all others tells that it was so when it was read.
            own = calibrated_as(key, files.key).owner
            is_first = state == "applied" and files.layout == "current" and calibrated == own
            if is_first or not with_calibration or self._is_found(key, files, loaded.memory_id):
                ids = files.key, files.layout
                return FittedRoi(loaded.memory, loaded.memory_id, loaded.metadata, *ids, calibration, state, calibrated)
        return None

    def judged_by(self, key: RoiKey) -> JudgedBy | None:
        """The model and calibration of a ROI, as in `load`, but without embeddings.

        Returns:
            None if the ROI was never fitted.

        Raises:
            InvalidRequest, IncompatibleMemory, StorageError: as `load`.
        """
        for files in candidates(self._root, key):
            if files.layout != "current":
                break
            memory = summarise(files.memory)
            if memory is not None and memory.owner in (None, files.key):
                memory_id = memory.facts["memory_id"]
                calibration, _, calibrated = calibration_for(self._root, key, files, memory_id, self._blur_sigma)
                return JudgedBy(memory_id, calibration, calibrated)
            if files.memory.exists():
                break
        fitted = self.load(key)
        return JudgedBy(fitted.memory_id, fitted.calibration, fitted.calibrated) if fitted else None

    def check_savable(self, key: RoiKey) -> None:
        """Refuse at once what `save_memory` would refuse after a long fit.

        Raises:
            InvalidRequest: the ids are too long for a file name or a path, or the file system confuses them with those
                of another ROI.
            StorageError: the folder cannot be written, or its file system is read-only.
        """
        files = current_files(self._root, key)
        refuse_long_paths(files.memory.parent)
        refuse_clashes(self._root, files.memory.parent)
        there = next((folder for folder in files.memory.parents if os.path.exists(folder)), None)  # noqa: PTH110  (what nobody may see counts as missing)
        if there is not None and not os.access(there, os.W_OK):
            raise StorageError("the model cannot be stored (its folder cannot be written); check the models folder")
        try:
            stored = self._cache.read(files.memory)
        except (StorageError, IncompatibleMemory):  # a fit is what mends it
            return
        owner = stored.owner if stored else None
        if owner is not None and owner != key.owner and str(owner).casefold() == str(key.owner).casefold():
            raise InvalidRequest(
                f"{key} and the stored {owner} differ only in upper and lower case, which the file system of "
                "MODELS_DIR does not distinguish: use other ids"
            )

    def save_memory(
        self,
        key: RoiKey,
        memory: Memory,
        metadata: dict[str, Any],
        *,
        thumbnails: Sequence[bytes] = (),
        miniatures: Miniatures | None = None,
        honest_maps: HonestMaps | None = None,
        instead_of: FittedRoi | None = None,
        calibration: Calibration | None = None,
        inputs: CalibrationInputs | None = None,
    ) -> str:
        """Replace the memory bank of a ROI, and keep the previous model.

        Nothing changes unless everything can be written.

        With a calibration, both change in one step: a reader or a crash sees both old or both new. If the embeddings
        stay the same, a crash may leave the old metadata beside the new calibration.

        Args:
            key: the ROI.
            memory: its new memory bank.
            metadata: which images may be compared with it, and what it was built from; JSON values.
            thumbnails: small encoded pictures of the images it was built from, in order; empty if there is none.
            miniatures, honest_maps: of these images.
            instead_of: the model that the new one was made from; None replaces any.
            calibration: of the new memory bank, made from that of `instead_of`; None does not change it.
            inputs: the scores of the calibration.

        Returns:
            Identity of the memory bank.

        Raises:
            InvalidRequest: as `check_savable`.
            StaleModel: the model or the calibration of the ROI is no longer `instead_of`; nothing was written.
            StorageError: the folder cannot be written.
        """
        files, identity = current_files(self._root, key), memory_id(memory)
        ids = {name: value for name, value in asdict(files.key).items() if value is not None}
        told = {**ids, **metadata, "memory_id": identity}
        content = memory_bytes(memory, told, thumbnails, miniatures or {}, honest_maps or {})
        change: Change = "fit" if instead_of is None else "append" if calibration is None else "feedback"
        with self._writer.replacing(files, change):
            if instead_of is not None:
                found = self._find(key, repair=False)
                # One that was appended to may have the same bank, and know of more images.
                now = None if found is None else (found[1].memory_id, found[1].metadata)
                if now != (instead_of.memory_id, instead_of.metadata):
                    raise StaleModel(f"{key} was fitted anew meanwhile; nothing was stored: append again")
                if calibration is not None and found is not None:
                    refuse_if_calibrated_since(self._root, key, found[0], instead_of, self._blur_sigma)
            encoded = None if calibration is None else calibration_bytes(calibration)
            is_same_bank = instead_of is not None and identity == instead_of.memory_id
            self._writer.write(files, memory, content, encoded, inputs, is_same_bank=is_same_bank)
            history.set_aside_if_damaged(files.calibration)
        return identity

    def file_identity(self, key: RoiKey) -> FileIdentity | None:
        """A value that differs for each file of the ROI's own memory bank; None if there is none.

        Raises:
            InvalidRequest: the ids are too long for a file name.
            OSError: the file cannot be examined.
        """
        try:
            return identity_of(current_files(self._root, key).memory.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def thumbnails(self, fitted: FittedRoi) -> list[bytes]:
        """Small encoded pictures of the images that a model was built from, in order; see `save_memory`.

        Returns:
            Empty if none were kept, or if the model was replaced since.

        Raises:
            StorageError: the file is damaged or cannot be read.
        """
        if fitted.layout != "current":
            return []
        return read_thumbnails(current_files(self._root, fitted.key).memory, fitted.memory_id)

    def miniatures(self, fitted: FittedRoi) -> Miniatures:
        """Miniatures of the images that a model was built from; returns nothing, and raises, as `thumbnails` does."""
        files = current_files(self._root, fitted.key)
        return read_miniatures(files.memory, fitted.memory_id) if fitted.layout == "current" else {}

    def honest_maps(self, fitted: FittedRoi) -> HonestMaps:
        """Honest distance maps of the images of a model; returns nothing, and raises, as `thumbnails` does."""
        files = current_files(self._root, fitted.key)
        return read_honest_maps(files.memory, fitted.memory_id) if fitted.layout == "current" else {}

    def save_calibration(
        self,
        key: RoiKey,
        calibration: Calibration,
        inputs: CalibrationInputs | None = None,
        *,
        instead_of: FittedRoi | None = None,
    ) -> None:
        """Replace the calibration of a ROI, and keep the model with the previous one.

        A model of the default recipe that serves another recipe keeps its own calibration.

        Args:
            key: the ROI.
            calibration: its new calibration.
            inputs: the scores of the calibration; stored beside it.
            instead_of: the model whose calibration it was made from; None replaces any.

        Raises:
            InvalidRequest: as `check_savable`.
            IncompatibleMemory: as `load`.
            StaleModel: the calibration belongs to another memory bank, or the calibration of the ROI is no longer that
                of `instead_of`; nothing was written.
            StorageError: the folder cannot be written.
        """
        found = self._find(key)
        files = current_files(self._root, calibrated_as(key, found[0].key) if found else key)
        content = calibration_bytes(calibration)
        with self._writer.replacing(files, "calibrate" if instead_of is None else "feedback"):
            # Asked again under the lock: an older calibration must not replace that of a newer fit.
            found = self._find(key, repair=False)
            if (found[1].memory_id if found else None) != calibration.memory_id:
                raise StaleModel(
                    f"{key} was fitted anew since it was scored; nothing was stored: score and calibrate again"
                )
            if instead_of is not None and found is not None:
                refuse_if_calibrated_since(self._root, key, found[0], instead_of, self._blur_sigma)
            write_atomic(with_inputs(files.calibration, content, inputs))

    def calibration_inputs(self, fitted: FittedRoi) -> CalibrationInputs | None:
        """The scores of the calibration of a model; returns and raises as `inputs_of`."""
        return inputs_of(self._root, fitted)

    def versions(self, key: RoiKey) -> list[tuple[Version, Calibration | None]]:
        """The earlier versions of the ROI's own model, each with its calibration; the newest first.

        Raises:
            InvalidRequest: as `check_savable`.
        """
        files, found = current_files(self._root, key), []
        refuse_clashes(self._root, files.memory.parent)
        for version in history.replaced(files):
            calibration = None
            with contextlib.suppress(StorageError):  # a damaged one, which rolling back to it will say
                calibration = read_calibration(version.folder / CALIBRATION_FILE)
            found.append((version, calibration))
        return found

    def roll_back(
        self, key: RoiKey, version: int | None = None, *, accept: Callable[[Version, FittedRoi], None] | None = None
    ) -> tuple[Version, FittedRoi]:
        """Restore an earlier version of the ROI's own model, with the calibration that it had, or without any.

        This is a change too: the replaced model is kept as the newest version. It takes hardly any disk space. A crash
        at any moment leaves one of the two models, as it was served.

        Args:
            key: the ROI.
            version: its number; None is the newest that is not damaged. The version stays until the next change, so
                that a call can be repeated.
            accept: called with the model that will be served, before anything changes; may raise.

        Returns:
            The version, and the model that is served now.

        Raises:
            InvalidRequest: as `check_savable`.
            VersionNotFound: there is no such version.
            Conflict: the ROI has no model of its own, and uses that of another ROI.
            IncompatibleMemory: the version is another ROI's, or its embeddings are not L2-normalised.
            StorageError: the version is damaged, or the folder cannot be written; parts are judged as before.
        """
        files = current_files(self._root, key)
        refuse_clashes(self._root, files.memory.parent)
        chosen = history.choose(key, files, version, self._find)  # before a folder is made for it
        kept = [chosen, *(history.replaced(files)[1:] if version is None else [])]
        # Read before anything changes: a change leaves this one and the last few, whatever becomes of it.
        number = history.first_readable(kept, files.key, self._blur_sigma).number
        with self._writer.replacing(files, "rollback", spare=number):
            chosen = history.choose(key, files, number, self._find)
            fitted = history.read_version(chosen, files.key, self._blur_sigma)
            if accept is not None:
                accept(chosen, fitted)
            before = written_memory_id(files.memory)
            try:
                restore_model(files, chosen, with_calibration=fitted.calibration_state != "none")
            finally:
                self._cache.forget(files.memory)  # so that the next load compares the index with the memory
            identity = identity_of(files.memory.stat())
            log.info(
                "model.rolled_back",
                **{name: value for name, value in asdict(files.key).items() if value is not None},
                version=chosen.number,
                kept_at_utc=chosen.facts.kept_at_utc,
                memory_id=fitted.memory_id,
                memory_id_before=before,
                threshold=fitted.calibration.threshold if fitted.calibration else None,
            )
        self._cache.repair_index(files.memory, identity, fitted.memory)
        return chosen, fitted

    def count_stale(self) -> int:
        """How many calibrations of this service no longer match the current scores, or are damaged.

        Raises:
            OSError: files cannot be read.
        """
        return self._stale.count()

    def stale_in_recipes(self, key: RoiKey) -> list[RoiKey]:
        """The ROIs that use this model of the default recipe and have a stale calibration of their own.

        Raises:
            OSError: files cannot be read.
        """
        return self._stale.in_recipes(key)

    def count_fitted(self) -> int:
        """How many memory banks are stored, in this layout and in older ones."""
        current = ("*/*/memory.npz", "@recipes/*/models/*/*/*/memory.npz")
        patterns = (*current, "recipes/*/*/*__*.npz", "*.npz")
        return sum(1 for pattern in patterns for _ in self._root.glob(pattern))

    def _find(self, key: RoiKey, *, repair: bool = True) -> tuple[ModelFiles, StoredMemory] | None:
        return find_model(self._root, key, partial(self._cache.read, repair=repair))

    def _is_found(self, key: RoiKey, files: ModelFiles, memory_id: str) -> bool:
        """Whether a model that was found still exists."""
        if files.layout != "current" and not any(
            ours.memory.exists() for ours in candidates(self._root, key, older=False)
        ):
            loaded = self._cache.read(files.memory)  # nobody writes others that would come before it
            return loaded is not None and loaded.memory_id == memory_id
        found = self._find(key)
        return found is not None and (found[0].memory, found[1].memory_id) == (files.memory, memory_id)
