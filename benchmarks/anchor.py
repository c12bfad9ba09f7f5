"""How well the console's anchor finds moved parts, in a browser: error, time, false finds, AUROC with and without it.

``python -m benchmarks.anchor FOLDER …`` takes data sets in MVTec layout. Scenes are made from their images: shifted by
up to 64 pixels in each direction, rotated by up to 10°, in other light and with noise. ``--scores`` also fits ROIs on
such scenes.
"""

import argparse
import math
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.roi_key import RoiKey
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from benchmarks.bank import auroc
from benchmarks.console import visit
from benchmarks.splits import open_split
from harness.measuring import at_most, p95, print_table
from harness.pages import pages

Image = npt.NDArray[np.uint8]
SIDE = 320  # the longer side of an image in a scene, in pixels
MARGIN = 112  # around it, so that it stays in the scene
MOST_PX, MOST_DEG = 64, 10
ANCHOR = 96  # side of the anchor
LEAST_SCORE, MOST_SECOND = 0.8, 0.9  # those of backend/web/anchor.js
N_PARTS, N_MOVES = 16, 3
N_TRAIN, N_TEST = 14, 14
_MOST_MS = 100
FAR_PX = 112  # how far a mark moves that lies beside the part, when the scene turns


@dataclass(frozen=True)
class Motion:
    """Pixels, degrees clockwise."""

    dx: float = 0
    dy: float = 0
    angle_deg: float = 0

    @staticmethod
    def of(rng: np.random.Generator) -> "Motion":
        """Any within the range of the search."""
        return Motion(*rng.uniform(-MOST_PX, MOST_PX, 2), rng.uniform(-MOST_DEG, MOST_DEG))

    def after(self, image: Image, cx: float, cy: float) -> Image:
        """The image, turned about a point and moved; beyond its edge the outermost pixels go on."""
        turn = math.radians(self.angle_deg)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        centre = np.array([cx - 0.5, cy - 0.5])  # OpenCV counts from the centres of pixels
        matrix = np.column_stack([rotation, centre + np.array([self.dx, self.dy]) - rotation @ centre])
        border = cv2.BORDER_REPLICATE
        return np.asarray(cv2.warpAffine(image, matrix, image.shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=border))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", type=Path, nargs="+")
    parser.add_argument("--browser", default="chromium", metavar="PROGRAM")
    parser.add_argument("--scores", action="store_true", help="also the AUROC with and without the anchor; takes long")
    options = parser.parse_args()
    configure_logging("error", "console")
    program = shutil.which(options.browser)
    if program is None:
        raise SystemExit(f"{options.browser} is not installed")
    found = [_accuracy(program, folder) for folder in options.folders]
    errors = ("median px", "largest px", "median °", "largest °")
    header = ("images", "anchors accepted", "parts found", *errors, "median ms", "95 % ms")
    print_table(f"Where parts were found in {options.browser}, of their own anchor", header, [row for row, _ in found])
    header = (
        "images",
        "in full",
        "an eighth covered",
        "half covered",
        "another place",
        "another image",
        "nothing there",
    )
    print_table("Scores of the anchor, lowest to highest, and found", header, [row for _, row in found])
    if options.scores:
        header = ("images", "not moved", "moved", "moved, with anchor", "found")
        print_table("Image AUROC", header, [_aurocs(program, folder) for folder in options.folders])


