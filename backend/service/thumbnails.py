"""Small pictures of stored images, for pages with many images; they are not used for judgements."""

import threading

from backend.bank.images import thumbnail
from backend.bit_depth import settle
from backend.common.errors import InvalidImage
from backend.disk.datasets import Sample
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

# Changes when the same image and size give another picture.
_EDITION = 1
# A page asks for many at once: they take one core at most from inferences.
_one_at_a_time = threading.Lock()


def thumbnail_identity(sample: Sample, side: int) -> str:
    """The identity of the thumbnail, which changes with the size and with the file of the image, in ASCII.

    Raises:
        InvalidImage: the image was deleted since, or cannot be read.
    """
    try:
        status = sample.path.stat()
    except OSError as exc:
        raise InvalidImage(f"{sample.title}: the stored image cannot be read ({exc.strerror})") from exc
    return f"{_EDITION}-{status.st_mtime_ns:x}-{status.st_size:x}-{side}"


def thumbnail_of(service: InspectionService, sample: Sample, side: int) -> bytes:
    """A JPEG of a stored image; an image of 16 bits is shown with the bits that it uses.

    Args:
        service: reserves memory for its pixels.
        sample: the image.
        side: maximum number of pixels of its longer side; a smaller image is not enlarged.

    Raises:
        InvalidImage, UnsupportedImage, TooLarge: see `bit_depth.decode`.
    """
    with _one_at_a_time:
        content = sample.read()
        image = NamedImage(sample.name, lambda: content, sample.uploaded_as)
        depth = settle([image], service.limits, service.pixels_of)
        with service.pixels_of(image):
            pixels, _ = service.decode(image, depth)
            return thumbnail(pixels, side)
