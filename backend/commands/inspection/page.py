"""The results of an inspection, as one self-contained HTML page."""

from collections.abc import Mapping, Sequence

import numpy as np

from backend.bit_depth import BitDepth
from backend.calib import choose_threshold
from backend.commands.console import count, progress_bar, some
from backend.commands.image_files import read_image
from backend.commands.inspection.inspection import Inspection, Judged
from backend.commands.report.content import Card, Decided, Mark, ScoredImage, Section, Words, telling
from backend.commands.report.content import Kind as ShownKind
from backend.commands.report.pictures import draw, scale_of
from backend.commands.report.rendering import render
from backend.commands.scoring import max_bytes
from backend.common.arrays import DistanceMap
from backend.roi_mask import build_mask
from backend.service.inspection import InspectionService
from backend.utils import NamedImage, mm2_to_px2

# Some 25 KB each: a page that a browser opens at once.
_MOST_PICTURES = 300
_MOST_STANDING_OUT = 60
_WORDS = Words(
    {"train": "good image", "defective": "bad image", "part": "part"},
    ng=Decided("NG", "is NG", "are NG"),
    ok=Decided("OK", "is OK", "are OK"),
)
_KINDS: Mapping[str, ShownKind] = {"good": "train", "bad": "defective", "part": "part"}


def as_html(service: InspectionService, found: Inspection, facts: str, steps: Sequence[str]) -> str:
    """The page: scores and threshold, good images that stand out, then bad images and parts, the most telling first.

    Args:
        service: reads the images again.
        found: the results.
        facts: the inspected images, in a sentence.
        steps: what to do next, a sentence each.

    Raises:
        InvalidImage, TooLarge: an image has changed and can no longer be read.
    """
    return render(
        __package__, "page.html.j2", [_section(service, found)], name=found.key.roi_id, facts=facts, steps=steps
    )


def _section(service: InspectionService, found: Inspection) -> Section:
    judged = [image for image in found.judged if image.score is not None]
    shown = {image.path: _shown(found, image) for image in judged}
    others = [image for image in judged if image.map is not None]
    chosen = telling([shown[image.path] for image in others], found.threshold, _MOST_PICTURES)
    honest, nothing = service.store.honest_maps(found.fitted), np.zeros(found.fitted.memory.token_hw, np.float32)
    standing_out = [image for image in judged if image.path in found.standing_out and image.number is not None]
    standing_out = sorted(standing_out, key=lambda image: -(image.score or 0))[:_MOST_STANDING_OUT]
    maps = {image.path: image.map.distances for image in others if image.map is not None}
    # Models of earlier versions keep no maps of their own images.
    maps |= {image.path: honest.get(image.number or 0, nothing) for image in standing_out}
    scale = scale_of(list(maps.values()) or [nothing], found.threshold)
    depth = BitDepth.of(found.fitted.metadata)
    least_area_px = mm2_to_px2(found.calibration.calibration.area_mm2_thr or 0, found.mm_per_px)

    def card(image: Judged, distances: DistanceMap) -> Card:
        named = NamedImage(image.path, lambda: read_image(image.path, max_bytes(service.settings)))
        with service.pixels_of(named):
            pixels, _ = service.decode(named, depth)
            mask = build_mask(found.shape, (pixels.shape[0], pixels.shape[1]))
            blur = service.settings.blur_sigma
            return Card(
                shown[image.path],
                draw(pixels, distances, scale, found.threshold, blur, mask=mask, least_area_px=least_area_px),
            )

    with progress_bar("report", len(standing_out) + len(chosen)) as bar:
        cards = {}
        for image in [*standing_out, *(others[place] for place in chosen)]:
            cards[image.path] = card(image, maps[image.path])
            bar.update()
    return Section(
        found.key.roi_id,
        _WORDS,
        list(shown.values()),
        found.threshold,
        _marks(found, judged),
        _remarks(found),
        _facts(found),
        [cards[image.path] for image in standing_out],
        [cards[others[place].path] for place in chosen],
        scale,
    )


def _shown(found: Inspection, image: Judged) -> ScoredImage:
    notes = []
    if image.map is not None:
        notes.append(count(len(image.regions), "region"))
    if image.path in found.lowering:
        notes.append("lowered the threshold")
    return ScoredImage(image.path, _KINDS[image.kind], image.kind, image.score or 0.0, tuple(notes))


def _marks(found: Inspection, judged: Sequence[Judged]) -> list[Mark]:
    """The chosen threshold, and others for comparison."""
    calibration = found.calibration.calibration
    name = "recommended rule" if calibration.rule == "recommended" else "as named"
    marks = [Mark(name, found.threshold, found.why or "")]
    if calibration.threshold_with_unusual is not None:
        marks.append(Mark("with the good images that stand out", calibration.threshold_with_unusual))
    good, bad = ([image.score for image in judged if image.kind == kind and image.score] for kind in ("good", "bad"))
    marks.append(Mark("contract rule", choose_threshold(good, bad)))
    return marks


def _remarks(found: Inspection) -> list[str]:
    remarks = list(found.doubts)
    if failed := [image.path for image in found.judged if image.error]:
        remarks.append(f"{count(len(failed), 'image')} could not be judged: {some(failed)}")
    return remarks


def _facts(found: Inspection) -> list[str]:
    calibration = found.calibration.calibration
    said = [found.why, calibration.promise.text if calibration.promise else None]
    return [f"{text[0].upper()}{text[1:]}." for text in said if text]
