"""Scoring the images of files and folders: a stopped run resumes when the command is repeated."""

import base64
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from backend.api.schemas.inspection import region_reply
from backend.calib import Calibration
from backend.commands.console import count, on_a_terminal, progress_bar, say, shown
from backend.commands.excel import Excel
from backend.commands.heatmaps import Heatmaps
from backend.commands.image_files import image_sha256, read_image
from backend.commands.models_folder import what_is_fitted
from backend.commands.records import Conditions, Record, RecordFile, Row
from backend.common.config import Settings
from backend.common.errors import IncompatibleMemory, InvalidImage, InvalidRequest, InvalidShape, StorageError, TooLarge
from backend.common.profiles import score_percentile_of
from backend.common.program import PROGRAM
from backend.common.roi_key import RoiKey
from backend.disk.fitted import CalibrationState, FittedRoi
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.pictures import NO_PICTURES, Wanted
from backend.service.scoring import Scoring
from backend.utils import NamedImage

PictureName = Literal["heatmap", "overlay"]


class Encoded(NamedTuple):
    """The pictures of an image as PNG; empty if there is none."""

    heatmap: bytes = b""
    overlay: bytes = b""


@dataclass(frozen=True)
class Scorer:
    """Scores the images of a run.

    Attributes:
        service: who scores them.
        key: the ROI.
        scoring: how they are scored.
        warnings: about judgements, each with the first image that it is about.
        with_identity: whether records have the identity of the pixels of their images.
        wanted: pictures of each image.
    """

    service: InspectionService
    key: RoiKey
    scoring: Scoring
    warnings: dict[str, str] = field(default_factory=dict)
    with_identity: bool = False
    wanted: Wanted = NO_PICTURES

    def conditions(self) -> Conditions:
        """The current conditions of records.

        Raises:
            InvalidRequest: the ROI was never fitted.
            IncompatibleMemory, StorageError: as `ModelStore.load`.
        """
        settings = self.service.settings
        fitted = self._fitted()
        calibration = fitted.calibration if self.scoring.percentile is None else None
        percentile, area_mm2_thr = self.scoring.percentile, None
        if calibration is not None:
            percentile, area_mm2_thr = calibration.score_percentile, calibration.area_mm2_thr
            area_mm2_thr = float(settings.area_mm2_thr if area_mm2_thr is None else area_mm2_thr)
        return Conditions(
            threshold=float(calibration.threshold) if calibration else None,
            calibration=fitted.calibration_state if self.scoring.percentile is None else "none",
            score_percentile=float(
                score_percentile_of(fitted.profile, settings.score_percentile, fitted.detail)
                if percentile is None
                else percentile
            ),
            area_mm2_thr=area_mm2_thr,
            mm_per_px=float(self.scoring.mm_per_px),
            shape=self.scoring.shape.model_dump() if self.scoring.shape else None,
            blur_sigma=float(settings.blur_sigma),
            memory_id=fitted.memory_id,
            role_id=self.key.role_id,
            roi_id=self.key.roi_id,
            decide_by=calibration.decide_by if calibration else None,
            pixel_threshold=calibration.pixel_threshold if calibration else None,
        )

    def calibration(self) -> tuple[Calibration | None, CalibrationState]:
        """The calibration that is applied, and its state.

        Raises:
            InvalidRequest, IncompatibleMemory, StorageError: as `conditions`.
        """
        fitted = self._fitted()
        return fitted.calibration, fitted.calibration_state

    def _fitted(self) -> FittedRoi:
        settings = self.service.settings
        fitted = self.service.store.load(self.key)
        if fitted is None:
            where = f"MODELS_DIR={settings.models_dir}" if settings.models_url is None else "MODELS_URL"
            raise InvalidRequest(
                f"no memory bank of {self.key} in {where}: run `{PROGRAM} fit` first, with images of good parts; "
                f"{what_is_fitted(settings)}"
            )
        return fitted

    def score(self, image: str, conditions: Conditions) -> tuple[Record, Encoded]:
        """The record of an image, and its pictures unless it failed.

        Raises:
            IncompatibleMemory: the ROI was fitted or calibrated anew since `conditions` were read.
            BackendError: as `infer`, except for errors of this image.
        """
        start = time.perf_counter()
        record = partial(Record, image, conditions=conditions)
        sha256 = None
        try:
            content = read_image(image, max_bytes(self.service.settings))
            sha256 = hashlib.sha256(content).hexdigest()
            sent = NamedImage(image, lambda: content)
            result = infer(
                self.service, self.key, sent, self.scoring, with_identity=self.with_identity, wanted=self.wanted
            )
        except (InvalidImage, TooLarge, InvalidShape) as exc:
            return record(sha256, ms=_ms_since(start), error=str(exc)), Encoded()
        if self.conditions() != conditions:
            raise IncompatibleMemory(f"{self.key} was fitted or calibrated anew during this run: begin again")
        if result.warning is not None and result.warning not in self.warnings:
            self.warnings[result.warning] = image
        regions = [region_reply(region).model_dump() for region in result.inference.regions]
        return (
            record(
                sha256,
                ms=_ms_since(start),
                score=result.inference.score,
                decision=result.decision,
                regions=regions,
                scores=result.scores,
                pixels_sha256=result.pixels_sha256,
                why=result.why,
            ),
            Encoded(*map(base64.b64decode, (result.heatmap_png_base64, result.overlay_png_base64 or ""))),
        )


