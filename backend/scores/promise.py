"""What scores can promise about a threshold: false reject and escape rates with bounds that hold for any distribution.

A part is rejected when ``score >= threshold``. Two things are assumed: future good parts come from the same process as
the scored ones, and the scores are independent, because the parts were not in the fit. Nothing else is assumed: ties,
heavy tails and overlapping classes are all right. Leave-one-out scores of a fit's own images share most of their memory
banks; for them the bounds hold approximately, as ``tests/service/test_promise_of_a_fit.py`` shows. Every bound is the
upper end of Clopper and Pearson, *The use of confidence or fiducial limits illustrated in the case of the binomial*,
Biometrika 26 (1934), at a confidence that makes up for the threshold having been chosen from the very scores that are
counted:

- It is at or above a fixed order statistic of the good scores: no correction, if at least as many scores are counted as
  rejected as are beyond that order statistic. (Let t be where the true rate falls to the bound for that count. A
  threshold below t breaks its bound only when at least so many scores lie below t, which a binomial variable does with
  the stated probability at most.) - It mixes two neighbouring order statistics of one class with scores of the other,
  which are independent: given those two, the scores on either side are again a sample. Over everything that the mixture
  could then do, the most that a bound can fail is an integral, below 5 % where the single bound allows 1.5 %;
  ``tests/scores/test_promise.py`` computes it. - It is any other function of the scores: `k` of them are counted as
  rejected only where it lies above the (k + 1)-th largest, and each k has a share of the 5 % of its own, ``6 / (π² (k +
  1)²)``, all of them together 1. - It is the best of several candidates: each gets its share of the 5 % (Bonferroni).

A part may also be judged by two scores, and be rejected where either reaches a threshold of its own: see
`make_joint_promise`.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from typing import Any

CONFIDENCE = 0.95
PROMISED_RATE = 0.01
# More good scores than that are not asked for.
_MOST_SCORES = 100_000
# Of the allowed error, what a single bound is given where the threshold mixes both classes; by number of candidates.
_SHARE_OF_MIXED = {1: 0.3, 6: 0.2}


@dataclass(frozen=True)
class Promise:
    """What the scores behind a threshold say about future parts; each bound holds with `confidence`.

    Attributes:
        confidence: 0..1, of each bound separately.
        text: the same in words.
        n_rejected: good scores at or above the threshold.
        false_reject_rate: expected share of good parts at or above it, ``(counted + 1) / (n_ok + 1)``:
            counted are the rejected scores, but at least as many as the rule rejects by design.
        false_reject_rate_at_most: its upper bound. The three are None if a good score comes from an image of the fit,
            by a memory bank that contains it.
        n_ok_needed: number of good scores with which the same rule promises 1 %, if no more of them are rejected than
            now; None if no realistic number does.
        n_ok_missing: how many of these are missing; 0 exactly if 1 % is promised.
        n_ok_missing_for_target: how many further good scores a requested false reject rate needs.
        n_escaped: defective scores below the threshold. It and the next two are None without such scores.
        escape_rate: expected share of defective parts below it, ``(n_escaped + 1) / (n_ng + 1)``.
        escape_rate_at_most: its upper bound.
    """

    confidence: float
    text: str
    n_rejected: int | None = None
    false_reject_rate: float | None = None
    false_reject_rate_at_most: float | None = None
    n_ok_needed: int | None = None
    n_ok_missing: int | None = None
    n_ok_missing_for_target: int | None = None
    n_escaped: int | None = None
    escape_rate: float | None = None
    escape_rate_at_most: float | None = None

    @classmethod
    def read(cls, stored: Any) -> "Promise | None":
        """What `dataclasses.asdict` gave, back from JSON; None for anything else."""
        if not isinstance(stored, dict) or not isinstance(stored.get("text"), str):
            return None
        numbers = {field.name: stored[field.name] for field in fields(cls) if stored.get(field.name) is not None}
        text = numbers.pop("text")
        whole = all(type(value) is int for name, value in numbers.items() if name.startswith("n_"))
        rates = [value for name, value in numbers.items() if not name.startswith("n_")]
        if not whole or not all(type(rate) in (int, float) and 0 <= rate <= 1 for rate in rates):
            return None
        return cls(text=text, **numbers) if "confidence" in numbers else None

    def as_dict(self) -> dict[str, Any]:
        """JSON values, without unknown members."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def make_promise(
    ok_scores: Sequence[float],
    ng_scores: Sequence[float],
    threshold: float,
    *,
    rank: int | None,
    target: float | None = None,
    n_candidates: int = 1,
    ok_are_fresh: bool | None = None,
    freely_chosen: bool = False,
    unusual: Collection[int] = (),
) -> Promise:
    """What a threshold promises.

    Args:
        ok_scores: scores of good parts, at least one.
        ng_scores: scores of defective parts.
        threshold: scores at or above it are rejected.
        rank: the threshold was chosen from good scores alone, and is never below the `rank`-th smallest of them (1 is
            the smallest). None: it is a mean of percentiles of both classes.
        target: the false reject rate that the threshold was chosen for by `conformal_threshold`, if any.
        n_candidates: number of calibrations, each with its own scores, from which this one was chosen.
        ok_are_fresh: whether every good score was made by a memory bank without its image; None if unknown.
        freely_chosen: the threshold may be any function of all scores; `rank` is None then.
        unusual: positions of good scores that always count as rejected.
    """
    error = (1 - CONFIDENCE) / n_candidates

    def mixed_error(count: int) -> float:
        return error * (_share_of_count(count) if freely_chosen else _SHARE_OF_MIXED[n_candidates])

    n_ok, n_ng = len(ok_scores), len(ng_scores)
    known: dict[str, Any] = {}
    if target is not None:
        known["n_ok_missing_for_target"] = max(0, math.ceil(1 / Fraction(str(target))) - 1 - n_ok)
    if ok_are_fresh is not False:
        n_rejected = sum(score >= threshold or position in unusual for position, score in enumerate(ok_scores))
        ok_error = mixed_error(n_rejected) if rank is None else error
        counted = n_rejected if rank is None else max(n_rejected, n_ok - rank)
        at_most = upper_bound(counted, n_ok, 1 - ok_error)
        known |= {
            "n_rejected": n_rejected,
            "false_reject_rate": (counted + 1) / (n_ok + 1),
            "false_reject_rate_at_most": at_most,
        }
        needed = None
        if rank is None:
            needed = _scores_needed(n_rejected, n_ok, 1 - ok_error)
        elif target is not None:
            least = 1 if at_most <= PROMISED_RATE else n_ok
            needed = _scores_needed_for_target(target, least, 1 - ok_error)
        if needed is not None:
            known |= {"n_ok_needed": needed, "n_ok_missing": max(0, needed - n_ok)}
    if ng_scores:
        n_escaped = sum(score < threshold for score in ng_scores)
        known |= {
            "n_escaped": n_escaped,
            "escape_rate": (n_escaped + 1) / (n_ng + 1),
            "escape_rate_at_most": upper_bound(
                n_escaped, n_ng, 1 - (mixed_error(n_escaped) if rank is None else error)
            ),
        }
    text = _in_words(n_ok, target, known, mixed=rank is None, if_fresh=ok_are_fresh is None)
    return Promise(confidence=CONFIDENCE, text=text, **known)


