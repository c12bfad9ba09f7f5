"""The requested pictures of a judgement; the scale of the threshold is the same for all images."""

from dataclasses import dataclass
from typing import Literal

from backend.calib import Calibration
from backend.common.arrays import Bgr
from backend.common.telemetry import stage
from backend.disk.fitted import CalibrationState
from backend.infer import Inference, to_threshold_heatmap
from backend.roi_mask import Shape, build_mask
from backend.service.overlay import draw_overlay
from backend.utils import encode_png_base64

HeatmapName = Literal["contract", "threshold"]


@dataclass(frozen=True)
class Wanted:
    """The requested pictures of a judgement.

    Attributes:
        heatmap: ``contract`` stretches each image separately, ``threshold`` has one scale for all; None: no heatmap.
        overlay: colour and regions over the image.
    """

    heatmap: HeatmapName | None = "contract"
    overlay: bool = False


CONTRACT_PICTURES, NO_PICTURES = Wanted(), Wanted(None)


@dataclass(frozen=True)
class Pictures:
    """Pictures of one judgement, PNG in base64; None for those that are not requested or not possible.

    Attributes:
        heatmap: grey, [H, W].
        overlay: colour, [H, W].
        warning: why one is left out.
    """

    heatmap: str | None
    overlay: str | None
    warning: str | None


def picture_threshold(calibration: Calibration) -> float:
    """The distance that pictures show as the threshold: from it on, a pixel belongs to a region."""
    return calibration.region_threshold


def heatmap_text(threshold: float) -> str:
    """The description in the file of a heatmap on the scale of the threshold."""
    return f"heatmap=threshold threshold={threshold!r} distance=grey*threshold/128"


def overlay_text(threshold: float) -> str:
    """The description in the file of an overlay."""
    return f"overlay threshold={threshold!r}"


def draw_pictures(
    wanted: Wanted,
    inference: Inference,
    image: Bgr,
    shape: Shape | None,
    calibration: Calibration | None,
    state: CalibrationState,
) -> Pictures:
    """Draw and encode the requested pictures; without a threshold, those that need one are left out with a warning.

    Args:
        wanted: the requested pictures.
        inference: of the image.
        image: uint8 [H, W, 3], BGR; left as it is.
        shape: mask in pixels of the image; None is the whole image.
        calibration: of the judgement.
        state: its state.
    """
    if wanted == NO_PICTURES:
        return Pictures(None, None, None)
    with stage("encode"):
        heatmap = encode_png_base64(inference.heatmap) if wanted.heatmap == "contract" else None
        names = ["heatmap=threshold"] * (wanted.heatmap == "threshold") + ["overlay"] * wanted.overlay
        if not names:
            return Pictures(heatmap, None, None)
        reason = no_scale(calibration, state)
        if calibration is None or reason is not None:
            verb = "is" if len(names) == 1 else "are"
            return Pictures(heatmap, None, f"{' and '.join(names)} {verb} left out: {reason}")
        threshold = picture_threshold(calibration)
        mask = build_mask(shape, (image.shape[0], image.shape[1]))
        on_scale = to_threshold_heatmap(inference.distance_map, mask, threshold)
        if wanted.heatmap == "threshold":
            heatmap = encode_png_base64(on_scale, heatmap_text(threshold))
        overlay = None
        if wanted.overlay:
            overlay = encode_png_base64(draw_overlay(image, on_scale, inference.regions), overlay_text(threshold))
        return Pictures(heatmap, overlay, None)


def no_scale(calibration: Calibration | None, state: CalibrationState) -> str | None:
    """Why there is no threshold above 0, the unit of the scale; None if there is one.

    Args:
        calibration: the one that is applied.
        state: its state.
    """
    if calibration is not None:
        threshold = picture_threshold(calibration)
        return None if threshold > 0 else f"the threshold is {threshold:g}, but their scale needs a threshold above 0"
    if state == "stale":
        return "the calibration is of an earlier fit or another BLUR_SIGMA; calibrate again"
    return "the ROI has no calibration, so it has no threshold; calibrate it first"