def _scene(path: Path) -> Image:
    """An image with a margin of its outermost pixels, uint8 [H, W, 3]."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert image is not None, path
    share = SIDE / max(image.shape)
    size = [round(side * share) for side in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC)
    return np.asarray(cv2.copyMakeBorder(image, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REPLICATE), np.uint8)


def _in_other_light(image: Image, rng: np.random.Generator) -> Image:
    """Contrast ±20 %, brightness ±15, noise of 4 grey values."""
    lit = rng.uniform(0.8, 1.2) * image.astype(float) + rng.uniform(-15, 15) + rng.normal(0, 4, image.shape)
    return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


def _search(left: int, top: int, scene: Image, search_px: int) -> dict[str, Any]:
    """An anchor whose corner is at a place of the scene."""
    size = {"width": scene.shape[1], "height": scene.shape[0]}
    rectangle = {"cx": left + ANCHOR / 2, "cy": top + ANCHOR / 2, "w": ANCHOR, "h": ANCHOR}
    return rectangle | {"search_px": search_px, "search_deg": MOST_DEG, "picture": size}


def _corner(scene: Image) -> tuple[int, int]:
    """Left and top of the place with the clearest corners (Shi and Tomasi, CVPR 1994), as a person would choose it."""
    grey = cv2.cvtColor(scene, cv2.COLOR_BGR2GRAY)
    corners = cv2.blur(cv2.cornerMinEigenVal(grey, 5), (ANCHOR, ANCHOR), anchor=(0, 0))
    rows, columns = grey.shape
    inside = corners[MARGIN : rows - MARGIN - ANCHOR + 1, MARGIN : columns - MARGIN - ANCHOR + 1]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(left) + MARGIN, int(top) + MARGIN


def _png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


class _Cases:
    """What a browser is asked, and what it answered."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.files: dict[str, bytes] = {}
        self.cases: list[dict[str, Any]] = []
        self.names: list[str] = []

    def add(self, name: str, scene: Image, template: str | None, search: dict[str, Any], roi: Any = None) -> None:
        number = len(self.names)
        self.names.append(name)
        self.files[f"{number}.png"] = _png(scene)
        case = {"picture": f"{number}.png", "template": template, "search": search, "roi": roi}
        self.cases.append({"name": number, **case})

    def ask(self) -> dict[str, tuple[dict[str, Any], bytes]]:
        with pages(Path(__file__).parent) as server:
            server.files, server.cases = self.files, self.cases
            visit(self.program, server, "anchor.html")
            return {name: server.results[str(number)] for number, name in enumerate(self.names)}


def _is_found(pose: dict[str, float]) -> bool:
    return bool(pose["score"] >= LEAST_SCORE and pose["second"] < MOST_SECOND * pose["score"])


