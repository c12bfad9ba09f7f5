"""How calm pictures of good parts are: bright pixels in heatmaps of the contract and in those of the threshold.

``python -m benchmarks.pictures FOLDER …``: data sets in MVTec layout. Each set is fitted with both profiles on the same
images, and the threshold chosen from the honest scores of the fit by the rule of the profile. A pixel counts as bright
from grey 200 on if each image is stretched separately, and from 128 on, which is the threshold, on the fixed scale.

``--overlays FOLDER`` writes the overlays of both profiles. ``--costs`` measures the extra time of pictures in turns, on
a mosaic of solar cells of which 3 % is at or above the threshold.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from backend.block_memory import Memory
from backend.calib import Calibration, choose_threshold
from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import CONTRACT, RECOMMENDED, ProfileName, score_percentile_of
from backend.infer import (
    THRESHOLD_GREY,
    InferenceEngine,
    find_regions,
    image_scores,
    to_heatmap,
    to_image_grid,
    to_threshold_heatmap,
)
from backend.patchcore import PatchCoreMemory
from backend.service.inspection import InspectionService
from backend.service.overlay import draw_overlay
from backend.service.pictures import Wanted, draw_pictures
from backend.utils import decode_image, percentile
from benchmarks.decisions import Embedded, bank_of, embed, recommended_threshold
from benchmarks.splits import Split, open_split
from harness.images import solar_cells
from harness.measuring import interleaved, print_table

_BEFORE = 200
_SIZES = ((1024, 1024), (2048, 2448))
_ROUNDS = 9
_WANTED = (Wanted(), Wanted("threshold"), Wanted("contract", overlay=True), Wanted("threshold", overlay=True))
_WAYS: dict[ProfileName, Callable[[Sequence[float], Sequence[float]], float]] = {
    CONTRACT: choose_threshold,
    RECOMMENDED: recommended_threshold,
}


@dataclass(frozen=True)
class Model:
    """A fit of one profile, and its threshold."""

    service: InspectionService
    profile: ProfileName
    memory: Memory
    threshold: float
    dim: int

    @classmethod
    def of(cls, service: InspectionService, profile: ProfileName, train: Embedded) -> "Model":
        """Fit images, and choose the threshold from their honest scores.

        Raises:
            SystemExit: there are none.
        """
        settings, token_hw = service.settings, service.features.token_hw
        bank, dim = bank_of(service, profile, train, np.arange(len(train.sizes)))
        if bank.held_out.distances is None or bank.held_out.positions is not None:
            raise SystemExit("so large a fit has no honest scores: give --most-train")
        percentiles = [score_percentile_of(profile, settings.score_percentile)]
        honest = [
            image_scores(distances.reshape(token_hw), image_hw, None, settings.blur_sigma, percentiles)[0]
            for distances, image_hw in zip(bank.held_out.distances, train.sizes, strict=True)
        ]
        return cls(service, profile, bank.memory, _WAYS[profile](honest, []), dim)

    def map_of(self, tokens: npt.NDArray[np.float32], image_hw: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The distance map of an image, float32 [H, W]."""
        distances = self.memory.distances(tokens[:, -self.dim :]).reshape(self.service.features.token_hw)
        return to_image_grid(distances, image_hw, self.service.settings.blur_sigma)


def glowing(distance_map: npt.NDArray[np.float32], threshold: float) -> tuple[float, float]:
    """Share of the pixels that glow, before and on the scale of the threshold."""
    low, high = percentile(distance_map, 1, 99)
    before = to_heatmap(distance_map, None, low, high) >= _BEFORE
    return float(before.mean()), float((to_threshold_heatmap(distance_map, None, threshold) >= THRESHOLD_GREY).mean())


