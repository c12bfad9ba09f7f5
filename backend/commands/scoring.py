"""Fit, calibrate and infer over files and folders, and roll back: the service's use cases without HTTP.

Every run over images can be stopped and goes on where it was when the same command is given again.
"""

import base64
import contextlib
import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from backend.api.schemas.common import region_reply, version_reply
from backend.api.schemas.inspection import CalibrateFields, FitFields, InferFields, RoiIds, RollbackRequest
from backend.bank.images import OwnImages
from backend.calib import SEEN_IN_THE_FIT
from backend.commands.console import count, print_line, progress_bar, say, step_bars
from backend.commands.heatmaps import check_apart, heatmap_path, write_heatmap
from backend.commands.image_files import Images, find_images, image_sha256, read_image
from backend.commands.records import Conditions, Record, RecordFile, Row
from backend.common.config import Settings
from backend.common.errors import IncompatibleMemory, InvalidImage, InvalidRequest, InvalidShape, TooLarge
from backend.common.roi_key import RoiKey, check_recipe
from backend.disk.layout import checkpoint_folder
from backend.roi_mask import Shape, parse_shape
from backend.scores.percentile_choice import CANDIDATES, choose_percentile
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from backend.utils import NamedImage


def fit(settings: Settings, fields: FitFields, paths: Sequence[str]) -> dict[str, Any]:
    """Learn what OK looks like from images in files and folders; an interrupted fit keeps its embeddings.

    Returns:
        What ``/fit_ok`` replies.

    Raises:
        InvalidRequest, TooLarge: see `find_images`; more images than ``MAX_FILES``.
        BackendError: as `InspectionService.fit_ok`.
    """
    images = _find(paths)
    if len(images) > settings.max_files:
        raise TooLarge(
            f"{count(len(images), 'image')}, at most {settings.max_files} are accepted in one fit (MAX_FILES)"
        )
    key, shape = _key(fields), parse_shape(fields.shape)
    checkpoint = checkpoint_folder(settings.models_dir, key)
    service = InspectionService.open(settings)
    try:
        with step_bars() as on_progress:
            result = service.fit_ok(
                key,
                [NamedImage(image, partial(read_image, image, _max_bytes(settings))) for image in images.values()],
                mm_per_px=fields.mm_per_px,
                keep_all=fields.memory_fit,
                append=fields.append,
                shapes=[shape] * len(images),
                thumbnails=fields.thumbnails,
                on_progress=on_progress,
                checkpoint=checkpoint,
            )
    except KeyboardInterrupt:
        say(f"stopped; run the same command again to go on (until then {checkpoint} keeps what is done)")
        raise
    return {
        "n_embeddings": result.n_embeddings,
        "coreset_size": result.coreset_size,
        "token_shape": list(result.token_hw),
        **(
            {} if result.ok_scores is None else {"ok_scores": dict(zip(images.values(), result.ok_scores, strict=True))}
        ),
        "suspicious": [list(images.values())[image.index] for image in result.suspicious],
    }


