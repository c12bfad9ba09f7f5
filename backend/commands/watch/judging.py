"""Judging parts by the layout of a recipe, like the console, but without a screen."""

import hashlib
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from backend.commands.console import shown
from backend.commands.watch.arrivals import Arrival
from backend.commands.watch.judges import Judge, Learnt, Refused, shape_text
from backend.commands.watch.layouts import DrawnRoi, Layout, read_layout
from backend.commands.watch.pictures import Crop, PictureRefused
from backend.commands.watch.preparing import Prepared
from backend.commands.watch.verdicts import Answer, PartVerdict, RoiVerdict, of_answer, of_part
from backend.common.roi_key import RoiKey

_LOOK_EVERY_S = 2.0
_MOST_SAID = 50  # warnings may hold numbers of each picture
_MOVED = (
    "The ROI was changed since the fit, so the model knows another place. Store the samples and fit again in the "
    "console."
)
_CHANGED = "The model or the layout was changed while this part was judged."


def _part_id(part: Prepared) -> str:
    """The same after a restart: whoever judged it before `watch` was stopped counts it once."""
    arrival = part.arrival
    return hashlib.sha256(f"{part.sha256} {arrival.identity[1]} {arrival.path}".encode(errors="replace")).hexdigest()


class Cut(Exception):
    """The layout has changed since the part was cut: it must be cut again."""


class Judging:
    """Judges parts.

    Args:
        judge: judges crops.
        layout: the places of the ROIs.
        follows: whether the layout is that of a recipe, which the console may change at any time.
        say: tells people the warnings, each once.
    """

    def __init__(self, judge: Judge, layout: Layout, *, follows: bool, say: Callable[[str], None]) -> None:
        self.layout = layout
        self._judge = judge
        self._follows = follows
        self._say = say
        self._learnt: dict[RoiKey, Learnt] = {}
        self._said: set[str] = set()
        self._in_hand: Arrival | None = None
        self._answers: dict[tuple[Any, ...], Answer] = {}  # about crops of the part in hand
        self._looked_at = time.monotonic()

    def judge(self, part: Prepared) -> PartVerdict:
        """The verdict about a part.

        After an exception, known answers are not requested again.

        Raises:
            Cut: see there.
            Away: nobody judges now.
            InvalidRequest: the layout was changed to one that cannot be used.
        """
        began = time.perf_counter()
        if time.monotonic() - self._looked_at >= _LOOK_EVERY_S:
            self._look()
        if part.layout is not self.layout:
            raise Cut
        if part.arrival != self._in_hand:
            self._in_hand, self._answers = part.arrival, {}
        verdicts = []
        for number, drawn in enumerate(self.layout.rois):
            if part.problem is not None:
                verdicts.append(RoiVerdict(drawn, "not_judged", part.problem))
            else:
                verdicts.append(self._roi(drawn, part.crops[number], part))
        self._in_hand, self._answers = None, {}
        word, reason = of_part(verdicts)
        return PartVerdict(
            id=uuid.uuid4().hex,
            time_utc=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            file=part.arrival.path,
            sha256=part.sha256,
            recipe_id=self.layout.recipe,
            word=word,
            reason=reason if part.problem is None else part.problem,
            ms=round(part.ms + (time.perf_counter() - began) * 1000, 1),
            rois=tuple(verdicts),
            placement=part.placement,
        )

    def _roi(self, drawn: DrawnRoi, crop: Crop | PictureRefused, part: Prepared) -> RoiVerdict:
        if isinstance(crop, PictureRefused):
            return RoiVerdict(drawn, "not_judged", str(crop))
        try:
            learnt = self._learnt.get(drawn.key) or self._learn(drawn)
            if learnt.place == "other":
                return RoiVerdict(drawn, "not_judged", _MOVED)
            scale = drawn.mm_per_px if learnt.mm_per_px is None else learnt.mm_per_px
            about = (drawn.key, scale, crop.content, shape_text(crop))
            answer = self._kept(about, drawn)
            if answer is None:
                name = shown(part.arrival.path.rpartition("/")[2])
                answer = self._judge.infer(drawn, crop, name, scale, _part_id(part))
                self._answers[about] = answer
            if answer.memory_id == learnt.memory_id:
                return self._told(of_answer(drawn, answer))
            # Somebody fitted the ROI: perhaps on another place, which the layout says then.
            self._learnt.pop(drawn.key, None)
            self._look()
            again = self._learn(drawn)
        except Refused as exc:
            self._learnt.pop(drawn.key, None)
            return RoiVerdict(drawn, "not_judged", str(exc))
        if again.place == "other":
            return RoiVerdict(drawn, "not_judged", _MOVED)
        if (again.memory_id, again.mm_per_px) != (answer.memory_id, learnt.mm_per_px):
            return RoiVerdict(drawn, "not_judged", _CHANGED)
        return self._told(of_answer(drawn, answer))

    def _kept(self, about: tuple[Any, ...], drawn: DrawnRoi) -> Answer | None:
        """The earlier answer about a crop, if the same model with the same threshold is still served."""
        answer = self._answers.get(about)
        if answer is None:
            return None
        self._learnt.pop(drawn.key, None)
        learnt = self._learn(drawn)
        return answer if (learnt.memory_id, learnt.threshold) == (answer.memory_id, answer.threshold) else None

    def _learn(self, drawn: DrawnRoi) -> Learnt:
        learnt = self._judge.learn(drawn)
        if learnt.place == "other":  # asked again for the next part
            return learnt
        if learnt.place == "unknown":
            self._once(
                f"{drawn.name}: the model was not fitted by the console: nobody can tell here whether it knows the "
                "place that the ROI shows."
            )
        self._learnt[drawn.key] = learnt
        return learnt

    def _look(self) -> None:
        """Read the layout again.

        Raises:
            Cut: it has changed.
        """
        self._looked_at = time.monotonic()
        if not self._follows:
            return
        recipe = self.layout.recipe
        content = self._judge.layout(recipe)
        if content != self.layout.content:
            self.layout = read_layout(content, recipe, f"the layout of recipe {recipe!r}", self._judge.template)
            self._learnt.clear()
            raise Cut

    def _told(self, verdict: RoiVerdict) -> RoiVerdict:
        if verdict.answer is not None and verdict.answer.warning is not None:
            self._once(f"{verdict.drawn.name}: {verdict.answer.warning}")
        return verdict

    def _once(self, text: str) -> None:
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            self._say(f"warning: {text}")