def make_joint_promise(
    ok_pairs: Sequence[tuple[float, float]],
    ng_pairs: Sequence[tuple[float, float]],
    thresholds: tuple[float, float],
    *,
    n_cut: int | None = None,
    target: float | None = None,
    ok_are_fresh: bool | None = None,
    unusual: Collection[int] = (),
) -> Promise:
    """What two thresholds promise together, if a part is rejected when either of its two scores reaches its threshold.

    Cut the good parts off one after the other: the highest by the first score, then, of those below, the highest by the
    second. However many go in each step, what is left of n parts when m have gone has the probability of the part below
    the m-th largest of n single scores (Wald, *An extension of Wilks' method for setting tolerance limits*, Annals of
    Mathematical Statistics 14, 1943). Thresholds that are such cuts themselves, with fixed numbers, need no correction.
    Any other thresholds that reject k good parts, a of them by the first score, accept at least what is left by the
    cut of a + 1 and then k - a + 1: there are k + 1 of these, and each has an equal part of what is kept for this k, as
    for a single threshold. In the same way, what escapes with k of N defective parts lies within what is left by the
    cut of a and then N - k - a, one of N - k + 1.

    Args:
        ok_pairs: the two scores of each good part, at least one.
        ng_pairs: of each defective part.
        thresholds: of the first score and of the second.
        n_cut: the thresholds lie at or above the last parts of two cuts, of so many good parts together, as
            `conformal_thresholds` makes them. None: they are any function of all scores.
        target: the false reject rate that the thresholds were chosen for, if any.
        ok_are_fresh: as for `make_promise`.
        unusual: positions of good parts that always count as rejected.
    """
    error = 1 - CONFIDENCE
    n_ok, n_ng = len(ok_pairs), len(ng_pairs)
    known: dict[str, Any] = {}
    if target is not None:
        known["n_ok_missing_for_target"] = max(0, math.ceil(2 / Fraction(str(target))) - 1 - n_ok)
    if ok_are_fresh is not False:
        rejected = (_reaches(pair, thresholds) or number in unusual for number, pair in enumerate(ok_pairs))
        n_rejected = sum(rejected)
        ok_error = error * (_share_of_count(n_rejected) / (n_rejected + 1) if n_cut is None else 1)
        counted = n_rejected + 1 if n_cut is None else n_cut - 1
        at_most = upper_bound(counted, n_ok, 1 - ok_error)
        known |= {
            "n_rejected": n_rejected,
            "false_reject_rate": (n_rejected + 2 if n_cut is None else n_cut) / (n_ok + 1),
            "false_reject_rate_at_most": at_most,
        }
        if target is not None:
            least = 1 if at_most <= PROMISED_RATE else n_ok
            needed = _scores_needed_for_target(target, least, 1 - ok_error, least_count=1)
        elif n_rejected > PROMISED_RATE * n_ok:
            needed = None
        else:
            needed = _scores_needed(counted, math.ceil(counted / PROMISED_RATE), 1 - ok_error)
        if needed is not None:
            known |= {"n_ok_needed": needed, "n_ok_missing": max(0, needed - n_ok)}
    if ng_pairs:
        n_escaped = sum(not _reaches(pair, thresholds) for pair in ng_pairs)
        ng_error = error * (_share_of_count(n_escaped) / (n_ng - n_escaped + 1) if n_cut is None else 1)
        known |= {
            "n_escaped": n_escaped,
            "escape_rate": (n_escaped + 1) / (n_ng + 1),
            "escape_rate_at_most": upper_bound(n_escaped, n_ng, 1 - ng_error),
        }
    text = _in_words(n_ok, target, known, mixed=n_cut is None, if_fresh=ok_are_fresh is None)
    return Promise(confidence=CONFIDENCE, text=text, **known)