def calibrate(
    settings: Settings,
    fields: CalibrateFields,
    shape: Shape | None,
    ok_paths: Sequence[str],
    ng_paths: Sequence[str],
    *,
    scores: Path | None,
    restart: bool,
    choose: bool = False,
) -> dict[str, Any]:
    """Score good and defective images and choose the ROI's threshold.

    Args:
        settings: the configuration.
        fields: ids and what the calibration names.
        shape: mask in pixels of the images, as later inferences will have it.
        ok_paths, ng_paths: files and folders.
        scores: file that keeps the scores, for going on after a stop.
        restart: forget what is in it.
        choose: choose the percentile by `choose_percentile`; such scores are not kept.

    Returns:
        The stored calibration, without what it does not have.

    Raises:
        InvalidRequest: see `find_images`, `RecordFile`; an image is given as OK and as NG; a choice without NG images,
            or with what it excludes.
        InvalidImage: an image could not be scored; nothing was calibrated.
        BackendError: as `InspectionService.infer` and `InspectionService.calibrate_ng`.
    """
    ok, ng = _find(ok_paths), _find(ng_paths) if ng_paths else {}
    if both := ok.keys() & ng.keys():
        raise InvalidRequest(f"{ok[min(both)]} is given as OK and as NG")
    if choose:
        if not ng:
            raise InvalidRequest("--choose-percentile needs images of defective parts: give them with --ng")
        if scores is not None or fields.score_percentile is not None:
            raise InvalidRequest("--choose-percentile goes without --scores and --score-percentile")
    percentile = settings.score_percentile if fields.score_percentile is None else fields.score_percentile
    percentiles = CANDIDATES if choose else (percentile,)
    with _records(scores, restart=restart) as records:
        service = InspectionService.open(settings)
        scoring = Scoring(service, _key(fields), fields.mm_per_px, shape, percentiles[0], percentiles[1:])
        rows, memory_id = _score_all(scoring, [*ok.values(), *ng.values()], records, "--scores")
    if failed := [row for row in rows.values() if row["error"]]:
        raise InvalidImage(
            f"{len(failed)} of {count(len(rows), 'image')} could not be scored, so nothing was calibrated: mend them "
            "or leave them out"
        )
    fitted = service.fitted(scoring.key, with_calibration=False)
    if fitted.memory_id != memory_id:
        raise IncompatibleMemory(f"{scoring.key} was fitted anew while this ran: begin anew")
    own = OwnImages(fitted.metadata, settings.blur_sigma)
    by_the_bank: list[str] = []
    ok_scores: dict[float, list[float]] = {percent: [] for percent in percentiles}
    ng_scores: dict[float, list[float]] = {percent: [] for percent in percentiles}
    for images, of_class in ((ok, ok_scores), (ng, ng_scores)):
        for row in {rows[image]["sha256"]: rows[image] for image in images.values()}.values():  # copies count once
            honest = own.scores(row["sha256"], shape, percentiles)
            if honest is None:
                by_the_bank.append(row["sha256"])
            found = honest or (row["score"], *row.get("scores", ()))
            for percent, score in zip(percentiles, found, strict=True):
                of_class[percent].append(float(score))
    are_fresh = own.are_fresh(by_the_bank)
    choice = choose_percentile(ok_scores, ng_scores) if choose else None
    percentile = choice.chosen if choice else percentile
    calibration = service.calibrate_ng(
        scoring.key,
        ok_scores[percentile],
        ng_scores[percentile],
        mm_per_px=fields.mm_per_px,
        area_mm2_thr=fields.area_mm2_thr,
        score_percentile=percentile,
        memory_id=memory_id,
        target_false_reject_rate=fields.target_false_reject_rate,
        n_candidates=len(percentiles),
        ok_are_fresh=are_fresh,
    )
    reply = calibration.as_dict()
    warnings = [text for text in (calibration.warning, SEEN_IN_THE_FIT if are_fresh is False else None) if text]
    if warnings:
        reply["warning"] = "; ".join(warnings)
    if choice is not None:
        reply["percentile_choice"] = asdict(choice)
    return reply


def infer(
    settings: Settings,
    fields: InferFields,
    paths: Sequence[str],
    *,
    out: Path | None,
    heatmaps: Path | None,
    restart: bool,
) -> int:
    """Judge every image by the ROI's calibration: a record for each, and a heatmap where they are wanted.

    Args:
        settings: the configuration.
        fields: as of ``/infer``.
        paths: files and folders.
        out: file of the records, ``.jsonl`` or ``.csv``; None prints them as JSON lines.
        heatmaps: folder of the heatmaps; see `heatmap_path`.
        restart: forget what is in `out`.

    Returns:
        How many images failed; their records say why.

    Raises:
        InvalidRequest: see `find_images`, `parse_shape`, `RecordFile`; heatmaps among the images.
        BackendError: as `InspectionService.infer`, where it is not about one image.
    """
    shape = parse_shape(fields.shape)
    images = _find(paths)
    heatmap_paths = {image: heatmap_path(heatmaps, image) for image in images.values()} if heatmaps else {}
    check_apart(heatmap_paths.values(), images, paths)
    with _records(out, restart=restart) as records:
        service = InspectionService.open(settings)
        scoring = Scoring(service, _key(fields), fields.mm_per_px, shape, None)
        rows, _ = _score_all(
            scoring, list(images.values()), records, "--out", None if records else _print_record, heatmap_paths
        )
    n_before = len(records.rows.keys() & rows.keys()) if records else 0
    n_failed = sum(bool(row["error"]) for row in rows.values())
    n_ok, n_ng = (sum(row["decision"] == decision for row in rows.values()) for decision in ("ok", "ng"))
    counts = {
        "ok": n_ok,
        "ng": n_ng,
        "not judged, for want of a calibration": len(rows) - n_ok - n_ng - n_failed,
        "failed": n_failed,
    }
    summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    say(f"{count(len(rows), 'image')}: {summary}" + (f" ({n_before} from an earlier run)" if n_before else ""))
    return n_failed


