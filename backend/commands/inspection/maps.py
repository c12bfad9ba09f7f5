"""Distance maps of inspected images, kept in files so that the same command can resume."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from backend.bank.copies import Look
from backend.bit_depth import BitDepth
from backend.common.arrays import DistanceMap
from backend.common.errors import StorageError
from backend.common.files import make_folder, write_atomic
from backend.disk.fitted import FittedRoi
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

_MEMBERS = ("distances", "image_hw", "pixels_sha256", "miniature", "warning")


@dataclass(frozen=True)
class ImageMap:
    """The map of an image.

    Attributes:
        distances: float32 [rows, columns] of the token grid.
        image_hw: its size (rows, columns) in pixels.
        look: identity of its pixels, and the data to find near copies.
        warning: a warning about the reading of its pixels.
    """

    distances: DistanceMap
    image_hw: tuple[int, int]
    look: Look
    warning: str | None


@dataclass(frozen=True)
class Maps:
    """Makes the maps of images with a model, or reads those of an earlier run.

    Attributes:
        folder: keeps them, one file for each image.
        service: makes them.
        fitted: the model.
    """

    folder: Path
    service: InspectionService
    fitted: FittedRoi

    def of(self, image: NamedImage) -> ImageMap:
        """The map of an image; the caller holds an `inference_slot`.

        Raises:
            InvalidImage, UnsupportedImage, TooLarge: see `check_image` and `decode`.
            StorageError: it cannot be written.
        """
        content = image.read()
        # The bank decides the distances, and the hash of the file all else.
        name = hashlib.sha256(f"{self.fitted.memory_id} {hashlib.sha256(content).hexdigest()}".encode()).hexdigest()
        path = self.folder / f"{name}.npz"
        return _read(path, self.fitted.memory.token_hw) or self._make(NamedImage(image.title, lambda: content), path)

    def _make(self, image: NamedImage, path: Path) -> ImageMap:
        service, memory = self.service, self.fitted.memory
        features = service.features_of(self.fitted.profile, self.fitted.detail)
        with service.pixels_of(image, self.fitted.detail):
            pixels, warning = service.decode(image, BitDepth.of(self.fitted.metadata))
            tokens, token_hw = features.extract(pixels, partial(service.queue.infer, forward=features.runtime.forward))
            made = ImageMap(
                memory.distances(tokens).reshape(token_hw),
                (pixels.shape[0], pixels.shape[1]),
                Look.of(pixels),
                warning,
            )
        buffer = io.BytesIO()
        np.savez(
            buffer,
            distances=made.distances,
            image_hw=np.array(made.image_hw),
            pixels_sha256=np.array(made.look.pixels_sha256),
            miniature=made.look.miniature,
            warning=np.array(made.warning or ""),
        )
        try:
            make_folder(self.folder)
            write_atomic({path: buffer.getvalue()}, durable=False)
        except OSError as exc:
            raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc
        return made


def _read(path: Path, token_hw: tuple[int, int]) -> ImageMap | None:
    """A map of an earlier run; None if there is none, or if the file is damaged and must be made again."""
    try:
        with np.load(path, allow_pickle=False) as file:
            distances, image_hw, pixels_sha256, miniature, warning = (file[name] for name in _MEMBERS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if distances.shape != token_hw or distances.dtype != np.float32 or image_hw.shape != (2,):
        return None
    look = Look(str(pixels_sha256), miniature)
    return ImageMap(distances, (int(image_hw[0]), int(image_hw[1])), look, str(warning) or None)
