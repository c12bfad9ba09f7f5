"""Good images, bad images and new parts → a model, a threshold and a verdict for every image."""

import shlex
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from backend.bank.images import OwnImages, recorded_sizes, suspicious_images
from backend.calib import ThresholdOptions
from backend.commands.console import count, on_a_terminal, progress_bar, say, some, step_bars
from backend.commands.fit_scores import count_the_fit
from backend.commands.image_files import FoundImages, image_sha256, read_image
from backend.commands.inspection.images import Images
from backend.commands.inspection.maps import ImageMap, Maps
from backend.commands.scoring import max_bytes
from backend.common.errors import (
    IncompatibleMemory,
    InvalidImage,
    InvalidRequest,
    InvalidShape,
    MemoryNotFound,
    TooLarge,
)
from backend.common.profiles import RECOMMENDED, DetailName
from backend.common.program import PROGRAM
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.disk.layout import checkpoint_folder
from backend.infer import Region, find_regions, image_scores, to_image_grid
from backend.roi_mask import Shape, build_mask
from backend.service.calibration_options import CalibrationOptions
from backend.service.detail import settle_detail
from backend.service.doubts import about_inference, joined
from backend.service.fit import fit
from backend.service.image_calibration import ImageCalibration, ImageScores
from backend.service.inspection import InspectionService
from backend.utils import NamedImage

Kind = Literal["good", "bad", "part"]
Verdict = Literal["ok", "ng"]

NEEDED = "a threshold needs at least two different ones, each scored by the memory bank of the others: add good images"