def score_all(
    scorer: Scorer,
    images: Sequence[str],
    records: RecordFile | None,
    keep_with: str,
    report: Callable[[Record], None] | None = None,
    pictures: Mapping[PictureName, Heatmaps] = MappingProxyType({}),
) -> tuple[dict[str, Row], str]:
    """Score the images that `records` lack, in order.

    Args:
        scorer: scores them.
        images: paths as they were given.
        records: gets the new records; None keeps none.
        keep_with: the option of its file.
        report: called with every new record.
        pictures: the files of pictures, by the field of a record with their names.

    Returns:
        The rows of all images, by path, and the memory bank that scored them.

    Raises:
        InvalidRequest: the ROI was never fitted; records of other conditions, or of an image that has changed.
        BackendError: as `Scorer.score`.
    """
    _check_distinct(images)
    conditions = scorer.conditions()
    rows: dict[str, Row] = {}
    if records is not None:
        records.require(conditions)
        rows = _rows_that_hold(records, images, scorer.service.settings)
        for row in rows.values():
            if row["error"]:
                say(row["error"])
    missing = [
        image
        for image in images
        if image not in rows or (not rows[image]["error"] and any(files.lacks(image) for files in pictures.values()))
    ]
    if missing:
        for files in pictures.values():
            files.prepare()
    try:
        with progress_bar("infer", len(images), len(images) - len(missing)) as bar:
            for image in missing:
                record, encoded = scorer.score(image, conditions)
                if not record.error:
                    record = _written(record, encoded, pictures, bar)
                if image not in rows:  # else only a picture was missing
                    if records is not None:
                        records.append(record)
                    if report is not None:
                        report(record)
                    rows[image] = vars(replace(record, regions=None))  # as little as is needed: runs are long
                    if record.error:
                        bar.write(on_a_terminal(record.error), file=sys.stderr)
                bar.update()
    except (KeyboardInterrupt, StorageError):
        again = f"with {keep_with} FILE a run can be resumed"
        if records is not None:
            again = f"run the same command again{' without --restart' * records.restart} to resume"
        say(f"stopped, {len(rows)} of {count(len(images), 'image')} done; {again}")
        raise
    return rows, conditions.memory_id


def _written(record: Record, encoded: Encoded, pictures: Mapping[PictureName, Heatmaps], bar: "tqdm[Any]") -> Record:
    """Write the pictures of an image; returns the record with their files."""
    elsewhere = {name: files.write(record.path, getattr(encoded, name)) for name, files in pictures.items()}
    for files in pictures.values():
        if record.path in files.failed:
            bar.write(on_a_terminal(files.failed[record.path]), file=sys.stderr)
    return replace(record, heatmap=elsewhere.get("heatmap"), overlay=elsewhere.get("overlay"))


def say_warnings(scorer: Scorer) -> None:
    """Print the warnings about the images of a run to stderr, each with its first image."""
    for warning, image in scorer.warnings.items():
        say(f"warning: {image}: {warning}")


def _check_distinct(images: Sequence[str]) -> None:
    """Refuse images whose names are equal in records.

    Raises:
        InvalidRequest: the escapes for the bytes of one name are the letters of another.
    """
    seen: dict[str, str] = {}
    for image in images:
        if seen.setdefault(shown(image), image) != image:
            raise InvalidRequest(f"two files have names that records show as {shown(image)}: rename one of them")


def _rows_that_hold(records: RecordFile, images: Sequence[str], settings: Settings) -> dict[str, Row]:
    """The records of unchanged images; changed images that failed are dropped, so that they are tried again.

    Raises:
        InvalidRequest: an image that did not fail has changed since.
    """
    known = [image for image in images if shown(image) in records.rows]
    if not known:
        return {}
    with progress_bar("check", len(known)) as bar:
        for image in known:
            row = records.rows[shown(image)]
            if image_sha256(image, max_bytes(settings)) != (row["sha256"] or None):
                if not row["error"]:
                    raise InvalidRequest(
                        f"{image} has changed since its record in {records.path} was made: give another file, or "
                        "begin again with --restart"
                    )
                records.drop(image)
            bar.update()
    return {image: records.rows[shown(image)] for image in known if shown(image) in records.rows}


def open_records(
    path: Path | None, *, restart: bool, excel: Excel | None = None
) -> contextlib.AbstractContextManager[RecordFile | None]:
    """The records that a file keeps; None without a file."""
    return contextlib.nullcontext() if path is None else RecordFile.opened(path, restart=restart, excel=excel)


def max_bytes(settings: Settings) -> int:
    """The row of one image."""
    return int(settings.max_file_mb * 2**20)


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
