"""The honest distance maps that ``memory.npz`` keeps of its images: by the memory bank of the others.

From them an image of the fit can be scored anew, within any mask and by any rule. ``honest_maps`` holds the maps, and
``honest_map_images`` the numbers of their images; files of the contract's profile and of earlier versions have neither.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backend.common.arrays import DistanceMap
from backend.common.errors import StorageError
from backend.common.files import open_to_read

HonestMaps = Mapping[int, DistanceMap]
"""float32 [rows, columns] of images of a memory bank, on its token grid, by their number."""
_MAPS, _IMAGES = "honest_maps", "honest_map_images"


def honest_map_arrays(maps: HonestMaps) -> dict[str, Any]:
    """The arrays of a file, by name; none where there are no maps."""
    if not maps:
        return {}
    return {_MAPS: np.stack(list(maps.values())), _IMAGES: np.array(list(maps), np.int64)}


def read_honest_maps(path: Path, memory_id: str) -> HonestMaps:
    """The maps in a file, as `honest_map_arrays` takes them; nothing where none were kept, or there is no file.

    Args:
        path: the file.
        memory_id: of the bank that they belong to; those of another one are not returned.

    Raises:
        StorageError: the file is damaged or cannot be read.
    """
    try:
        with open_to_read(path) as file, np.load(file, allow_pickle=False) as arrays:
            metadata = json.loads(str(arrays["metadata"])) if _MAPS in arrays else {}
            if metadata.get("memory_id") != memory_id:
                return {}
            maps, numbers = arrays[_MAPS], arrays[_IMAGES].tolist()
            grid = int(arrays["token_h"]), int(arrays["token_w"])
            if maps.dtype != np.float32 or maps.shape != (len(numbers), *grid) or not np.isfinite(maps).all():
                raise ValueError("no distance maps")
            if not set(numbers) <= set(range(len(metadata["images"]))) or len(set(numbers)) < len(numbers):
                raise ValueError("maps of no images")
    except FileNotFoundError:
        return {}
    except Exception as exc:  # numpy and zipfile raise whatever the bytes lead them to
        raise StorageError("the stored honest distance maps are damaged: refit this ROI") from exc
    return dict(zip(numbers, maps, strict=True))
