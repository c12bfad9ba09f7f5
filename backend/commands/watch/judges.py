"""The interface of judges: a running service, or the engine in this process."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from backend.commands.watch.layouts import DrawnRoi
from backend.commands.watch.pictures import Crop
from backend.commands.watch.verdicts import Answer

Place = Literal["same", "other", "unknown"]

_ASKED = 4
# How the service names what it stores; other names are of files that a client sent for a fit.
_STORED_NAME = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}\.")


class Refused(Exception):
    """The crop cannot be judged, and a retry would not help; the message says why."""


class Away(Exception):
    """Nobody judges now; the request must be repeated.

    Attributes:
        retry_after_s: how long to wait, in seconds, if known.
        is_key: whether a key is missing or wrong, so that waiting alone will not help.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, *, is_key: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_key = is_key


@dataclass(frozen=True)
class Learnt:
    """What is known about the model of a ROI before its first judgement.

    Attributes:
        memory_id: identity of its memory bank.
        mm_per_px: millimetres per pixel for its requests; None if the layout has it.
        place: whether it was fitted on the current place of the ROI; unknown: it was not fitted by the console.
        threshold: that applies; None if there is none.
    """

    memory_id: str
    mm_per_px: float | None
    place: Place
    threshold: float | None


class Judge(Protocol):
    """A judge of crops. Only one thread at a time may use it."""

    def layout(self, recipe: str) -> bytes:
        """The layout of a recipe.

        Raises:
            InvalidRequest, LayoutNotFound: there is none.
            Away: nobody answers.
        """

    def learn(self, drawn: DrawnRoi) -> Learnt:
        """What is known about the model of a ROI.

        Raises:
            Refused: there is none, or it cannot be used.
            Away: nobody answers.
        """

    def template(self, recipe: str, name: str) -> bytes:
        """A picture of the layout of a recipe.

        Raises:
            PictureNotFound: there is none.
            Away: nobody answers.
        """

    def infer(self, drawn: DrawnRoi, crop: Crop, name: str, mm_per_px: float, part_id: str) -> Answer:
        """Judge a crop as a part of the line: it counts in the statistics of drift.

        Args:
            drawn: the ROI.
            crop: the crop.
            name: of the picture.
            mm_per_px: millimetres per pixel.
            part_id: the same whenever the same part is judged, so that it counts once.

        Raises:
            Refused: it cannot be judged.
            Away: nobody answers.
        """

    def close(self) -> None:
        """End, and store the statistics."""


def shape_text(crop: Crop) -> str | None:
    """The mask of a crop, in the form of the field `shape`; None for a whole rectangle."""
    return None if crop.shape is None else json.dumps(crop.shape)


def place_of(drawn: DrawnRoi, fitted_on: Sequence[str], metadata_of: Callable[[str], dict[str, Any] | None]) -> Place:
    """Whether a model was fitted on the current place of a ROI: the console stores the cut with each sample.

    Args:
        drawn: the ROI.
        fitted_on: names of the images of the fit.
        metadata_of: metadata of a stored good image; None if it is gone.
    """
    stored = [name for name in fitted_on if _STORED_NAME.match(name)][:_ASKED]
    for name in stored:
        metadata = metadata_of(name)
        if metadata is None:
            continue  # deleted, moved, or cut anew
        noted = metadata.get("console_cut")
        if noted is None:
            return "unknown"
        try:
            return "same" if json.loads(noted) == drawn.cut else "other"
        except (TypeError, ValueError):
            return "other"
    return "other" if stored else "unknown"
