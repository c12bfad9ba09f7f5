"""The arrays of ``memory.npz`` for the images of its memory bank, besides the embeddings.

- ``thumbnails``, ``thumbnail_ends``: small encoded pictures, to show them.
- ``miniatures``, ``miniature_images``: 64 x 64 grey values and the numbers of their images, to find copies of them.
- ``honest_maps``, ``honest_map_images``: distance maps by the memory bank of the others, and the numbers of their
  images: an image can be scored again from them, within any mask and by any rule. Files of the contract profile and of
      earlier versions have none.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from backend.common.arrays import DistanceMap
from backend.common.errors import StorageError
from backend.common.files import open_to_read

Miniatures = Mapping[int, npt.NDArray[np.uint8]]
"""uint8 [64, 64] of images of a memory bank, by their number."""
HonestMaps = Mapping[int, DistanceMap]
"""float32 [rows, columns] of images of a memory bank, on its token grid, by their number."""
_MINIATURE_SIDE = 64

_Kept = TypeVar("_Kept")


def image_arrays(thumbnails: Sequence[bytes], miniatures: Miniatures, honest_maps: HonestMaps) -> dict[str, Any]:
    """The arrays of a file, by name; empty ones are left out.

    Args:
        thumbnails: of each image, in order; empty if there is none.
        miniatures, honest_maps: of some images.
    """
    arrays: dict[str, Any] = {}
    if any(thumbnails):
        arrays["thumbnails"] = np.frombuffer(b"".join(thumbnails), np.uint8)
        arrays["thumbnail_ends"] = np.cumsum([len(thumbnail) for thumbnail in thumbnails])
    if miniatures:
        arrays["miniatures"] = np.stack(list(miniatures.values()))
        arrays["miniature_images"] = np.array(list(miniatures), np.int64)
    if honest_maps:
        arrays["honest_maps"] = np.stack(list(honest_maps.values()))
        arrays["honest_map_images"] = np.array(list(honest_maps), np.int64)
    return arrays


def read_thumbnails(path: Path, memory_id: str) -> list[bytes]:
    """The thumbnails in a file, in the form for `image_arrays`; empty if none were kept, or if there is no file.

    Args:
        path: the file.
        memory_id: of their bank; those of another bank are not returned.

    Raises:
        StorageError: the file is damaged or cannot be read.
    """

    def read(arrays: Mapping[str, Any], _: Any) -> list[bytes]:
        parts = np.split(np.asarray(arrays["thumbnails"], np.uint8), arrays["thumbnail_ends"][:-1])
        return [part.tobytes() for part in parts]

    return _read(path, memory_id, "thumbnails", "thumbnails", read) or []


def read_miniatures(path: Path, memory_id: str) -> Miniatures:
    """The miniatures in a file; takes, returns and raises as `read_thumbnails`."""

    def read(arrays: Mapping[str, Any], _: Any) -> Miniatures:
        pictures, numbers = arrays["miniatures"], arrays["miniature_images"].tolist()
        if pictures.dtype != np.uint8 or pictures.shape != (len(numbers), _MINIATURE_SIDE, _MINIATURE_SIDE):
            raise ValueError("no miniatures")
        return dict(zip(numbers, pictures, strict=True))

    return _read(path, memory_id, "miniatures", "miniatures", read) or {}


def read_honest_maps(path: Path, memory_id: str) -> HonestMaps:
    """The honest distance maps in a file; takes, returns and raises as `read_thumbnails`."""

    def read(arrays: Mapping[str, Any], metadata: Any) -> HonestMaps:
        maps, numbers = arrays["honest_maps"], arrays["honest_map_images"].tolist()
        grid = int(arrays["token_h"]), int(arrays["token_w"])
        if maps.dtype != np.float32 or maps.shape != (len(numbers), *grid) or not np.isfinite(maps).all():
            raise ValueError("no distance maps")
        if not set(numbers) <= set(range(len(metadata["images"]))) or len(set(numbers)) < len(numbers):
            raise ValueError("maps of no images")
        return dict(zip(numbers, maps, strict=True))

    return _read(path, memory_id, "honest_maps", "honest distance maps", read) or {}


def _read(
    path: Path, memory_id: str, name: str, what: str, read: Callable[[Mapping[str, Any], Any], _Kept]
) -> _Kept | None:
    """The result of `read` for the arrays and the metadata of a file; None without an array `name` of this memory bank.

    Raises:
        StorageError: the file is damaged or cannot be read; the message names `what` it contains.
    """
    try:
        with open_to_read(path) as file, np.load(file, allow_pickle=False) as arrays:
            metadata = json.loads(str(arrays["metadata"])) if name in arrays else None
            return read(arrays, metadata) if metadata is not None and metadata["memory_id"] == memory_id else None
    except FileNotFoundError:
        return None
    except Exception as exc:  # numpy and zipfile raise whatever the bytes lead them to
        raise StorageError(f"the stored {what} are damaged: refit this ROI") from exc