def _accuracy(program: str, folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Errors and times; scores of what is there, and of what is not."""
    rng = np.random.default_rng(1)
    split = open_split(folder)
    scenes = [_scene(path) for path in split.train[:N_PARTS]]
    asked = _Cases(program)
    motions: dict[str, Motion] = {}
    for number, scene in enumerate(scenes):
        left, top = _corner(scene)
        search, template = _search(left, top, scene, MOST_PX), f"t{number}.png"
        centre = (search["cx"], search["cy"])
        rectangle = (slice(top, top + ANCHOR), slice(left, left + ANCHOR))
        asked.files[template] = _png(scene[rectangle])
        asked.add(f"{number}-drawn-0", scene, None, search)
        for move in range(N_MOVES):
            motions[name := f"{number}-in full-{move}"] = Motion.of(rng)
            asked.add(name, _in_other_light(motions[name].after(scene, *centre), rng), template, search)
        for what, hidden in (("an eighth covered", ANCHOR // 8), ("half covered", ANCHOR // 2)):
            covered = scene.copy()
            covered[top : top + ANCHOR, left : left + hidden] = scene[MARGIN, MARGIN]
            asked.add(
                f"{number}-{what}-0", _in_other_light(Motion.of(rng).after(covered, *centre), rng), template, search
            )
        empty = scene.copy()
        empty[:] = scene[MARGIN, MARGIN]
        far = np.roll(scene, (scene.shape[0] // 2, scene.shape[1] // 2), (0, 1))
        for what, other in (("another place", far), ("nothing there", empty)):
            asked.add(f"{number}-{what}-0", _in_other_light(other, rng), template, search)
        asked.add(f"{number}-another image-0", _in_other_light(_like(scenes[number - 1], scene), rng), template, search)
    answers = {name: head for name, (head, _) in asked.ask().items()}
    refused = {name.split("-")[0] for name, answer in answers.items() if answer["problem"] is not None}
    answers = {name: answer for name, answer in answers.items() if name.split("-")[0] not in refused}
    motions = {name: motion for name, motion in motions.items() if name in answers}
    drawn = f"{len(scenes) - len(refused)} of {len(scenes)}"
    return (split.name, drawn, *_error_row(motions, answers)), _score_row(split.name, answers)


def _like(image: Image, other: Image) -> Image:
    """As large as `other`."""
    return np.asarray(cv2.resize(image, other.shape[1::-1]))


def _error_row(motions: dict[str, Motion], answers: dict[str, Any]) -> tuple[str, ...]:
    found = {case: answers[case] for case in motions if _is_found(answers[case]["pose"])}
    poses = {case: answer["pose"] for case, answer in found.items()}
    errors = [math.hypot(pose["dx"] - motions[case].dx, pose["dy"] - motions[case].dy) for case, pose in poses.items()]
    turns = [abs(pose["angle_deg"] - motions[case].angle_deg) for case, pose in poses.items()]
    times = [answer["ms"] for answer in found.values()]
    return (
        f"{len(found)} of {len(motions)}",
        *(f"{value:.3f}" for value in (np.median(errors), max(errors), np.median(turns), max(turns))),
        at_most(_MOST_MS, float(np.median(times))),
        f"{p95(times):.0f}",
    )


def _score_row(name: str, answers: dict[str, Any]) -> tuple[str, ...]:
    cells = []
    for what in ("in full", "an eighth covered", "half covered", "another place", "another image", "nothing there"):
        poses = [answer["pose"] for case, answer in answers.items() if case.split("-")[1] == what]
        scores = [pose["score"] for pose in poses]
        n_found = sum(map(_is_found, poses))
        cells.append(f"{min(scores):.2f}–{max(scores):.2f}; {n_found} of {len(poses)}")
    return (name, *cells)


def _aurocs(program: str, folder: Path) -> tuple[str, ...]:
    """Image AUROC of parts that did not move, moved, and moved with an anchor: a mark that lies beside every part."""
    rng = np.random.default_rng(2)
    split = open_split(folder, N_TRAIN)
    good, bad = ([paths[k] for k in _evenly(len(paths))] for paths in (split.good, split.defective))
    paths = {"train": split.train, "good": good, "bad": bad}
    mark = _mark(rng)
    asked = _Cases(program)
    asked.files["mark.png"] = _png(mark)
    for group, files in paths.items():
        for number, path in enumerate(files):
            part = _like(_scene(path), _scene(split.train[0]))
            h, w = (side - 2 * MARGIN for side in part.shape[:2])
            scene = cv2.copyMakeBorder(part, 0, 0, MARGIN, 0, cv2.BORDER_REPLICATE)
            top = (scene.shape[0] - ANCHOR) // 2
            scene[top : top + ANCHOR, MARGIN - 8 : MARGIN - 8 + ANCHOR] = mark
            search = _search(MARGIN - 8, top, scene, FAR_PX)
            middle = {"cx": 2 * MARGIN + w / 2, "cy": MARGIN + h / 2}
            roi = {"kind": "rect", "w": w, "h": h, "r": 0, "r_inner": 0, "angle_deg": 0} | middle
            moved = _in_other_light(Motion.of(rng).after(scene, scene.shape[1] / 2, scene.shape[0] / 2), rng)
            asked.add(f"{group}-{number}-not moved", _in_other_light(scene, rng), None, search, roi)
            asked.add(f"{group}-{number}-moved", moved, None, search, roi)
            asked.add(f"{group}-{number}-anchor", moved, "mark.png", search, roi)
    answers = asked.ask()
    poses = [head["pose"] for name, (head, _) in answers.items() if name.endswith("anchor")]
    cells = [f"{_auroc(answers, way):.3f}" for way in ("not moved", "moved", "anchor")]
    return (split.name, *cells, f"{sum(map(_is_found, poses))} of {len(poses)}")


def _evenly(n: int) -> list[int]:
    return [round(k) for k in np.linspace(0, n - 1, min(n, N_TEST))]


def _mark(rng: np.random.Generator) -> Image:
    """A code as parts carry it: squares, uint8 [96, 96, 3]."""
    cells = cv2.resize(
        rng.choice(np.array([60, 190], np.uint8), (8, 8)), (ANCHOR, ANCHOR), interpolation=cv2.INTER_AREA
    )
    return cv2.merge([cells] * 3)


def _auroc(answers: dict[str, tuple[dict[str, Any], bytes]], way: str) -> float:
    crops: dict[str, list[NamedImage]] = {"train": [], "good": [], "bad": []}
    for name, (_, crop) in answers.items():
        group, _, which = name.partition("-")
        if which.endswith(f"-{way}"):
            crops[group].append(NamedImage(f"{which}.png", partial(bytes, crop)))
    with tempfile.TemporaryDirectory() as models:
        service = InspectionService.open(load_settings().model_copy(update={"models_dir": Path(models)}))
        key = RoiKey("benchmark", way)
        fit(service, key, crops["train"], mm_per_px=1, with_scores=False)
        good, bad = (
            np.array([infer(service, key, image, Scoring(1)).inference.score for image in crops[group]])
            for group in ("good", "bad")
        )
    return auroc(good, bad)


if __name__ == "__main__":
    main()