@dataclass(frozen=True)
class Judged:
    """One image and its verdict.

    Attributes:
        path: as it was given.
        kind: its kind, as given.
        score: by the memory bank of the others for an image of the fit; None if unknown, or if the image failed.
        verdict: None if there is no score.
        regions: at or above the threshold, by falling area; empty for images of the fit, whose maps are not kept.
        map: None for images of the fit and for those that failed.
        warning: what is doubtful about its score.
        error: why it could not be judged.
        is_of_the_fit: whether it was given as bad or as a part, although it is a good image of the fit.
        number: of a good image among those of the fit.
    """

    path: str
    kind: Kind
    score: float | None = None
    verdict: Verdict | None = None
    regions: list[Region] = field(default_factory=list)
    map: ImageMap | None = None
    warning: str | None = None
    error: str | None = None
    is_of_the_fit: bool = False
    number: int | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the verdict contradicts its kind."""
        return (self.kind, self.verdict) in (("good", "ng"), ("bad", "ok"))


@dataclass(frozen=True)
class Inspection:
    """The results of an inspection.

    Attributes:
        key: the ROI.
        mm_per_px: millimetres per pixel; 1 if it was not given: then areas are in pixels.
        shape: mask in pixels of each image.
        fitted: the model.
        calibration: the threshold, and the images that influenced it.
        judged: good images, bad images, parts, each in the order given.
        standing_out: paths of good images that score far above the others, or did not count for the threshold; without
            those that were kept.
        lowering: paths of bad images that lowered the threshold.
        doubts: warnings about the threshold and the scores, a sentence each.
    """

    key: RoiKey
    mm_per_px: float
    shape: Shape | None
    fitted: FittedRoi
    calibration: ImageCalibration
    judged: list[Judged]
    standing_out: list[str]
    lowering: list[str]
    doubts: list[str]

    def of(self, kind: Kind) -> list[Judged]:
        """The images of one kind."""
        return [image for image in self.judged if image.kind == kind]

    @property
    def threshold(self) -> float:
        """The threshold: scores at or above it are NG."""
        return self.calibration.calibration.threshold

    @property
    def why(self) -> str | None:
        """The basis of the threshold, in words; None if the user gave the threshold.

        The field `keep` is an option here.
        """
        why = self.calibration.calibration.why
        return None if why is None else why.replace("in keep,", "with --keep,")


@dataclass(frozen=True)
class Asked:
    """How good images are fitted.

    Attributes:
        mm_per_px: millimetres per pixel.
        shape: mask in pixels of each image; None is the whole image.
        detail, smallest_defect_mm: as for `fit`.
    """

    mm_per_px: float
    shape: Shape | None
    detail: DetailName | None = None
    smallest_defect_mm: float | None = None


def fit_once(service: InspectionService, key: RoiKey, good: FoundImages, asked: Asked) -> FittedRoi:
    """The model of some good images: the stored one if it was fitted on the same images, else a new one.

    Args:
        service: who fits.
        key: the ROI.
        good: the images.
        asked: how they are fitted.

    Raises:
        BackendError: as `fit`.
    """
    paths = list(good.values())
    stored = _stored(service, key)
    if stored is not None and _is_of(service, stored, paths, asked):
        say(f"the model of {key} was fitted on the same images and is used again")
        return stored
    if stored is not None:
        say(
            f"the model of {key} is replaced, because its images, scale, mask, profile, detail or BLUR_SIGMA differ. "
            f"`{PROGRAM} versions {key.role_id} {shlex.quote(key.roi_id)}` will list the old one, so that you can "
            "roll back to it"
        )
    try:
        with step_bars() as on_progress:
            fitted = fit(
                service,
                key,
                [NamedImage(path, partial(read_image, path, max_bytes(service.settings))) for path in paths],
                mm_per_px=asked.mm_per_px,
                shapes=[asked.shape] * len(paths),
                profile=RECOMMENDED,
                detail=asked.detail,
                smallest_defect_mm=asked.smallest_defect_mm,
                on_progress=on_progress,
                checkpoint=checkpoint_folder(service.settings.models_dir, key),
            )
    except KeyboardInterrupt:
        say("stopped; run the same command again to resume")
        raise
    if fitted.detail_reason is not None:
        say(fitted.detail_reason)
    return service.fitted(key, with_calibration=False)


def _stored(service: InspectionService, key: RoiKey) -> FittedRoi | None:
    try:
        return service.fitted(key, with_calibration=False)
    except (MemoryNotFound, IncompatibleMemory):
        return None


def _is_of(service: InspectionService, fitted: FittedRoi, paths: Sequence[str], asked: Asked) -> bool:
    """Whether a model was fitted on these images, at this scale, within this mask, in as many tiles."""
    images = OwnImages(fitted.metadata, service.settings.blur_sigma).images
    is_alike = fitted.profile == RECOMMENDED and fitted.metadata.get("mm_per_px") == asked.mm_per_px
    if is_alike and len(images) > 1 and all(not image.scores for image in images):
        return False  # made with another BLUR_SIGMA
    if not is_alike or not all(image.has_mask(asked.shape) for image in images):
        return False
    sizes = recorded_sizes(fitted.metadata)
    wanted = asked.detail or service.settings.detail
    features = service.features_of(RECOMMENDED)
    if settle_detail(wanted, features, sizes, asked.mm_per_px, asked.smallest_defect_mm).number != fitted.detail:
        return False
    return Counter(image.sha256 for image in images) == Counter(
        image_sha256(path, max_bytes(service.settings)) for path in paths
    )


class Inspector:
    """Judges images by a model that was fitted on the good ones.

    Args:
        service: judges.
        key: the ROI.
        fitted: its model.
        mm_per_px: millimetres per pixel of the images.
        shape: mask in pixels of each image.
        folder: keeps the maps, see `Maps`.
    """

    def __init__(
        self,
        service: InspectionService,
        key: RoiKey,
        fitted: FittedRoi,
        mm_per_px: float,
        shape: Shape | None,
        folder: Path,
    ) -> None:
        self._service, self._key, self._fitted = service, key, fitted
        self._mm_per_px, self._shape = mm_per_px, shape
        self._maps = Maps(folder, service, fitted)
        self._percentile = service.score_percentile_of(fitted.profile, fitted.detail)
        self._own = OwnImages(fitted.metadata, service.settings.blur_sigma)
        self._numbers = {image.sha256: number for number, image in enumerate(self._own.images)}

    def inspect(self, images: Images, threshold: ThresholdOptions, keep: Sequence[str]) -> Inspection:
        """Choose the threshold, and judge every image by it.

        Args:
            images: those of the fit, bad ones, and parts.
            threshold: how the threshold is chosen.
            keep: good images that stand out but count, by their given paths.

        Raises:
            InvalidRequest: no good image has a score; a bad image is among the good ones; one of `keep` is not a good
                image.
            InvalidImage: a bad image cannot be judged; no threshold was chosen.
            BackendError: as `ImageScores.calibrate`.
        """
        service = self._service
        scored = [*self._score_all("bad", images.bad), *self._score_all("part", images.parts)]
        if both := [image.path for image in scored if image.kind == "bad" and image.is_of_the_fit]:
            raise InvalidRequest(f"{some(both)}: given as bad, but the same pixels are among the good images")
        if failed := [image for image in scored if image.kind == "bad" and image.error]:
            raise InvalidImage(
                f"{len(failed)} of {count(len(images.bad), 'bad image')} cannot be judged, so no threshold was "
                "chosen: repair them or leave them out"
            )
        found = ImageScores(
            self._fitted,
            service.settings.blur_sigma,
            (self._percentile,),
            service.store.miniatures(self._fitted),
        )
        count_the_fit(found, self._shape, "good images", NEEDED)
        for image in scored:
            if image.kind == "bad" and image.map is not None and image.score is not None:
                found.add("ng", image.map.look.pixels_sha256, image.path, (image.score,))
                (original,) = found.originals_of([image.map.look])
                if original is not None:
                    found.add_near_copy("ng", image.path, original)
        identities = found.identities("ok")
        kept = {self._kept(path, identities) for path in keep}
        positions = tuple(position for position, identity in enumerate(identities) if identity in kept)
        options = CalibrationOptions(threshold=replace(threshold, keep=positions))
        before = service.fitted(self._key).calibration
        chosen = found.calibrate(service, self._key, self._mm_per_px, options)
        if before is not None and (before.threshold, before.decide_by) != (chosen.calibration.threshold, None):
            say(
                f"the threshold was {before.threshold:.4g} before; this run chose a new one from its images. "
                f"`{PROGRAM} versions` lists the replaced model"
            )
        good = self._good(images.good)
        judged = [self._judged(image, chosen) for image in (*good, *scored)]
        return Inspection(
            self._key,
            self._mm_per_px,
            self._shape,
            self._fitted,
            chosen,
            judged,
            self._standing_out(good, [identities[image.position] for image in chosen.unusual], kept),
            [image.filename for image in chosen.lowered_by],
            [*([chosen.warning] if chosen.warning else []), *_about_images(judged)],
        )

    def _score_all(self, kind: Kind, images: FoundImages) -> list[Judged]:
        scored = []
        with progress_bar(f"judge {kind}", len(images)) as bar:
            for path in images.values():
                image = self._score(kind, path)
                if image.error:
                    bar.write(on_a_terminal(image.error), file=sys.stderr)
                scored.append(image)
                bar.update()
        return scored

    def _score(self, kind: Kind, path: str) -> Judged:
        settings = self._service.settings
        named = NamedImage(path, partial(read_image, path, max_bytes(settings)))
        try:
            with self._service.inference_slot():
                found = self._maps.of(named)
            score = image_scores(
                found.distances, found.image_hw, self._shape, settings.blur_sigma, (self._percentile,)
            )[0]
        except (InvalidImage, TooLarge, InvalidShape) as exc:
            return Judged(path, kind, error=str(exc))
        own = self._own.of_pixels(found.look.pixels_sha256)
        if own is None:
            return Judged(path, kind, score, map=found)
        return Judged(path, kind, own.score(self._percentile), is_of_the_fit=True)

    def _kept(self, path: str, identities: Sequence[str]) -> str:
        """The identity of a good image that is kept; `identities` are of those that were scored."""
        number = self._number_of(path)
        if number is None or self._own.images[number].identity not in identities:
            raise InvalidRequest(f"--keep {path}: this is not one of the good images that were scored")
        return self._own.images[number].identity

    def _good(self, images: FoundImages) -> list[Judged]:
        found = []
        for path in images.values():
            number = self._number_of(path)
            score = None if number is None else self._own.images[number].score(self._percentile)
            found.append(Judged(path, "good", score, number=number))
        return found

    def _judged(self, image: Judged, chosen: ImageCalibration) -> Judged:
        if image.score is None:
            return image
        threshold = chosen.calibration.threshold
        regions, warning = [], None
        if image.map is not None:
            warning = self._about(image.map, chosen)
            distance_map = to_image_grid(image.map.distances, image.map.image_hw, self._service.settings.blur_sigma)
            regions = find_regions(
                distance_map,
                build_mask(self._shape, image.map.image_hw),
                threshold,
                chosen.calibration.area_mm2_thr or 0,
                self._mm_per_px,
            )
        return replace(image, verdict="ng" if image.score >= threshold else "ok", regions=regions, warning=warning)

    def _about(self, found: ImageMap, chosen: ImageCalibration) -> str | None:
        """Warnings that `infer` also gives."""
        doubts = about_inference(
            found.image_hw, self._mm_per_px, self._fitted, chosen.calibration, self._service.settings
        )
        return joined([found.warning, doubts])

    def _standing_out(self, good: Sequence[Judged], unusual: Collection[str], kept: Collection[str]) -> list[str]:
        """The paths of `Inspection.standing_out`.

        Args:
            good: the good images.
            unusual: identities of those that did not count.
            kept: identities of those that were kept.
        """
        own = self._own.images
        suspicious = {own[image.index].identity for image in suspicious_images(own, self._percentile)}
        stand_out = (suspicious - set(kept)) | set(unusual)
        return [image.path for image in good if image.number is not None and own[image.number].identity in stand_out]

    def _number_of(self, path: str) -> int | None:
        """The identity of an image of the fit."""
        return self._numbers.get(image_sha256(path, max_bytes(self._service.settings)) or "")


def _about_images(judged: Sequence[Judged]) -> list[str]:
    """Warnings about images, each with its first image."""
    first: dict[str, str] = {}
    for image in judged:
        if image.warning is not None:
            first.setdefault(image.warning, image.path)
    return [f"{path}: {warning}" for warning, path in first.items()]
