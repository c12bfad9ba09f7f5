"""A person's verdict on one image → the memory bank and the calibration of a ROI, changed in one step.

If it was good, the image joins the memory bank and the good images of the calibration. If it was bad, it joins the
defective ones. Then the ROI is calibrated again by the rule of its calibration. `consequences` describes the change in
words.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from backend.bank.images import BankImage, OwnImages, shown_name
from backend.block_memory import Memory
from backend.calib import SEEN_IN_THE_FIT, Calibration
from backend.common.errors import Conflict, StaleModel
from backend.common.roi_key import RoiKey
from backend.common.telemetry import annotate
from backend.disk.calibration_inputs import MOST_SCORES, CalibrationInputs, ScoredImage, position_of
from backend.disk.fitted import FittedRoi
from backend.disk.memory_file import memory_id
from backend.disk.recipes import same_scale
from backend.roi_mask import Shape
from backend.service.calibrate import calibrated_again
from backend.service.consequences import (
    Known,
    about_catching,
    about_kept_score,
    about_new_escapes,
    about_threshold,
    about_unlike_others,
    told_apart,
)
from backend.service.doubts import about_inference, joined
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import judge
from backend.service.pictures import NO_PICTURES
from backend.service.results import InferResult
from backend.service.scoring import Scoring
from backend.utils import NamedImage, named_with

Verdict = Literal["good", "bad"]

_SCORES_STAY = (
    "The scores of the other known images stay the same: their embeddings are not stored, so the new memory bank "
    "cannot score them."
)


@dataclass(frozen=True)
class Feedback:
    """What a verdict changes, or would change.

    Attributes:
        verdict: of the person.
        dry_run: whether the change was only computed, and nothing was stored.
        changed: whether there is a change at all.
        score: score of the image by the previous model.
        decision: decision on it by the previous calibration.
        score_after: score by the memory bank that the image has joined; None if it joins none.
        n_added: embeddings that the memory bank gains.
        fitted: the model afterwards; in a dry run, as it would be.
        calibration: the calibration afterwards.
        before, after: the known images by the two calibrations.
        n_rejected_if_caught: how many known good images have the same score or a higher one: any threshold that rejects
            this image also rejects them.
        text: what the change means, in sentences.
        warning: what is doubtful about the change.
    """

    verdict: Verdict
    dry_run: bool
    changed: bool
    score: float
    decision: Literal["ok", "ng"]
    score_after: float | None
    n_added: int
    fitted: FittedRoi
    calibration: Calibration
    before: Known
    after: Known
    n_rejected_if_caught: int
    text: str
    warning: str | None


@dataclass(frozen=True)
class _Case:
    """An image, with the model and the calibration before any change.

    Attributes:
        key: the ROI.
        image: the image of the verdict.
        mm_per_px: of it.
        shape: its mask.
        fitted, calibration, inputs: the previous model, its calibration, and the scores behind it.
        result: its judgement.
        own: the same image in the memory bank, if any.
        scored: the image as a calibration counts it.
    """

    key: RoiKey
    image: NamedImage
    mm_per_px: float
    shape: Shape | None
    fitted: FittedRoi
    calibration: Calibration
    inputs: CalibrationInputs
    result: InferResult
    own: BankImage | None
    scored: ScoredImage

    @property
    def name(self) -> str:
        return self.image.title


@dataclass
class _Change:
    """The change that a case makes.

    Attributes:
        inputs: the scores of the new calibration.
        fitted, calibration: afterwards.
        score_after: see `Feedback`.
        doubts: the warnings.
    """

    inputs: CalibrationInputs
    fitted: FittedRoi
    calibration: Calibration
    score_after: float | None = None
    doubts: list[str | None] = field(default_factory=list)


def give_feedback(
    service: InspectionService,
    key: RoiKey,
    image: NamedImage,
    verdict: Verdict,
    *,
    mm_per_px: float | None = None,
    shape: Shape | None = None,
    dry_run: bool = False,
) -> Feedback:
    """Apply a person's verdict on an image.

    Args:
        service: who judges.
        key: the ROI.
        image: the canonical ROI image.
        verdict: ``"good"`` or ``"bad"``.
        mm_per_px: millimetres per pixel of the image; None takes the scale of the calibration.
        shape: its mask, as for `infer`.
        dry_run: only report what would change.

    Raises:
        MemoryNotFound, IncompatibleMemory, InvalidImage, InvalidShape, Busy, StorageError: as `infer` and `fit`.
        InvalidRequest: the rule of the calibration cannot be applied to the remaining scores.
        Conflict: the ROI is not calibrated, or the scores of its calibration are unknown; the image has another scale;
            the verdict is bad, but the image is in the memory bank; see also `fit`.
        StaleModel: the ROI was fitted or calibrated anew meanwhile; nothing was stored.
        RunCancelled: see `fit`.
    """
    case = _case(service, key, image, mm_per_px, shape)
    change = (_good if verdict == "good" else _bad)(service, case, dry_run)
    before, after = Known.of(case.calibration, case.inputs), Known.of(change.calibration, change.inputs)
    changed = change.inputs != case.inputs or change.fitted.memory_id != case.fitted.memory_id
    if changed and not dry_run:
        fresh = () if change.inputs.ok_are_fresh is False else after.good
        service.drift.begin(key, change.calibration, fresh)
    annotate(
        verdict=verdict,
        dry_run=dry_run,
        changed=changed,
        score=round(case.scored.score, 6),
        threshold_before=before.threshold,
        threshold=after.threshold,
    )
    n_added = len(change.fitted.memory.embeddings) - len(case.fitted.memory.embeddings)
    feedback = Feedback(
        verdict=verdict,
        dry_run=dry_run,
        changed=changed,
        score=case.scored.score,
        decision="ng" if case.scored.score >= before.threshold else "ok",
        score_after=change.score_after,
        n_added=n_added,
        fitted=change.fitted,
        calibration=change.calibration,
        before=before,
        after=after,
        n_rejected_if_caught=after.n_rejected_at(case.scored.score),
        text="",
        warning=None,
    )
    doubts = [*change.doubts, *(_doubts(case, feedback, change) if changed else [])]
    doubts += [case.result.warning, _about_image(service, case)]
    return replace(feedback, text=_text(case, feedback), warning=joined(doubts))


def _case(
    service: InspectionService, key: RoiKey, image: NamedImage, mm_per_px: float | None, shape: Shape | None
) -> _Case:
    fitted = service.fitted(key)
    calibration = fitted.calibration
    if calibration is None:
        state = "has no calibration" if fitted.calibration_state == "none" else "has a calibration of another model"
        raise Conflict(f"{key} {state}: calibrate first, because feedback repeats the rule of the last calibration")
    if calibration.decide_by is not None:
        raise Conflict(
            f"regions decide for {key} (decide_by={calibration.decide_by}), but feedback uses only image scores: "
            "store the image with /datasets/ok/upload or /datasets/ng/upload, then calibrate with /calibrate_dataset"
        )
    inputs = service.store.calibration_inputs(fitted)
    if inputs is None or None in (calibration.score_percentile, calibration.area_mm2_thr, calibration.mm_per_px):
        raise Conflict(
            f"the scores of the calibration of {key} are not stored: an earlier version made it, or it has more than "
            f"{MOST_SCORES} scores, or its file is damaged; calibrate once more (/calibrate_ng, /calibrate_dataset or "
            "`roi-anomaly calibrate`), then send the feedback again"
        )
    scale = calibration.mm_per_px if mm_per_px is None else mm_per_px
    assert scale is not None, "asked above"
    service.recipes.check(key.recipe_id, scale)
    if calibration.mm_per_px is not None and not same_scale(scale, calibration.mm_per_px):
        raise Conflict(
            f"mm_per_px is {scale:g}, but the calibration of {key} was made with {calibration.mm_per_px:g}: send an "
            "image of that scale, or calibrate again"
        )
    content = image.read()
    once = NamedImage(image.name, lambda: content, image.uploaded_as)
    with service.inference_slot():
        result = judge(service, fitted, once, Scoring(scale, shape), wanted=NO_PICTURES, with_identity=True)
    known = OwnImages(fitted.metadata, service.settings.blur_sigma)
    own = known.of_file(hashlib.sha256(content).hexdigest()) or known.of_pixels(result.pixels_sha256 or "")
    identity = own.identity if own else result.pixels_sha256
    scored = ScoredImage(result.inference.score, shown_name(image.name), image.uploaded_as, identity)
    return _Case(key, once, scale, shape, fitted, calibration, inputs, result, own, scored)


def _good(service: InspectionService, case: _Case, dry_run: bool) -> _Change:
    was_ng = position_of(case.inputs.ng, case.scored) is not None
    counted = position_of(case.inputs.ok, case.scored)
    is_counted = counted is not None
    kept = None if counted is None else case.inputs.ok[counted].score
    counts = "it counts as good" if case.own is None or is_counted else "it no longer does"
    doubts = [f"{case.name} counted as defective until now; {counts}" if was_ng else None]
    if case.own is None:
        doubts.append(None if kept is None else about_kept_score(kept, case.scored.score))
        change = _appended(service, case, case.inputs.with_good(case.scored), dry_run)
        return replace(change, doubts=[*doubts, *change.doubts])
    doubts.append(f"{case.name} is already in the memory bank, as {_title(case.own)}: nothing is added")
    if kept is not None and not case.own.has_mask(case.shape):
        doubts.append(f"it was fitted with another mask, and still counts with its score for that mask, {kept:.4g}")
    # One that is not counted stays out of the good scores: the bank has seen it, so it scores too low.
    inputs = case.inputs.with_good(case.scored) if is_counted else case.inputs.without_defective(case.scored)
    return _calibrated(service, case, inputs, dry_run, doubts)


def _bad(service: InspectionService, case: _Case, dry_run: bool) -> _Change:
    if case.own is not None:
        raise Conflict(
            f"{case.name} is in the memory bank as a good image, {_title(case.own)}: roll back to a version "
            "before it joined (/versions lists them), or fit anew without it"
        )
    was_good = position_of(case.inputs.good, case.scored) is not None
    known = position_of(case.inputs.ng, case.scored)
    doubts = [
        f"{case.name} counted as good until now; it counts as defective" if was_good else None,
        f"{case.name} is among the defective images of the calibration: its score is not counted twice"
        if known is not None
        else None,
        None if known is None else about_kept_score(case.inputs.ng[known].score, case.scored.score),
    ]
    return _calibrated(service, case, case.inputs.with_defective(case.scored), dry_run, doubts)


def _title(own: BankImage) -> str:
    return named_with(own.name, own.uploaded_as)


def _calibrated(
    service: InspectionService, case: _Case, inputs: CalibrationInputs, dry_run: bool, doubts: list[str | None]
) -> _Change:
    """Calibrate the same memory bank again."""
    if inputs == case.inputs:
        return _Change(inputs, case.fitted, case.calibration, doubts=doubts)
    after = calibrated_again(case.calibration, inputs, case.fitted.memory_id)
    if not dry_run:
        service.store.save_calibration(case.key, after, inputs, instead_of=case.fitted)
    return _Change(inputs, replace(case.fitted, calibration=after), after, doubts=doubts)


def _appended(service: InspectionService, case: _Case, inputs: CalibrationInputs, dry_run: bool) -> _Change:
    """Append the image to the memory bank, and calibrate that."""
    changes: list[_Change] = []

    def save(
        key: RoiKey,
        memory: Memory,
        metadata: dict[str, Any],
        *,
        instead_of: FittedRoi,
        conclude: Callable[[], None],
        **beside: Any,
    ) -> str:
        if instead_of.memory_id != case.fitted.memory_id:
            raise StaleModel(f"{key} was fitted anew meanwhile; nothing was stored: send it again")
        identity = memory_id(memory)
        after = calibrated_again(case.calibration, inputs, identity)
        grown = replace(case.fitted, memory=memory, memory_id=identity, metadata=metadata, calibration=after)
        with service.inference_slot():  # before anything is stored: it may be refused
            scoring = Scoring(case.mm_per_px, case.shape)
            score = judge(service, grown, case.image, scoring, wanted=NO_PICTURES).inference.score
        if not dry_run:
            conclude()
            judged_by = replace(
                instead_of, calibration=case.fitted.calibration, calibrated=case.fitted.calibrated
            )  # the fit has read it without
            service.store.save_memory(
                key, memory, metadata, instead_of=judged_by, calibration=after, inputs=inputs, **beside
            )
        changes.append(_Change(inputs, grown, after, score))
        return identity

    has_thumbnails = any(service.store.thumbnails(case.fitted))
    run = partial(fit, service, case.key, [case.image], mm_per_px=case.mm_per_px, append=True)
    result = run(shapes=[case.shape], thumbnails=has_thumbnails, save=save)
    if not changes:  # it was appended by somebody else while this waited
        raise StaleModel(f"{case.key} was fitted anew meanwhile; nothing was stored: send it again")
    return replace(changes[0], doubts=[result.warning])


def _doubts(case: _Case, told: Feedback, change: _Change) -> list[str | None]:
    """What is doubtful about a change."""
    before, threshold, score = told.before.threshold, told.after.threshold, told.score
    old = f"{told_apart(score, before)}, {{}} {told_apart(before, score)}"  # what it was judged by
    new, limit = told_apart(score, threshold), told_apart(threshold, score)
    pointless = missed = unlike = None
    if told.verdict == "good":
        others = [image.score for image in change.inputs.good if image.identity != case.scored.identity]
        unlike = about_unlike_others(score, others)
        if told.decision == "ok":
            pointless = f"the image was not rejected ({old.format('below')}), so this feedback is of little use"
        if score >= threshold:
            missed = (
                f"parts like it may still be rejected: it scores {new} by the memory bank without it, and the "
                f"threshold is {limit}"
            )
    else:
        if told.decision == "ng":
            pointless = f"the image was rejected ({old.format('at or above')}), so this feedback is of little use"
        if score < threshold:
            missed = f"parts like it still escape: it scores {new}, below {limit}"
    stays = None
    if case.inputs.options.threshold is not None:
        stays = (
            "the threshold was set by hand, so feedback does not change it: calibrate by a rule if feedback "
            "should change it"
        )
    seen = SEEN_IN_THE_FIT if change.inputs.ok_are_fresh is False else None
    escapes = about_new_escapes(told.before, told.after)
    return [unlike, escapes, pointless, missed, stays, change.calibration.warning, seen]


def _about_image(service: InspectionService, case: _Case) -> str | None:
    return about_inference(case.result.image_hw, case.mm_per_px, case.fitted, case.calibration, service.settings)


def _text(case: _Case, told: Feedback) -> str:
    """The effect of a verdict, in sentences."""
    is_rejected = told.decision == "ng"
    score, limit = told_apart(told.score, told.before.threshold), told_apart(told.before.threshold, told.score)
    sentences = [f"{case.name} scores {score} and is {'rejected' if is_rejected else 'accepted'} at {limit}."]
    if not told.changed:
        return " ".join([*sentences, "Nothing changes."])
    if told.verdict == "bad" and not is_rejected:
        sentences.append(about_catching(told.score, told.after))
    sentences.append(about_threshold(told.before, told.after))
    if told.score_after is not None:
        size = len(told.fitted.memory.embeddings)
        joins = "1 of its patches joins" if told.n_added == 1 else f"{told.n_added} of its patches join"
        added = f"{joins} the memory bank, which then has {size}"
        if not told.n_added:
            added = f"The memory bank already covers the image, and keeps its {size} patches"
        sentences.append(f"{added}; by that bank it scores {told.score_after:.4g}.")
        sentences.append(_SCORES_STAY)
    return " ".join([*sentences, *(["Nothing was stored (dry_run)."] if told.dry_run else [])])
