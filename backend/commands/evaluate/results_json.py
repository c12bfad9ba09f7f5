"""The results of an evaluation, as JSON."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from backend import __version__
from backend.commands.evaluate.decisions import Decision, drawn_ng
from backend.commands.evaluate.metrics import CONFIDENCE, MAX_FPR, RESAMPLES, SEED, Rate
from backend.commands.evaluate.results import CategoryResult, Evaluation, Group, mean_decisions, means
from backend.common.profiles import coreset_rate_of, score_percentile_of
from backend.utils import utc_now

_PACKAGES = ("numpy", "opencv-python-headless", "scikit-learn", "scipy", "faiss-cpu", "openvino", "torch", "timm")
RESULTS = "results.json"


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything except the pictures; numbers are finite, or None."""
    settings, features = evaluation.settings, evaluation.features
    return {
        "dataset": evaluation.dataset,
        "created_at_utc": utc_now().isoformat(),
        "settings": {
            **features.identity.as_dict(),
            "runtime": features.runtime.name,
            "device": features.runtime.device,
            "profile": evaluation.profile,
            "rule": evaluation.rule,
            "coreset_rate": coreset_rate_of(evaluation.profile, settings.coreset_rate, features.tiling.detail),
            **({} if settings.coreset_max is None else {"coreset_max": settings.coreset_max}),
            "score_percentile": score_percentile_of(
                evaluation.profile, settings.score_percentile, features.tiling.detail
            ),
            "blur_sigma": settings.blur_sigma,
            "max_fpr": MAX_FPR,
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
            "shots": list(evaluation.shots),
            "seeds": evaluation.n_seeds,
        },
        "versions": {"backend": __version__, "python": platform.python_version(), **_versions()},
        "categories": [_category_json(result) for result in evaluation.results],
        "mean": means(evaluation),
        "mean_decisions": [
            {
                "rule": one.chosen_by,
                "n_ng": one.n_ng,
                "false_reject_rate": one.false_reject_rate,
                "escape_rate": one.escape_rate,
                "error": one.error,
            }
            for one in mean_decisions(evaluation)
        ],
    }


def _category_json(result: CategoryResult) -> dict[str, Any]:
    calibration, shift = result.calibration, result.shift
    return {
        "name": result.category.name,
        "n_train": len(result.category.train),
        "n_good": result.n_good,
        "n_defective": len(result.cases) - result.n_good,
        "n_ignored": result.category.n_ignored,
        **({"remarks": list(result.category.remarks)} if result.category.remarks else {}),
        "n_embeddings": result.n_embeddings,
        "bank_size": result.bank_size,
        "ms_per_image": result.ms,
        "ok_scores": result.ok_scores,
        "suspicious": [case.path for case in result.train if case.is_suspicious],
        "threshold": result.threshold,
        **({"why": calibration.why} if calibration and calibration.why else {}),
        **({"promise": calibration.promise.as_dict()} if calibration and calibration.promise else {}),
        **({"good_against_training": {**vars(shift), "matters": shift.matters}} if shift else {}),
        "false_rejects": _rate_json(result.false_rejects),
        "groups": [_group_json(group) for group in result.groups],
        "ng_images": {
            str(n_ng): _drawn(result, n_ng) for n_ng in sorted({one.n_ng for one in result.decisions}) if n_ng
        },
        "few_shot": [
            {
                "shots": run.shots,
                "seed": run.seed,
                **run.values,
                "decisions": [_decision_json(decision) for decision in run.decisions],
            }
            for run in result.few_shot
        ],
        "images": [
            {
                "name": case.image.name,
                "defect": case.image.defect,
                "score": case.score,
                "rejected": case.is_rejected,
                "n_regions": case.n_regions,
                "has_mask": bool(case.image.masks),
                "ms": case.ms,
                "trained_as": case.trained_as,
            }
            for case in result.cases
        ],
    }


def _drawn(result: CategoryResult, n_ng: int) -> list[str]:
    """Names of the defective test images that rules use."""
    defective = [case.image.name for case in result.cases if case.image.is_defective]
    return [defective[place] for place in drawn_ng(len(defective), n_ng)]


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "n_defective": group.n_defective,
        "n_masks": group.n_masks,
        "escapes": _rate_json(group.escapes),
        **{name: vars(measure) for name, measure in group.measures.items()},
        "decisions": [_decision_json(decision) for decision in group.decisions],
    }


def _decision_json(decision: Decision) -> dict[str, Any]:
    return {
        "rule": decision.chosen_by,
        "n_ng": decision.n_ng,
        "threshold": decision.threshold,
        "false_rejects": _rate_json(decision.false_rejects),
        "escapes": _rate_json(decision.escapes),
        "error": decision.error,
    }


def _rate_json(rate: Rate | None) -> dict[str, float] | None:
    if rate is None:
        return None
    low, high = rate.interval
    return {"count": rate.count, "total": rate.total, "rate": rate.value, "low": low, "high": high}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # torch and timm are an extra
            continue
    return found
