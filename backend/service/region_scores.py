"""Region scores for a calibration: images of the fit by their honest distance maps, others by the bank itself."""

from collections.abc import Sequence

from backend.bank.images import BankImage, recorded_images
from backend.common.arrays import DistanceMap
from backend.common.errors import InvalidRequest
from backend.common.profiles import RECOMMENDED
from backend.disk.fitted import FittedRoi
from backend.infer import image_scores, region_score, to_image_grid
from backend.roi_mask import Shape, build_mask
from backend.service.calibration_options import CalibrationOptions
from backend.service.detail import hidden_tiles
from backend.service.inspection import InspectionService
from backend.utils import named_with


def region_score_of(distance_map: DistanceMap, shape: Shape | None, area_mm2: float, mm_per_px: float) -> float:
    """The region score of an image, see `infer.region_score`.

    Args:
        distance_map: float32 [H, W], of the image's size.
        shape: mask in pixels of the image; None is the whole image.
        area_mm2: smallest area of a region, in mm².
        mm_per_px: millimetres per pixel of the image.

    Raises:
        InvalidRequest: no region of that area fits into the mask.
        InvalidShape: see `build_mask`.
    """
    height, width = distance_map.shape
    found = region_score(distance_map, build_mask(shape, (height, width)), area_mm2, mm_per_px)
    if found is None:
        raise InvalidRequest(
            f"area_mm2_thr {area_mm2:g} mm² is larger than the ROI ({width} × {height} pixels of {mm_per_px:g} mm, "
            "without the masked area), so no region would ever reject a part; send a smaller area_mm2_thr, or check "
            "mm_per_px"
        )
    return found


class FitRegions:
    """Scores the images of a fit by their regions, by the bank of the others.

    Args:
        service: has the model and the settings.
        fitted: the model.
        area_mm2: smallest area of a region, in mm².
        mm_per_px: millimetres per pixel, if an image has none of its own.
    """

    def __init__(self, service: InspectionService, fitted: FittedRoi, area_mm2: float, mm_per_px: float) -> None:
        self.area_mm2 = area_mm2
        self._features = service.features_of(fitted.profile, fitted.detail)
        self._mm_per_px = mm_per_px
        self._blur_sigma = service.settings.blur_sigma
        self._hold_pixels = service.hold_pixels
        images, maps = recorded_images(fitted.metadata), service.store.honest_maps(fitted)
        self._maps = {image.sha256: maps[number] for number, image in enumerate(images) if number in maps}
        self._known: dict[tuple[str, str | None, float], tuple[float, ...]] = {}

    @classmethod
    def of(
        cls, service: InspectionService, fitted: FittedRoi, options: CalibrationOptions, mm_per_px: float
    ) -> "FitRegions | None":
        """The scores for a calibration; None if regions do not decide."""
        if options.decide_by == "score":
            return None
        area = service.settings.area_mm2_thr if options.area_mm2_thr is None else options.area_mm2_thr
        return cls(service, fitted, area, mm_per_px)

    def has_map(self, image: BankImage) -> bool:
        """Whether the honest distance map of an image is kept."""
        return image.sha256 in self._maps

    def scores(
        self, image: BankImage, shape: Shape | None, percentiles: Sequence[float], mm_per_px: float | None
    ) -> tuple[float, ...] | None:
        """The scores of an image by the bank of the others: at each percentile, and by its regions.

        Args:
            image: of the memory bank.
            shape: mask within which it is scored, in its pixels.
            percentiles: of the map.
            mm_per_px: millimetres per pixel of the image; None takes the common scale.

        Returns:
            None if its map is not kept, or if this mask shows a tile of it that the masks of its fit hid.

        Raises:
            InvalidRequest, InvalidShape: see `region_score_of`.
        """
        distances = self._maps.get(image.sha256)
        image_hw = (image.height, image.width)
        if distances is None or hidden_tiles(self._features, image.tiles, image_hw, shape, self._blur_sigma):
            return None
        scale = self._mm_per_px if mm_per_px is None else mm_per_px
        name = (image.sha256, None if shape is None else shape.model_dump_json(), scale)
        if name not in self._known:
            with self._hold_pixels(image.height * image.width):
                scores = image.scores_within(shape, percentiles)
                if scores is None:  # the fit had another mask
                    scores = tuple(image_scores(distances, image_hw, shape, self._blur_sigma, percentiles))
                distance_map = to_image_grid(distances, image_hw, self._blur_sigma)
                self._known[name] = (*scores, region_score_of(distance_map, shape, self.area_mm2, scale))
        return self._known[name]


def no_map_of(image: BankImage) -> InvalidRequest:
    """The error that an image of the fit has no usable region score."""
    return InvalidRequest(
        f"{named_with(image.name, image.uploaded_as)} was in the fit, but the memory bank keeps no distance map of "
        "it by the bank of the others; the whole bank would score its regions too low. Fit anew with "
        f"profile={RECOMMENDED}, which "
        "keeps these maps, or calibrate decisions by regions on images that were not in the fit"
    )
