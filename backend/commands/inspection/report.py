"""The results of an inspection: a page, a table, and sentences with the next steps."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from backend.commands.console import count, shown, some
from backend.commands.inspection.inspection import Inspection, Judged, Kind
from backend.commands.inspection.page import as_html
from backend.common.errors import StorageError
from backend.common.files import write_atomic
from backend.common.program import PROGRAM
from backend.scores.recommended_threshold import FEW_SCORES
from backend.service.inspection import InspectionService

PAGE = "report.html"
RESULTS = "results.csv"


def write_results(found: Inspection, folder: Path, *, areas_in_pixels: bool) -> None:
    """Write the results into an existing folder, one line for each image.

    Raises:
        StorageError: they cannot be written.
    """
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    unit = "px" if areas_in_pixels else "mm2"
    lines.writerow(
        ["path", "given_as", "verdict", "score", "threshold", "n_regions", f"largest_area_{unit}", "warning", "error"]
    )
    for image in found.judged:
        lines.writerow(
            [
                shown(image.path),
                image.kind,
                image.verdict or "",
                "" if image.score is None else repr(image.score),
                repr(found.threshold),
                "" if image.map is None else len(image.regions),
                image.regions[0].area_mm2 if image.regions else "",
                shown(image.warning or ""),
                shown(image.error or ""),
            ]
        )
    _write(folder / RESULTS, buffer.getvalue())


def write_page(service: InspectionService, found: Inspection, folder: Path, *, areas_in_pixels: bool) -> None:
    """Write the page into an existing folder.

    Raises:
        InvalidImage, TooLarge: see `as_html`.
        StorageError: it cannot be written.
    """
    kinds: tuple[tuple[Kind, str], ...] = (("good", "good image"), ("bad", "bad image"), ("part", "part"))
    numbers = [count(len(found.of(kind)), name) for kind, name in kinds if found.of(kind)]
    scale = "areas in pixels" if areas_in_pixels else f"{found.mm_per_px:g} mm per pixel"
    facts = f"{', '.join(numbers)} · {scale} · profile {found.fitted.profile}"
    _write(folder / PAGE, as_html(service, found, facts, next_steps(found)))


def _write(path: Path, text: str) -> None:
    try:
        write_atomic({path: shown(text).encode()})
    except OSError as exc:
        raise StorageError(f"{path} cannot be written ({exc.strerror})") from exc


def summary(found: Inspection) -> list[str]:
    """The results, one sentence on each line."""
    lines = [f"threshold {found.threshold:.4g}: a part is NG if its score reaches it"]
    if found.why:
        lines.append(found.why)
    for images, what, wrongly in ((found.of("good"), "good image", "NG"), (found.of("bad"), "bad image", "OK")):
        wrong = [image for image in images if image.is_wrong]
        if images:
            named = f" ({some([image.path for image in wrong])})" if wrong else ""
            judged = [image for image in images if image.verdict]
            lines.append(f"{len(wrong)} of {count(len(judged), what)} would be {wrongly}{named}")
    if parts := found.of("part"):
        lines.append(f"{count(len(parts), 'part')}: {_verdicts(parts)}")
    return lines


def next_steps(found: Inspection) -> list[str]:
    """The next steps for a person, the most important first."""
    steps = []
    good, bad = found.of("good"), found.of("bad")
    if found.standing_out:
        stand = (
            "1 good image stands out"
            if len(found.standing_out) == 1
            else f"{len(found.standing_out)} good images stand out"
        )
        steps.append(
            f"{stand}: look at {some(found.standing_out)}; remove what is defective from the folder, name what is good "
            "with --keep, and run the command again"
        )
    if len(good) < FEW_SCORES:
        steps.append(f"add good images: {len(good)} are few, {FEW_SCORES} or more show how much good parts vary")
    if not bad:
        steps.append("give some bad images with --ng: without them, the share that would pass is unknown")
    if any(image.is_wrong for image in bad):
        steps.append("look at the bad images that would be OK: is the defect visible in the image?")
    steps.append(
        f"`{PROGRAM} serve` judges new parts over HTTP (role {found.key.role_id}, ROI {found.key.roi_id}); give more "
        "folders to this command to judge them here"
    )
    return steps


def _verdicts(parts: Sequence[Judged]) -> str:
    numbers = {
        "OK": sum(part.verdict == "ok" for part in parts),
        "NG": sum(part.verdict == "ng" for part in parts),
        "not judged": sum(part.verdict is None for part in parts),
    }
    return ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