@dataclass(frozen=True)
class Scoring:
    """How the images of a run are scored.

    Attributes:
        service: who scores them.
        key: the ROI.
        mm_per_px: millimetres per pixel.
        shape: mask in pixels of each image.
        percentile: percentile that is the score, whatever the ROI's calibration, which then is not applied; None judges
            by the calibration.
        percentiles: further ones, for `Record.scores`.
    """

    service: InspectionService
    key: RoiKey
    mm_per_px: float
    shape: Shape | None
    percentile: float | None
    percentiles: Sequence[float] = ()

    def conditions(self) -> Conditions:
        """What decides the records, as it is now.

        Raises:
            InvalidRequest: the ROI was never fitted.
            IncompatibleMemory, StorageError: as `ModelStore.load`.
        """
        settings = self.service.settings
        fitted = self.service.store.load(self.key)
        if fitted is None:
            raise InvalidRequest(
                f"no memory bank of {self.key} in MODELS_DIR={settings.models_dir}: "
                "run `python -m backend fit` first, with images of good parts"
            )
        calibration = fitted.calibration if self.percentile is None else None
        percentile, area_mm2_thr = self.percentile, None
        if calibration is not None:
            percentile, area_mm2_thr = calibration.score_percentile, calibration.area_mm2_thr
            area_mm2_thr = float(settings.area_mm2_thr if area_mm2_thr is None else area_mm2_thr)
        return Conditions(
            threshold=float(calibration.threshold) if calibration else None,
            calibration=fitted.calibration_state if self.percentile is None else "none",
            score_percentile=float(settings.score_percentile if percentile is None else percentile),
            area_mm2_thr=area_mm2_thr,
            mm_per_px=float(self.mm_per_px),
            shape=self.shape.model_dump() if self.shape else None,
            blur_sigma=float(settings.blur_sigma),
            memory_id=fitted.memory_id,
            role_id=self.key.role_id,
            roi_id=self.key.roi_id,
        )

    def score(self, image: str, conditions: Conditions) -> tuple[Record, bytes | None]:
        """The record of an image, and its heatmap as PNG unless it failed.

        Raises:
            IncompatibleMemory: the ROI was fitted or calibrated anew since `conditions` were asked for.
            BackendError: as `InspectionService.infer`, where it is not about this image.
        """
        start = time.perf_counter()
        record = partial(Record, image, conditions=conditions)
        sha256 = None
        try:
            content = read_image(image, _max_bytes(self.service.settings))
            sha256 = hashlib.sha256(content).hexdigest()
            result = self.service.infer(
                self.key,
                NamedImage(image, lambda: content),
                mm_per_px=self.mm_per_px,
                shape=self.shape,
                score_percentile=self.percentile,
                percentiles=self.percentiles,
            )
        except (InvalidImage, TooLarge, InvalidShape) as exc:
            return record(sha256, ms=_ms_since(start), error=str(exc)), None
        if self.conditions() != conditions:
            raise IncompatibleMemory(f"{self.key} was fitted or calibrated anew while this ran: begin anew")
        regions = [region_reply(region).model_dump() for region in result.inference.regions]
        heatmap = base64.b64decode(result.heatmap_png_base64)
        return (
            record(
                sha256,
                ms=_ms_since(start),
                score=result.inference.score,
                decision=result.decision,
                regions=regions,
                scores=result.inference.scores,
            ),
            heatmap,
        )


