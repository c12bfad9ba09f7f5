"""Who judges crops: what a service that runs, and the engine in this process, have in common."""

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
    """The crop is not judged, and asking again would not change it; the message says why."""


class Away(Exception):
    """Nobody judges now; what was asked is to be asked again.

    Attributes:
        retry_after_s: how long to wait, in seconds, where that was said.
        is_key: whether a key is missing or wrong, so that waiting alone will not help.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, *, is_key: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.is_key = is_key


@dataclass(frozen=True)
class Learnt:
    """What is known of a ROI's model before anything is judged by it.

    Attributes:
        memory_id: identity of its memory bank.
        mm_per_px: millimetres per pixel that it is asked with; None if the layout says it.
        place: whether it was fitted on the place that the ROI shows; unknown: it was not fitted by the console.
        threshold: that applies; None: there is none.
    """

    memory_id: str
    mm_per_px: float | None
    place: Place
    threshold: float | None


class Judge(Protocol):
    """Who judges crops. One thread at a time may ask."""

    def layout(self, recipe: str) -> bytes:
        """The layout of a recipe.

        Raises:
            InvalidRequest, LayoutNotFound: there is none.
            Away: nobody answers.
        """

    def learn(self, drawn: DrawnRoi) -> Learnt:
        """What is known of a ROI's model.

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

    def infer(self, drawn: DrawnRoi, crop: Crop, name: str, mm_per_px: float) -> Answer:
        """Judge a crop as a part of the line: it counts in the statistics of drift.

        Args:
            drawn: the ROI.
            crop: what was cut out.
            name: of the picture.
            mm_per_px: millimetres per pixel.

        Raises:
            Refused: it cannot be judged.
            Away: nobody answers.
        """

    def close(self) -> None:
        """End; what was counted is stored."""


def shape_text(crop: Crop) -> str | None:
    """The mask of a crop, as the field `shape` has it; None for a whole rectangle."""
    return None if crop.shape is None else json.dumps(crop.shape)


def place_of(drawn: DrawnRoi, fitted_on: Sequence[str], metadata_of: Callable[[str], dict[str, Any] | None]) -> Place:
    """Whether a model was fitted on the place that a ROI shows: the console notes with each sample how it was cut.

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
