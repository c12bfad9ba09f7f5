"""Embeddings of a long fit, kept on disk so that it can resume where it was stopped."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backend.bank.copies import SIDE, Look
from backend.common.errors import StorageError
from backend.common.files import make_folder, write_atomic
from backend.features import ExtractorIdentity

_LOOK = re.compile(rb"([0-9a-f]{64})(.{%d})" % SIDE**2, re.DOTALL)


class Kept(NamedTuple):
    """The stored embeddings of an image.

    Attributes:
        embeddings: float32 [T, D].
        look: None if an earlier version stored the embeddings.
    """

    embeddings: npt.NDArray[np.float32]
    look: Look | None


class Checkpoint:
    """One file of embeddings per image, named by the image's content, so that order and names of images do not matter.

    Args:
        folder: made when needed; it must not contain anything else.
        identity: of the extractor; embeddings of another one are not found.
        bits: how many bits 16-bit images use; embeddings with another number of bits are not found.
        tiles: numbers of the embedded tiles, if masks hide some; None is all.
    """

    def __init__(
        self, folder: Path, identity: ExtractorIdentity, bits: int = 16, tiles: Sequence[int] | None = None
    ) -> None:
        self._folder = folder
        read_as: dict[str, Any] = {} if bits == 16 else {"bits": bits}  # as the folders of earlier versions are named
        if tiles is not None:
            read_as["tiles"] = list(tiles)
        self._extractor = json.dumps({**identity.as_dict(), **read_as}, sort_keys=True).encode()

    def get(self, image: bytes) -> Kept | None:
        """The stored embeddings for these image bytes; None if there are none, or if they are damaged."""
        try:
            with self._path(image).open("rb") as file:
                embeddings = np.asarray(np.load(file, allow_pickle=False), dtype=np.float32)
                behind = file.read()
        except (OSError, ValueError, EOFError):  # not there, or cut short: the image is embedded again
            return None
        return Kept(embeddings, _look(behind))

    def put(self, image: bytes, kept: Kept) -> None:
        """Store the embeddings of an image, followed by its look, which earlier versions do not read.

        Args:
            image: its encoded bytes.
            kept: the data to store.

        Raises:
            StorageError: the folder cannot be written.
        """
        buffer = io.BytesIO()
        np.save(buffer, kept.embeddings, allow_pickle=False)
        if kept.look is not None:
            buffer.write(kept.look.pixels_sha256.encode() + kept.look.miniature.tobytes())
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


def _look(content: bytes) -> Look | None:
    found = _LOOK.fullmatch(content)
    if found is None:  # cut short, or of an earlier version
        return None
    return Look(found[1].decode(), np.frombuffer(found[2], np.uint8).reshape(SIDE, SIDE))
