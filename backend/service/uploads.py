"""The use case of storing images: check all, compare them with the stored ones, and then store them. No HTTP."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from backend.bit_depth import whole_pixels_sha256
from backend.common.errors import Conflict, InvalidImage, InvalidRequest
from backend.common.files import read_whole
from backend.common.image_headers import image_suffix
from backend.common.roi_key import RoiKey
from backend.disk.datasets import Label, NewSample
from backend.disk.sample_facts import PIXELS, facts_of
from backend.service.datasets import scale_of
from backend.service.inspection import InspectionService
from backend.utils import NamedImage, named_with, utc_now

# How long an upload looks at stored images that nobody knows the pixels of yet: those of earlier versions.
_COMPARES_FOR_S = 0.5
_MOST_NAMED = 3


@dataclass(frozen=True)
class Uploaded:
    """The result for one uploaded image.

    Attributes:
        name: its name in the data set; None if it was not stored.
        uploaded_as: original name; None if its metadata has no name that a request could use.
        duplicate_of: name of an image of its class with the same pixels; None if none is known.
        duplicate_uploaded_as: original name of that image; None if unknown.
    """

    name: str | None
    uploaded_as: str | None
    duplicate_of: str | None
    duplicate_uploaded_as: str | None


@dataclass(frozen=True)
class Upload:
    """The result for all uploaded images.

    Attributes:
        images: in the order of the upload.
        n_not_compared: stored images of the ROI that could not be compared with them in time.
        warning: a warning if some are also stored in the other class.
    """

    images: list[Uploaded]
    n_not_compared: int
    warning: str | None


def store_images(
    service: InspectionService,
    key: RoiKey,
    label: Label,
    images: list[NamedImage],
    metas: list[dict[str, Any]],
    *,
    skip_duplicates: bool = False,
) -> Upload:
    """Check all images, then store them.

    Args:
        service: whose limits and stores apply.
        key: the ROI.
        label: their class.
        images: at least one.
        metas: metadata of each image, or nothing.
        skip_duplicates: do not store images whose pixels are already stored in the class.

    Raises:
        InvalidRequest: no image, another number of metas, or a scale out of range.
        InvalidImage, UnsupportedImage, TooLarge: see `decode_image`.
        Conflict: the recipe is locked to another scale.
        StorageError: they cannot be written.
    """
    if not images:
        raise InvalidRequest("no images: send at least one in the file field 'images'")
    if metas and len(metas) != len(images):
        raise InvalidRequest(f"{len(metas)} metas for {len(images)} images: send one for each, or none")
    scales = [scale for scale in map(scale_of, metas) if scale is not None]
    if key.recipe_id is not None and len(set(scales)) > 1:
        raise Conflict(
            f"the images have different mm_per_px ({min(scales):g} to {max(scales):g}), but a recipe has only one"
        )
    for scale in scales[:1]:
        service.recipes.check(key.recipe_id, scale)
    samples = []
    for image, meta in zip(images, metas or [{}] * len(images), strict=True):
        content = image.read()
        known = {"role_id": key.role_id, "roi_id": key.roi_id, "label": label, "filename": image.name}
        known["created_at_utc"] = utc_now().isoformat(timespec="milliseconds")
        metadata = {**known, **meta, PIXELS: _hash_pixels(service, image)}
        samples.append(NewSample(image.read, image_suffix(content), metadata))

    pixels = frozenset(str(sample.metadata[PIXELS]) for sample in samples)
    until = time.monotonic() + _COMPARES_FOR_S
    other: Label = "ng" if label == "ok" else "ok"
    same, across = (
        service.datasets.compare(key, which, pixels, partial(_hash_stored, service), until) for which in (label, other)
    )
    with service.recipes.locking_scale(key.recipe_id, scales[0] if scales else None):
        stored = service.datasets.add_compared(key, label, samples, same, skip_duplicates=skip_duplicates)
    of_duplicates = service.datasets.uploaded_as(
        key, label, {found.duplicate_of for found in stored if found.duplicate_of}
    )
    uploaded = [
        Uploaded(
            found.name,
            facts_of(sample.metadata).uploaded_as,
            found.duplicate_of,
            of_duplicates.get(found.duplicate_of or ""),
        )
        for sample, found in zip(samples, stored, strict=True)
    ]
    of_others = service.datasets.uploaded_as(key, other, across.by_pixels.values())
    titles = {pixels: named_with(name, of_others.get(name)) for pixels, name in across.by_pixels.items()}
    in_both = [
        (image.name, titles[sample.metadata[PIXELS]])
        for image, sample in zip(images, samples, strict=True)
        if sample.metadata[PIXELS] in titles
    ]
    warning = _about_both_classes(in_both, label, other)
    return Upload(uploaded, same.n_unknown + across.n_unknown, warning)


def _hash_pixels(service: InspectionService, image: NamedImage) -> str:
    with service.pixels_of(image):
        return whole_pixels_sha256(image.read(), image.title, service.limits)


def _hash_stored(service: InspectionService, path: Path) -> str:
    try:
        content = read_whole(path)
    except OSError as exc:
        raise InvalidImage(f"{path.name}: the stored image cannot be read ({exc.strerror})") from exc
    return _hash_pixels(service, NamedImage(path.name, lambda: content))


def _about_both_classes(pairs: Sequence[tuple[str, str]], label: Label, other: Label) -> str | None:
    if not pairs:
        return None
    named = ", ".join(f"{sent} ({stored})" for sent, stored in pairs[:_MOST_NAMED])
    more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
    has = "1 image has" if len(pairs) == 1 else f"{len(pairs)} images have"
    return (
        f"{has} the same pixels as one stored as {other}: {named}{more}; a part is either good or defective: delete "
        f"the {label} or the {other} image"
    )
