"""The route of the known scores of stored images."""

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.dependencies import HeaderRecipe, RequestId, Service, ids_of, roi_key
from backend.api.examples import ERRORS
from backend.api.schemas.common import model_reply
from backend.api.schemas.datasets import Label
from backend.api.schemas.stored_scores import KnownScoreReply, ScoresQuery, ScoresReply
from backend.service.known_scores import known_scores

router = APIRouter()


@router.get(
    "/datasets/scores",
    summary="List the known scores of the stored images.",
    response_model_exclude_none=True,
    tags=["data sets"],
    responses=ERRORS["scores"],
)
def stored_scores(
    wanted: Annotated[ScoresQuery, Query()], service: Service, request_id: RequestId, recipe: HeaderRecipe
) -> ScoresReply:
    """The scores of stored images from the fit and from the last calibration; nothing is inferred."""
    key = roi_key(wanted, recipe)
    labels: tuple[Label, ...] = (wanted.label,) if wanted.label else ("ok", "ng")
    found = known_scores(service, key, labels, wanted.offset, wanted.limit)
    fitted = found.fitted
    calibration = fitted.calibration
    images = [
        KnownScoreReply(
            label=image.sample.label,
            filename=image.sample.name,
            uploaded_as=image.sample.uploaded_as,
            known=image.score is not None,
            score=image.score,
            honest=image.honest,
            in_fit=image.in_fit,
            error=image.error,
            code=image.code,
        )
        for image in found.images
    ]
    return ScoresReply(
        **ids_of(key, request_id),
        calibration=fitted.calibration_state,
        threshold=calibration.threshold if calibration else None,
        decide_by=calibration.decide_by if calibration else None,
        calib=calibration.as_dict() if calibration else None,
        score_percentile=found.percentile,
        images=images,
        n_total=found.n_total,
        n_unknown=sum(not image.known for image in images),
        model=model_reply(fitted),
    )
