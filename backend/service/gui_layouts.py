"""Pictures that a GUI keeps with its layout: checked before they are stored."""

from backend.common.errors import UnsupportedImage
from backend.common.image_headers import image_suffix
from backend.disk import gui_layouts
from backend.disk.gui_layouts import etag_of
from backend.service.inspection import InspectionService
from backend.utils import ImageLimits, check_image, decode_image

__all__ = ["MAX_LAYOUT_BYTES", "MAX_PICTURES", "MAX_PICTURE_BYTES", "etag_of", "media_type", "store_picture"]

MAX_LAYOUT_BYTES = gui_layouts.MAX_LAYOUT_BYTES
MAX_PICTURE_BYTES = gui_layouts.MAX_PICTURE_BYTES
MAX_PICTURES = gui_layouts.MAX_PICTURES
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def media_type(content: bytes) -> str:
    """The type of a picture that `store_picture` stored.

    Raises:
        UnsupportedImage: it is neither PNG nor JPEG.
    """
    known = _MEDIA_TYPES.get(image_suffix(content))
    if known is None:
        raise UnsupportedImage("the picture of a layout must be a PNG or JPEG")
    return known


def store_picture(service: InspectionService, recipe_id: str, name: str, content: bytes) -> None:
    """Store a picture of a layout under a name; a picture with this name is replaced.

    Args:
        service: whose limits and stores apply.
        recipe_id: the recipe.
        name: name of the picture.
        content: content of its file.

    Raises:
        InvalidImage, UnsupportedImage: it is damaged; it is neither PNG nor JPEG.
        InvalidRequest, TooLarge, StorageError: see `GuiLayoutStore.write_picture`.
    """
    limits = ImageLimits(MAX_PICTURE_BYTES, service.settings.max_pixels)
    width, height = check_image(content, name, limits)
    media_type(content)
    with service.hold_pixels(width * height):
        decode_image(content, name, limits)
    service.layouts.write_picture(recipe_id, name, content)
