"""``memory.npz``: a memory bank as a file, with what the fit recorded about it.

The path of the file is defined in `storage`.
"""

import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from backend.block_memory import BlockMemory, Memory
from backend.common.errors import DamagedMemory, IncompatibleMemory, StorageError
from backend.common.files import open_to_read
from backend.common.machine import free_memory
from backend.common.roi_key import RoiKey
from backend.disk.block_arrays import block_arrays, read_blocks
from backend.disk.image_arrays import HonestMaps, Miniatures, image_arrays
from backend.patchcore import PatchCoreMemory

FORMAT_VERSION = 1
# A bank is read, indexed and serialised; unit vectors do not compress, and nothing else in the file is large.
_COPIES_OF_BANK = 4
_MOST_COMPRESSED = 4
_SMALL_PARTS_BYTES = 1 << 20
_IDS = ("role_id", "roi_id", "recipe_id", "model_key")


@dataclass(frozen=True)
class StoredMemory:
    """The contents of a file.

    Attributes:
        memory: the memory bank.
        memory_id: hash of its embeddings.
        metadata: what the fit recorded about it; empty in files of older backends.
        version: of the format; None in files of older backends.
    """

    memory: Memory
    memory_id: str
    metadata: dict[str, Any]
    version: int | None

    @property
    def owner(self) -> RoiKey | None:
        """The ROI that it was fitted for; None if the file does not state it."""
        return _owner(self.metadata)


@dataclass(frozen=True)
class Summary:
    """The facts from a small part of a file.

    Attributes:
        owner: see `StoredMemory`.
        facts: the facts of `versions.Record` about a memory bank, by name.
    """

    owner: RoiKey | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Header:
    """The header of a file about its memory bank, before the embeddings, by any backend.

    Attributes:
        metadata, version: see `StoredMemory`.
        shape: of the embeddings (embeddings, numbers in each); for several blocks, those of the last.
        token_hw: token grid (rows, columns).
    """

    metadata: dict[str, Any]
    version: int | None
    shape: tuple[int, int]
    token_hw: tuple[int, int]

    @property
    def owner(self) -> RoiKey | None:
        """See `StoredMemory`."""
        return _owner(self.metadata)


def memory_id(memory: Memory) -> str:
    """Identity of a memory bank: the first 32 hexadecimal digits of the sha256 of its embeddings and grid.

    For several blocks: that of the embeddings of each block, with their landings.
    """
    digest = hashlib.sha256(repr((memory.embeddings.shape, memory.token_hw)).encode())
    digest.update(np.ascontiguousarray(memory.embeddings).data)
    if isinstance(memory, BlockMemory):
        for bank, landings in zip(memory.banks, memory.landings, strict=True):
            for array in (bank.embeddings, landings.count, landings.total):
                digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def memory_bytes(
    memory: Memory,
    metadata: dict[str, Any],
    thumbnails: Sequence[bytes],
    miniatures: Miniatures,
    honest_maps: HonestMaps,
) -> bytes:
    """The file of a memory bank.

    Args:
        memory: the memory bank.
        metadata: its description; JSON values.
        thumbnails, miniatures, honest_maps: of its images, see `image_arrays`.
    """
    extra: dict[str, Any] = {}
    if memory.patches is not None:
        extra["patches"] = memory.patches
    extra |= image_arrays(thumbnails, miniatures, honest_maps)
    if isinstance(memory, BlockMemory):
        extra |= block_arrays(memory)
    buffer = io.BytesIO()
    np.savez(
        buffer,
        emb=memory.embeddings,
        token_h=np.int64(memory.token_hw[0]),
        token_w=np.int64(memory.token_hw[1]),
        version=np.int64(FORMAT_VERSION),
        metadata=np.array(json.dumps(metadata, sort_keys=True)),
        **extra,
    )
    return buffer.getvalue()


def check_sizes(file: BinaryIO, name: str) -> None:
    """Refuse a bank whose unpacked size, according to the file, does not fit into memory.

    Args:
        file: a file on disk, at its beginning.
        name: for messages.

    Raises:
        BadZipFile, DamagedMemory: it is not a memory bank.
        StorageError: it is too large for the free memory.
    """
    unpacked = _unpacked_bytes(file, name)
    needed, free = _COPIES_OF_BANK * unpacked, free_memory()
    if needed > free:
        raise StorageError(
            f"the stored {name} does not fit into memory: it takes {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} "
            "MB are free; free memory or refit this ROI on fewer images"
        )


def _unpacked_bytes(file: BinaryIO, name: str) -> int:
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    if unpacked > _MOST_COMPRESSED * os.fstat(file.fileno()).st_size + _SMALL_PARTS_BYTES:
        raise DamagedMemory(f"the stored {name} is damaged: refit this ROI")
    file.seek(0)
    return unpacked


