"""Why an image was judged as it was: its worst places beside the nearest good patches."""

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import structlog

from backend.bank.images import THUMBNAIL_SIDE, recorded_images
from backend.bank.reasons import Reason, beside, panel_of_good, panel_of_place, reasons
from backend.bit_depth import BitDepth
from backend.common.arrays import Bgr
from backend.common.errors import InvalidImage, InvalidRequest, TooLarge
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.infer import Finding
from backend.roi_mask import Shape, build_mask
from backend.service.doubts import joined
from backend.service.inspection import InspectionService
from backend.service.judge import said
from backend.service.pictures import NO_PICTURES, Wanted, draw_pictures
from backend.service.results import InferResult
from backend.service.scoring import Scoring
from backend.utils import ImageLimits, NamedImage, decode_image

_MOST_THUMBNAIL_BYTES = 1 << 20

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Explanation:
    """Why an image was judged as it was.

    Attributes:
        result: the judgement, with heatmap and overlay if requested.
        reasons: the places that decided.
        pictures: of each, PNG in base64; empty without pictures.
    """

    result: InferResult
    reasons: list[Reason]
    pictures: list[str]


def explain(
    service: InspectionService,
    key: RoiKey,
    image: NamedImage,
    *,
    mm_per_px: float,
    shape: Shape | None,
    point: tuple[int, int] | None,
    with_pictures: bool,
    wanted: Wanted = NO_PICTURES,
    with_why: bool = False,
) -> Explanation:
    """Judge an image, and show what its worst places were compared with.

    Args:
        service: who judges.
        key, image, mm_per_px, shape: as for `judge.infer`.
        point: (x, y) of the place to explain, in pixels of the image; None explains the regions, or the worst place.
        with_pictures: draw each place beside the nearest good patch.
        wanted: pictures of the whole image.
        with_why: see `Scoring`.

    Raises:
        InvalidRequest: the place is outside the image.
        BackendError: as `judge.infer`.
    """
    service.recipes.check(key.recipe_id, mm_per_px)
    fitted = service.fitted(key)
    images = recorded_images(fitted.metadata)
    with service.inference_slot():
        with service.pixels_of(image, fitted.detail):
            pixels, warning = service.decode(image, BitDepth.of(fitted.metadata))
            height, width = pixels.shape[:2]
            if point is not None and not (point[0] < width and point[1] < height):
                raise InvalidRequest(f"x, y: ({point[0]}, {point[1]}) is outside the image of {width}x{height} pixels")
            scoring = Scoring(mm_per_px, shape, with_why=with_why)
            inference, calibration = service.run_engine(
                fitted, pixels, scoring, to_explain=True, every_tile=point is not None
            )
            why = said(service, fitted, inference, calibration, scoring)
            found = reasons(inference, fitted.memory, images, build_mask(shape, (height, width)), point)
            panels = [panel_of_place(reason, pixels) for reason in found] if with_pictures else []
            whole = draw_pictures(wanted, inference, pixels, shape, calibration, fitted.calibration_state)
            finding = Finding(inference.score, inference.regions, inference.scores)
            del pixels, inference
        # The room of the sent image is free again: who waited for more while holding some would wait for ever.
        good_images = _GoodImages(service, key, fitted) if with_pictures else None
        pictures = [
            _png(beside(panel, good_images.panel(reason) if good_images else None))
            for panel, reason in zip(panels, found, strict=bool(panels))
        ]
    result = InferResult(
        finding,
        (height, width),
        whole.heatmap or "",
        fitted,
        calibration,
        fitted.calibration_state,
        joined([warning, whole.warning]),
        overlay_png_base64=whole.overlay,
        why=why,
    )
    return Explanation(result, found, pictures)


class _GoodImages:
    """The pictures of the images of a bank: the stored image if the fit was from a data set, else its thumbnail."""

    def __init__(self, service: InspectionService, key: RoiKey, fitted: FittedRoi) -> None:
        self._service = service
        self._key = key
        self._from_stored_images = fitted.metadata.get("source") == "dataset"
        self._thumbnails = service.store.thumbnails(fitted)
        self._depth = BitDepth.of(fitted.metadata)

    def panel(self, reason: Reason) -> Bgr | None:
        """A picture of the nearest good patch of a place; None if there is no picture of its image."""
        if reason.image is None or reason.image_index is None:
            return None
        sample = None
        if self._from_stored_images:
            sample = self._service.datasets.stored(self._key, "ok", reason.image.name)
        if sample is not None:
            try:
                return self._panel(reason, NamedImage(sample.name, sample.read), reason.image.sha256)
            except (InvalidImage, TooLarge) as exc:  # deleted or damaged since the fit
                log.info("explain.stored_image_unusable", reason=str(exc))
        encoded = self._thumbnails[reason.image_index] if reason.image_index < len(self._thumbnails) else b""
        if not encoded:
            return None
        try:
            small = decode_image(encoded, "thumbnail", ImageLimits(_MOST_THUMBNAIL_BYTES, THUMBNAIL_SIDE**2))
        except (InvalidImage, TooLarge) as exc:
            log.warning("explain.thumbnail_unusable", reason=str(exc))
            return None
        return panel_of_good(reason, small)

    def _panel(self, reason: Reason, stored: NamedImage, sha256: str) -> Bgr | None:
        content = stored.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise InvalidImage(f"{stored.name}: not the image that was fitted")
        once = NamedImage(stored.name, lambda: content)
        with self._service.pixels_of(once):
            pixels, _ = self._service.decode(once, self._depth)
            return panel_of_good(reason, pixels)


def _png(picture: Bgr) -> str:
    _, encoded = cv2.imencode(".png", picture)
    return base64.b64encode(encoded.tobytes()).decode("ascii")
