"""The engine in this process as the judge, as in the other commands."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

from backend.commands.watch.judges import Away, Learnt, Refused, place_of, shape_text
from backend.commands.watch.layouts import DrawnRoi
from backend.commands.watch.pictures import Crop
from backend.commands.watch.verdicts import Answer
from backend.common.errors import BackendError, Busy, LayoutNotFound, NotReady, SampleNotFound
from backend.common.roi_key import RoiKey
from backend.roi_mask import requested_shape
from backend.service.bank_report import bank_report
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.judgement_log import judgement_of
from backend.service.pictures import NO_PICTURES
from backend.service.scoring import Scoring
from backend.utils import NamedImage


class EngineJudge:
    """Judges by the models in ``MODELS_DIR``, or in ``MODELS_URL``.

    Args:
        service: the engine and its models.
    """

    def __init__(self, service: InspectionService) -> None:
        self._service = service

    def layout(self, recipe: str) -> bytes:
        """As of `Judge`."""
        try:
            return self._service.layouts.read(recipe)
        except LayoutNotFound as exc:
            settings = self._service.settings
            where = f"MODELS_DIR={settings.models_dir}" if settings.models_url is None else "MODELS_URL"
            raise LayoutNotFound(
                f"no layout of recipe {recipe!r} is stored in {where}: draw its ROIs in the console first, or give a "
                "layout file"
            ) from exc

    def template(self, recipe: str, name: str) -> bytes:
        """As of `Judge`."""
        return self._service.layouts.read_picture(recipe, name)

    def learn(self, drawn: DrawnRoi) -> Learnt:
        """As of `Judge`."""
        with _told():
            report = bank_report(self._service, drawn.key)
            names = [entry.image.name for entry in report.entries]
            place = place_of(drawn, names, lambda name: self._metadata(drawn.key, name))
            scale = self._service.recipes.mm_per_px(drawn.key.recipe) or report.fitted.metadata.get("mm_per_px")
        calibration = report.fitted.calibration
        return Learnt(report.fitted.memory_id, scale, place, None if calibration is None else calibration.threshold)

    def infer(self, drawn: DrawnRoi, crop: Crop, name: str, mm_per_px: float, part_id: str) -> Answer:
        """As of `Judge`."""
        service, key = self._service, drawn.key
        with _told():
            shape, _ = requested_shape(shape_text(crop))
            scoring, is_kept = Scoring(mm_per_px, shape, with_why=True), service.history.most > 0
            image = NamedImage(name, lambda: crop.content)
            result = infer(service, key, image, scoring, wanted=NO_PICTURES, with_thumbnail=is_kept)
            service.drift.record(key, result.fitted, result.inference.score, part_id)
            if result.thumbnail is not None:
                judgement = judgement_of(result, mm_per_px, uuid.uuid4().hex)
                service.history.record(key, judgement, result.thumbnail, part_id)
        calibration = result.calibration
        areas = [region.area_mm2 for region in result.inference.regions] if calibration is not None else None
        return Answer(
            result.inference.score,
            None if calibration is None else calibration.threshold,
            result.decision,
            result.calibration_state,
            result.fitted.key.recipe,
            result.fitted.memory_id,
            None if areas is None else len(areas),
            None if areas is None else max(areas, default=0.0),
            None if calibration is None else calibration.decide_by,
            None if calibration is None else calibration.pixel_threshold,
            result.why,
            result.warning,
        )

    def close(self) -> None:
        """As of `Judge`."""
        self._service.drift.close()
        self._service.history.close()

    def _metadata(self, key: RoiKey, name: str) -> dict[str, Any] | None:
        try:
            return self._service.datasets.find(key, "ok", name).metadata()
        except SampleNotFound:
            return None


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Converts errors of the engine to those of a `Judge`."""
    try:
        yield
    except (Busy, NotReady) as exc:
        raise Away(str(exc), exc.retry_after_s) from exc
    except BackendError as exc:
        raise Refused(str(exc)) from exc