def read_memory(file: BinaryIO, name: str) -> StoredMemory:
    """Read a memory bank.

    Args:
        file: a file on disk, at its beginning.
        name: for messages.

    Raises:
        DamagedMemory: it is not a valid memory bank.
        IncompatibleMemory: the embeddings are not L2-normalised.
        StorageError: a newer version of this service wrote it, or it is too large for the free memory.
    """
    try:
        check_sizes(file, name)
        with np.load(file, allow_pickle=False) as arrays:
            embeddings = np.ascontiguousarray(arrays["emb"])
            token_hw = (int(arrays["token_h"]), int(arrays["token_w"]))
            version = int(arrays["version"]) if "version" in arrays else None
            metadata = json.loads(str(arrays["metadata"])) if version is not None else {}
            if not isinstance(metadata, dict):
                raise TypeError("metadata is not a JSON object")
            n_patches = len(metadata["images"]) * token_hw[0] * token_hw[1] if "images" in metadata else None
            patches = None
            if "patches" in arrays and n_patches is not None:
                patches = _checked_patches(arrays["patches"], embeddings, n_patches)
            blocks = read_blocks(arrays, n_patches) if "blocks" in arrays else None
    except StorageError:
        raise
    except Exception as exc:  # numpy and zipfile raise whatever the bytes lead them to: zlib.error, KeyError, …
        raise DamagedMemory(f"the stored {name} is damaged: refit this ROI") from exc
    if version is not None and version > FORMAT_VERSION:
        raise StorageError(f"the stored memory has format version {version}, newer than this service: update or refit")
    if embeddings.ndim != 2 or embeddings.size == 0 or embeddings.dtype != np.float32:
        raise DamagedMemory(f"the stored {name} holds no float32 embeddings [M, D]: refit this ROI")
    norms = np.linalg.norm(embeddings, axis=1)
    if not np.all(np.abs(norms - 1) < 1e-3):
        raise IncompatibleMemory(f"refit needed: the stored {name} holds embeddings that are not L2-normalised")
    last = PatchCoreMemory(embeddings, token_hw, patches)
    memory: Memory = last
    if blocks is not None:
        banks = [PatchCoreMemory(bank, token_hw, picked) for bank, picked in blocks.earlier]
        memory = BlockMemory((*banks, last), blocks.landings)
    return StoredMemory(memory, memory_id(memory), metadata, version)


def _checked_patches(patches: Any, embeddings: Any, n_patches: int) -> Any:
    if patches.shape != embeddings.shape[:1] or patches.dtype != np.int64:
        raise ValueError("not one patch for each embedding")
    if patches.min() < -1 or patches.max() >= n_patches:
        raise ValueError("a patch of no image")
    return patches


def written_memory_id(path: Path) -> str | None:
    """The identity that a file states for its memory bank; None in files of older backends, and in damaged ones."""
    summary = summarise(path)
    return summary.facts["memory_id"] if summary else None


def read_header(path: Path) -> Header | None:
    """The header of a file, without reading its embeddings, so that damage in them is not noticed. None without a file.

    Raises:
        DamagedMemory: it is not a valid memory bank.
        StorageError: it cannot be read.
    """
    try:
        with open_to_read(path) as file:
            return _header(file, path.name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        if exc.errno in (errno.ENAMETOOLONG, errno.EINVAL):  # an id that no older backend could store
            return None
        raise StorageError(f"the stored memory cannot be read ({exc.strerror}); check the models folder") from exc
    except Exception as exc:  # numpy and zipfile raise whatever the bytes lead them to: zlib.error, KeyError, …
        raise DamagedMemory(f"the stored {path.name} is damaged: refit this ROI") from exc


def _header(file: BinaryIO, name: str) -> Header:
    _unpacked_bytes(file, name)
    arrays = np.load(file, allow_pickle=False)
    version = int(arrays["version"]) if "version" in arrays else None
    metadata = json.loads(str(arrays["metadata"])) if version is not None else {}
    if not isinstance(metadata, dict):
        raise TypeError("metadata is not a JSON object")
    with arrays.zip.open("emb.npy") as embeddings:  # of which only the header is read
        np.lib.format.read_magic(embeddings)
        (n_rows, dim), *_ = np.lib.format.read_array_header_1_0(embeddings)
    return Header(metadata, version, (int(n_rows), int(dim)), (int(arrays["token_h"]), int(arrays["token_w"])))


def summarise(path: Path) -> Summary | None:
    """The facts of a file without its embeddings; None if there is no file of this service, or if it is damaged."""
    try:
        header = read_header(path)
        if header is None or header.version is None:
            return None
        metadata = header.metadata
        facts = {
            "memory_id": str(metadata["memory_id"]),
            "coreset_size": header.shape[0],
            **{name: metadata[name] for name in ("n_embeddings", "n_images") if type(metadata.get(name)) is int},
        }
        return Summary(header.owner, facts)
    except (StorageError, KeyError):  # of an older backend, or damaged: see `read_memory`
        return None


def _owner(metadata: dict[str, Any]) -> RoiKey | None:
    ids = {name: str(metadata[name]) for name in _IDS if metadata.get(name) is not None}
    return RoiKey(**ids) if {"role_id", "roi_id"} <= ids.keys() else None
