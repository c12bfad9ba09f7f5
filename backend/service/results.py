"""The results of the use cases of `service`."""

from dataclasses import dataclass
from typing import Literal

from backend.bank.images import ScoredImage, SuspiciousImage
from backend.calib import Calibration
from backend.common.profiles import CONTRACT, ProfileName
from backend.disk.fitted import CalibrationState, FittedRoi
from backend.infer import Finding


@dataclass(frozen=True)
class FitResult:
    """The result of a fit.

    Attributes:
        n_embeddings: patch embeddings of all images.
        coreset_size: number of embeddings in the memory bank.
        memory_id: its identity.
        token_hw: token grid (rows, columns).
        calibration_state: state of the calibration.
        ok_scores: score of each image by the memory bank of the others, in order; None if there are no others, or if
            scoring all would take more than a minute.
        ok_scores_sample: the images of a random sample, with such scores, if there are too many to score all; else
            None.
        suspicious: those among them that score far above the others.
        unscored: why there are no `ok_scores`.
        warning: doubts about the images, and limits of the promises of their scores.
        profile: of the memory bank.
        detail: tiles along each side of the ROI.
        detail_reason: why as many, where they were chosen or a smallest defect was named.
        covering_radii: of the memory bank of each block, 0..2, if it was selected in two rounds; None for one round.
        radius_bounds: upper bounds of these, which the two rounds prove.
    """

    n_embeddings: int
    coreset_size: int
    memory_id: str
    token_hw: tuple[int, int]
    calibration_state: CalibrationState
    ok_scores: list[float] | None
    suspicious: list[SuspiciousImage]
    unscored: str | None = None
    warning: str | None = None
    profile: ProfileName = CONTRACT
    ok_scores_sample: list[ScoredImage] | None = None
    detail: int = 1
    detail_reason: str | None = None
    covering_radii: list[float] | None = None
    radius_bounds: list[float] | None = None


@dataclass(frozen=True)
class RoiState:
    """What is stored for a ROI.

    Attributes:
        fitted: its model, if there is one that the running extractor can be compared with.
        refit_reason: why its model cannot be used.
    """

    fitted: FittedRoi | None
    refit_reason: str | None = None


@dataclass(frozen=True)
class InferResult:
    """One inference, with its model and its calibration.

    Attributes:
        heatmap_png_base64: empty if it was not requested, or not possible.
        warning: what is doubtful about the image.
        overlay_png_base64: the overlay, if it was requested and is possible.
        pixels_sha256: identity of the image, if requested.
        region_score: of the image, if requested.
        why: it is OK or NG, in words, if requested or if regions decide.
        thumbnail: small JPEG of the image, if requested.
    """

    inference: Finding
    image_hw: tuple[int, int]
    heatmap_png_base64: str
    fitted: FittedRoi
    calibration: Calibration | None
    calibration_state: CalibrationState
    warning: str | None = None
    pixels_sha256: str | None = None
    thumbnail: bytes | None = None
    overlay_png_base64: str | None = None
    region_score: float | None = None
    why: str | None = None

    @property
    def scores(self) -> tuple[float, ...]:
        """The requested scores besides the score: further percentiles, and the region score."""
        return (*self.inference.scores, *(() if self.region_score is None else (self.region_score,)))

    @property
    def decision(self) -> Literal["ok", "ng"] | None:
        """``"ng"`` if `is_defective` of the calibration says so, else ``"ok"``; None without a calibration."""
        if self.calibration is None:
            return None
        found = self.inference
        return "ng" if self.calibration.is_defective(found.score, len(found.regions)) else "ok"