def rows_of(service: InspectionService, split: Split, overlays: Path | None) -> list[list[str]]:
    """A row for each profile."""
    train = embed(service, split.train, with_defects=False, name=split.name)
    models = {profile: Model.of(service, profile, train) for profile in _WAYS}
    kinds = {"good": split.good, "defective": split.defective}
    shares: dict[tuple[ProfileName, str], list[tuple[float, float]]] = {}
    for kind, paths in kinds.items():
        tested = embed(service, paths, with_defects=False, name=f"{split.name}, {kind}")
        for path, tokens, image_hw in zip(tqdm(paths), tested.tokens, tested.sizes, strict=True):
            for profile, model in models.items():
                distance_map = model.map_of(tokens, image_hw)
                shares.setdefault((profile, kind), []).append(glowing(distance_map, model.threshold))
                if overlays is not None:
                    _write_overlay(overlays / split.name / profile / kind, path, distance_map, model)
    rows = []
    for profile in models:
        cells = [split.name, profile]
        for kind, paths in kinds.items():
            before, after = 100 * np.array(shares[profile, kind]).T
            cells += [str(len(paths)), f"{before.mean():.1f}", f"{after.mean():.2f}", f"{100 * np.mean(after > 0):.0f}"]
        rows.append(cells)
    return rows


def _write_overlay(folder: Path, path: Path, distance_map: npt.NDArray[np.float32], model: Model) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image = decode_image(path.read_bytes(), path.name, model.service.limits)
    regions = find_regions(distance_map, None, model.threshold, 0, 0.1)
    heatmap = to_threshold_heatmap(distance_map, None, model.threshold)
    cv2.imwrite(str(folder / f"{path.parent.name}-{path.stem}.png"), draw_overlay(image, heatmap, regions))


def print_costs(service: InspectionService) -> None:
    """Milliseconds and bytes of the pictures of large images."""
    cells = solar_cells(63)
    memory = PatchCoreMemory.build(service.features.extract(cells[0])[0], service.features.token_hw, 0.1)
    mosaic = np.vstack([np.hstack(cells[row : row + 9]) for row in range(0, 63, 9)])
    engine = InferenceEngine(service.features, service.settings.blur_sigma)
    rows = []
    for height, width in _SIZES:
        image = np.ascontiguousarray(mosaic[:height, :width])
        threshold = engine.run(image, memory, mm_per_px=1, score_percentile=97).score
        infer = partial(engine.run, image, memory, mm_per_px=1, threshold=threshold)
        inference, calibration = infer(), Calibration(threshold)
        ways = {
            wanted: partial(draw_pictures, wanted, inference, image, None, calibration, "applied") for wanted in _WANTED
        }
        seconds = interleaved({"inference": infer, **{str(wanted): way for wanted, way in ways.items()}}, _ROUNDS)
        for wanted, way in ways.items():
            pictures = way()
            n_bytes = sum(len(encoded or "") for encoded in (pictures.heatmap, pictures.overlay))
            what = f"heatmap={wanted.heatmap}{', overlay' * wanted.overlay}"
            took = (f"{1000 * seconds[name]:.0f}" for name in ("inference", str(wanted)))
            rows.append((f"{width}×{height}", what, *took, f"{n_bytes / 1e6:.2f}"))
    header = ("image", "pictures", "inference without pictures, ms", "pictures, ms", "in the reply, MB")
    print_table(f"What pictures take, median of {_ROUNDS} in turns", header, rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path)
    parser.add_argument("--most-train", type=int, default=60, help="maximum number of good images in a fit; default 60")
    parser.add_argument(
        "--every", type=int, default=3, help="use only every N-th of more than 200 test images; default 3"
    )
    parser.add_argument("--overlays", metavar="FOLDER", type=Path, help="write overlays to FOLDER")
    parser.add_argument("--costs", action="store_true", help="measure the extra time of pictures")
    options = parser.parse_args()
    configure_logging("warning", "console")
    service = InspectionService.open(load_settings())
    if options.costs:
        print_costs(service)
    if not options.folders:
        return
    rows: list[list[str]] = []
    for folder in options.folders:
        rows += rows_of(service, open_split(folder, options.most_train, options.every), options.overlays)
    header = ["data set", "profile"]
    for kind in ("good", "defective"):
        header += [f"{kind} parts", f"glowing before, % of {kind}", "after, %", "parts with any, %"]
    print_table("Pixels that glow, mean over parts", header, rows)


if __name__ == "__main__":
    main()
