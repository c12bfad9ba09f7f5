"""Verdicts about ROIs and parts, and the data that is written and sent."""

from dataclasses import dataclass
from typing import Any, Literal

from backend.commands.console import shown
from backend.commands.watch.layouts import DrawnRoi
from backend.commands.watch.placement import Placement

Word = Literal["ok", "ng", "not_judged"]
WORDS: dict[Word, str] = {"ok": "OK", "ng": "NG", "not_judged": "NOT JUDGED"}
"""As people read them."""


@dataclass(frozen=True)
class Answer:
    """The answer of a model about a crop; the names are those of the reply of ``/infer``.

    Attributes:
        recipe_id, memory_id: of the model that it was compared with.
        n_regions, largest_area_mm2: of the regions; None if there is no threshold.
    """

    score: float
    threshold: float | None
    decision: str | None
    calibration: str
    recipe_id: str
    memory_id: str | None
    n_regions: int | None = None
    largest_area_mm2: float | None = None
    decide_by: str | None = None
    pixel_threshold: float | None = None
    why: str | None = None
    warning: str | None = None


@dataclass(frozen=True)
class RoiVerdict:
    """The verdict about one ROI of a part.

    Attributes:
        drawn: the ROI.
        word: OK only if the model answered OK.
        reason: why it was not judged.
        answer: the answer of the model; None if there is none.
    """

    drawn: DrawnRoi
    word: Word
    reason: str | None = None
    answer: Answer | None = None

    def as_dict(self) -> dict[str, Any]:
        """The data of the ROI, without missing members."""
        answer = self.answer
        told: dict[str, Any] = {
            "role_id": self.drawn.key.role_id,
            "roi_id": self.drawn.key.roi_id,
            "model_key": self.drawn.key.model,
            "name": self.drawn.name,
            "verdict": self.word,
            "reason": self.reason,
        }
        if answer is not None:
            told |= {
                name: getattr(answer, name)
                for name in (
                    *("score", "threshold", "calibration", "decide_by", "pixel_threshold", "why"),
                    *("n_regions", "largest_area_mm2", "memory_id", "warning"),
                )
            }
        return {name: value for name, value in told.items() if value is not None}


def of_answer(drawn: DrawnRoi, answer: Answer) -> RoiVerdict:
    """The verdict of an answer, as in the console: nothing is OK without an OK of the model."""
    reason = None
    if answer.recipe_id != drawn.key.recipe:
        reason = "The ROI has no model of its own in this recipe. Fit it in the console."
    elif answer.calibration == "stale":
        reason = "The ROI was fitted anew since its threshold was chosen. Choose it again."
    elif answer.calibration != "applied" or answer.threshold is None:
        reason = "The ROI has no threshold. Choose one."
    elif answer.decision not in ("ok", "ng"):
        reason = "The service gave no decision."
    if reason is not None:
        return RoiVerdict(drawn, "not_judged", reason, answer)
    return RoiVerdict(drawn, "ng" if answer.decision == "ng" else "ok", None, answer)


def of_part(rois: list[RoiVerdict]) -> tuple[Word, str | None]:
    """The verdict about a part: NG if any ROI is NG, OK only if all are OK; and why it was not judged."""
    if any(roi.word == "ng" for roi in rois):
        return "ng", None
    open_rois = [roi for roi in rois if roi.word != "ok"]
    if rois and not open_rois:
        return "ok", None
    first = open_rois[0]
    more = f" ({len(open_rois) - 1} more ROIs were not judged.)" if len(open_rois) > 1 else ""
    return "not_judged", f"{first.drawn.name}: {first.reason}{more}"


@dataclass(frozen=True)
class PartVerdict:
    """The verdict about a part.

    Attributes:
        id: unique id in all data that is written and sent.
        time_utc: when it was judged, ISO 8601.
        file: its path below the folder.
        sha256: of the file; None if it could not be read.
        recipe_id: of the layout.
        word: the verdict.
        reason: why it was not judged.
        ms: duration of reading, cutting and judging, in milliseconds.
        rois: of each ROI.
        placement: place of the part in its picture; None without an anchor, or if it was not found.
    """

    id: str
    time_utc: str
    file: str
    sha256: str | None
    recipe_id: str
    word: Word
    reason: str | None
    ms: float
    rois: tuple[RoiVerdict, ...]
    placement: Placement | None = None

    def as_dict(self) -> dict[str, Any]:
        """The data that is written and sent, without missing members."""
        told: dict[str, Any] = {
            "id": self.id,
            "time_utc": self.time_utc,
            "recipe_id": self.recipe_id,
            "file": shown(self.file),
            "sha256": self.sha256,
            "verdict": self.word,
            "reason": None if self.reason is None else shown(self.reason),
            "ms": self.ms,
            "placement": None if self.placement is None else vars(self.placement),
            "rois": [roi.as_dict() for roi in self.rois],
        }
        return {name: value for name, value in told.items() if value is not None}
