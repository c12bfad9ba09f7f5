"""Embeddings of a long fit, kept on disk so that it can go on where it was stopped."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from backend.common.errors import StorageError
from backend.common.files import make_folder, write_atomic
from backend.features import ExtractorIdentity


class Checkpoint:
    """One file of embeddings per image, named by the image's content, so that order and names of images do not matter.

    Args:
        folder: made when needed; nothing else may lie in it.
        identity: of the extractor; embeddings of another one are not found.
        bits: how many bits 16-bit images use; embeddings of images that were read otherwise are not found.
    """

    def __init__(self, folder: Path, identity: ExtractorIdentity, bits: int = 16) -> None:
        self._folder = folder
        read_as = {} if bits == 16 else {"bits": bits}  # as the folders of earlier versions are named
        self._extractor = json.dumps({**identity.as_dict(), **read_as}, sort_keys=True).encode()

    def get(self, image: bytes) -> npt.NDArray[np.float32] | None:
        """What was put for these image bytes, float32 [T, D]; None if that is nothing, or damaged."""
        try:
            return np.asarray(np.load(self._path(image), allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError, EOFError):  # not there, or cut short: the image is embedded again
            return None

    def put(self, image: bytes, embeddings: npt.NDArray[np.float32]) -> None:
        """Keep the embeddings of an image.

        Args:
            image: its encoded bytes.
            embeddings: float32 [T, D].

        Raises:
            StorageError: the folder cannot be written.
        """
        buffer = io.BytesIO()
        np.save(buffer, embeddings, allow_pickle=False)
        try:
            make_folder(self._folder)
            write_atomic({self._path(image): buffer.getvalue()})
        except OSError as exc:
            raise StorageError(f"the embeddings of a long fit cannot be kept ({exc.strerror})") from exc

    def remove(self) -> None:
        """Delete the folder: the fit is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, image: bytes) -> Path:
        return self._folder / f"{hashlib.sha256(self._extractor + image).hexdigest()}.npy"