def _reaches(pair: tuple[float, float], thresholds: tuple[float, float]) -> bool:
    return pair[0] >= thresholds[0] or pair[1] >= thresholds[1]


def _share_of_count(count: int) -> float:
    return 6 / (math.pi * (count + 1)) ** 2


def upper_bound(count: int, n: int, confidence: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a probability, from `count` events in `n` trials.

    >>> round(upper_bound(0, 299, 0.95), 4)
    0.01
    """
    from scipy.special import betaincinv  # half a second that a start need not wait for

    return 1.0 if count >= n else float(betaincinv(count + 1, n - count, confidence))


def _scores_needed(n_rejected: int, n_ok: int, confidence: float) -> int | None:
    """The fewest scores that bound a rate by 1 % when `n_rejected` are rejected; None if more than 1 % are."""
    if n_rejected > PROMISED_RATE * n_ok:
        return None
    if n_rejected == 0:
        return math.ceil(math.log1p(-confidence) / math.log1p(-PROMISED_RATE))
    most = n_rejected
    while upper_bound(n_rejected, most, confidence) > PROMISED_RATE:
        most *= 2
    return _fewest(n_rejected, n_rejected, most, confidence)


def _scores_needed_for_target(target: float, least: int, confidence: float, least_count: int = 0) -> int | None:
    """The fewest scores, `least` or more, from which `conformal_threshold` rejects at most 1 % with a confidence.

    It counts ``max(least_count, ⌊(n + 1) · target⌋ - 1)`` of n as rejected, which rises in steps. The bound falls
    between them, so what is best of a step is its end.

    Returns:
        None if `_MOST_SCORES` are not enough.
    """
    if target >= PROMISED_RATE:
        return None
    rate = Fraction(str(target))
    for count in range(least_count, math.floor(_MOST_SCORES * PROMISED_RATE)):
        last = math.ceil((count + 2) / rate) - 2
        if last >= least and upper_bound(count, last, confidence) <= PROMISED_RATE:
            first = math.ceil((count + 1) / rate) - 1 if count > least_count else 1
            needed = _fewest(count, max(first, least), last, confidence)
            return needed if needed <= _MOST_SCORES else None
    return None


def _fewest(count: int, least: int, most: int, confidence: float) -> int:
    """The fewest of `least` to `most` scores that bound a rate by 1 % when `count` are rejected; `most` do."""
    return least + bisect_left(
        range(least, most), True, key=lambda n: upper_bound(count, n, confidence) <= PROMISED_RATE
    )


def _in_words(n_ok: int, target: float | None, known: dict[str, Any], *, mixed: bool, if_fresh: bool) -> str:
    scores = "1 OK score is" if n_ok == 1 else f"{n_ok} OK scores are"
    sentences = []
    if missing := known.get("n_ok_missing_for_target"):
        sentences.append(
            f"{scores} too few for a false reject rate of {target:g}, {_more(missing)} needed: the threshold is just "
            "above the highest of them"
        )
    if known.get("false_reject_rate_at_most") is None:
        sentences.append("nothing is promised about false rejects: the scores of OK images in the fit are too low")
    else:
        at_most, n_rejected = known["false_reject_rate_at_most"], known["n_rejected"]
        condition = ", if the scores are ok_scores of the fit or of parts that were not in the fit" if if_fresh else ""
        sentences.append(
            f"at most {_percent(at_most)} of good parts are rejected ({100 * CONFIDENCE:.0f} % confidence){condition}"
        )
        if missing := known.get("n_ok_missing"):
            sentences.append(f"{scores} too few to promise 1 %: {_more(missing)} needed")
        elif at_most > PROMISED_RATE and mixed:
            are, those = ("is", "that part") if n_rejected == 1 else ("are", "those parts")
            sentences.append(
                f"{n_rejected} of {n_ok} good scores {are} rejected, so more scores like these will not reach 1 %: "
                f"check {those}"
            )
        elif at_most > PROMISED_RATE:
            sentences.append(
                f"this rule rejects about {100 * (target or PROMISED_RATE):g} % by design: to promise 1 %, ask for a "
                "smaller target_false_reject_rate"
            )
    if "escape_rate_at_most" in known:
        escapes = _percent(known["escape_rate_at_most"])
        sentences.append(f"at most {escapes} of parts like the NG ones escape ({100 * CONFIDENCE:.0f} % confidence)")
    return "; ".join(sentences)


def _more(missing: int) -> str:
    return f"{missing} more {'is' if missing == 1 else 'are'}"


def _percent(rate: float) -> str:
    """A percentage, rounded up, so that a bound never looks smaller than it is."""
    percent = 100 * rate
    digits = 0 if percent >= 10 else 1 if percent >= 1 else 2
    scaled = math.ceil(round(percent * 10**digits, 6)) / 10**digits
    return f"{scaled:.{digits}f} %"