def _score_all(
    scoring: Scoring,
    images: Sequence[str],
    records: RecordFile | None,
    keep_with: str,
    report: Callable[[Record], None] | None = None,
    heatmap_paths: Mapping[str, Path] = MappingProxyType({}),
) -> tuple[dict[str, Row], str]:
    """Score the images that `records` lack, in order.

    Args:
        scoring: how.
        images: paths as they were given.
        records: gets the new records; None keeps none.
        keep_with: the option that names its file.
        report: called with every new record.
        heatmap_paths: where the heatmaps go, by image.

    Returns:
        The rows of all images, by path, and the memory bank that all of them were scored by.
    """
    conditions = scoring.conditions()
    rows: dict[str, Row] = {}
    if records is not None:
        records.require(conditions)
        rows = _rows_that_hold(records, images, scoring.service.settings)
        for row in rows.values():
            if row["error"]:
                say(row["error"])
    missing = [
        image
        for image in images
        if image not in rows
        or (image in heatmap_paths and not rows[image]["error"] and not heatmap_paths[image].exists())
    ]
    try:
        with progress_bar("infer", len(images), len(images) - len(missing)) as bar:
            for image in missing:
                record, heatmap = scoring.score(image, conditions)
                if heatmap is not None and image in heatmap_paths:
                    write_heatmap(heatmap_paths[image], heatmap)
                if image not in rows:  # else only its heatmap was missing
                    if records is not None:
                        records.append(record)
                    if report is not None:
                        report(record)
                    rows[image] = vars(replace(record, regions=None))  # as little as is needed: runs are long
                    if record.error:
                        bar.write(record.error, file=sys.stderr)
                bar.update()
    except KeyboardInterrupt:
        again = f"with {keep_with} FILE a run can go on"
        if records is not None:
            again = f"run the same command again{' without --restart' * records.restart} to go on"
        say(f"stopped, {len(rows)} of {count(len(images), 'image')} done; {again}")
        raise
    return rows, conditions.memory_id


def _rows_that_hold(records: RecordFile, images: Sequence[str], settings: Settings) -> dict[str, Row]:
    """The records of unchanged images; of the changed ones those that failed are dropped, to be tried again.

    Raises:
        InvalidRequest: an image that did not fail has changed since.
    """
    known = [image for image in images if image in records.rows]
    if not known:
        return {}
    with progress_bar("check", len(known)) as bar:
        for image in known:
            row = records.rows[image]
            if image_sha256(image, _max_bytes(settings)) != (row["sha256"] or None):
                if not row["error"]:
                    raise InvalidRequest(
                        f"{image} has changed since its record in {records.path} was made: "
                        "give another file, or begin anew with --restart"
                    )
                records.drop(image)
            bar.update()
    return {image: records.rows[image] for image in known if image in records.rows}


def _print_record(record: Record) -> None:
    # On one terminal with the bar, which makes room.
    with tqdm.external_write_mode() if sys.stdout.isatty() else contextlib.nullcontext():
        print_line(record.as_json().decode().rstrip())


def _records(path: Path | None, *, restart: bool) -> contextlib.AbstractContextManager[RecordFile | None]:
    return contextlib.nullcontext() if path is None else RecordFile.opened(path, restart=restart)


def _find(paths: Sequence[str]) -> Images:
    images, n_ignored = find_images(paths)
    if n_ignored:
        say(f"{count(n_ignored, 'other file')} ignored")
    return images


def versions(settings: Settings, fields: RoiIds) -> list[dict[str, Any]]:
    """What a ROI's model was before its last changes, as ``/versions`` replies; loads no network.

    Raises:
        BackendError: as `ModelStore.versions`.
    """
    found = ModelStore(settings.models_dir).versions(_key(fields))
    return [version_reply(version, calibration).model_dump(exclude_none=True) for version, calibration in found]


def roll_back(settings: Settings, fields: RollbackRequest) -> dict[str, Any]:
    """Serve an earlier model of a ROI again.

    Returns:
        What is served now, without what it does not have.

    Raises:
        BackendError: as `InspectionService.roll_back`.
    """
    version, fitted = InspectionService.open(settings).roll_back(_key(fields), fields.version)
    return {
        "version": version.number,
        "memory_id": fitted.memory_id,
        "calibration": fitted.calibration_state,
        **({"threshold": fitted.calibration.threshold} if fitted.calibration else {}),
        "coreset_size": len(fitted.memory.embeddings),
        "token_shape": list(fitted.memory.token_hw),
    }


def _key(fields: RoiIds) -> RoiKey:
    key = fields.roi_key()
    check_recipe(key.recipe_id)
    return key


def _max_bytes(settings: Settings) -> int:
    return int(settings.max_file_mb * 2**20)


def _ms_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
