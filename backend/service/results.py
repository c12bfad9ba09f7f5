"""What the use cases of `service` give."""

from dataclasses import dataclass
from typing import Literal

from backend.bank.images import ScoredImage, SuspiciousImage
from backend.calib import Calibration
from backend.common.profiles import CONTRACT, ProfileName
from backend.disk.fitted import CalibrationState, FittedRoi
from backend.infer import Finding


@dataclass(frozen=True)
class FitResult:
    """What a fit built.

    Attributes:
        n_embeddings: patch embeddings of all images.
        coreset_size: how many embeddings the memory bank holds.
        memory_id: its identity.
        token_hw: token grid (rows, columns).
        calibration_state: what became of the calibration.
        ok_scores: score of each image by the memory bank of the others, in order; None if there are no others, or
            so many that it would take more than a minute.
        ok_scores_sample: the images of a random sample, with such scores, where there are too many for all; else None.
        suspicious: those among them that score far above the others.
        unscored: why there are no `ok_scores`.
        warning: what is doubtful about the images, and what their scores cannot promise.
        profile: of the memory bank.
        detail: tiles along each side of the ROI.
        detail_reason: why as many, where they were chosen or a smallest defect was named.
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


@dataclass(frozen=True)
class RoiState:
    """What there is for a ROI.

    Attributes:
        fitted: its model, if there is one that the running extractor can be compared with.
        refit_reason: why there is one that cannot be used.
    """

    fitted: FittedRoi | None
    refit_reason: str | None = None


@dataclass(frozen=True)
class InferResult:
    """One inference, the model that it was compared with and the calibration it was judged by.

    Attributes:
        heatmap_png_base64: empty if none was wanted, or none could be had.
        warning: what is doubtful about the image.
        overlay_png_base64: the overlay, where it was asked for and can be had.
        pixels_sha256: identity of the image, where that was asked for.
        region_score: of the image, where that was asked for.
        why: it is OK or NG, in words, where that was asked for or regions decide.
        thumbnail: small JPEG of the image, where that was asked for.
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
        """What was asked for beside the score: further percentiles, and the region score."""
        return (*self.inference.scores, *(() if self.region_score is None else (self.region_score,)))

    @property
    def decision(self) -> Literal["ok", "ng"] | None:
        """``"ng"`` when the calibration's `is_defective` says so, else ``"ok"``; None without a calibration."""
        if self.calibration is None:
            return None
        found = self.inference
        return "ng" if self.calibration.is_defective(found.score, len(found.regions)) else "ok"
