"""The images: monocrystalline solar cells of the ELPV data set, and which of them are fitted, calibrated, inspected."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

SOURCE = "ELPV data set: electroluminescence images of solar cells, PyPI package elpv-dataset"
LICENCE = "CC BY-NC-SA 4.0, non-commercial use only"
CITATION = (
    "Buerhop-Lutz et al., A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence "
    "Imagery, EU PVSEC 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15",
    "Deitsch et al., Automatic classification of defective photovoltaic module cells in electroluminescence images, "
    "Solar Energy 185, 2019, doi:10.1016/j.solener.2019.02.067",
    "Deitsch et al., Segmentation of photovoltaic module cells in uncalibrated electroluminescence images, "
    "Machine Vision and Applications 32, 2021, doi:10.1007/s00138-021-01191-9",
)
MM_PER_PX = 156 / 300  # cells 156 mm wide, images of 300 × 300 pixels
_DATA = files("elpv_dataset").joinpath("data")
_SEED = 0


@dataclass(frozen=True)
class Cell:
    """One image.

    Attributes:
        name: file name.
        png: the file, 8-bit grey, 300 × 300 pixels.
        defective: True for defect probability 1, False for 0; cells in between are left out.
    """

    name: str
    png: bytes
    defective: bool


@dataclass(frozen=True)
class Split:
    """Disjoint random samples: `fit` of good cells, `calibrate` and `test` of good cells, then defective ones."""

    fit: list[Cell]
    calibrate: list[Cell]
    test: list[Cell]


def split_cells(n_fit: int, n_calibrate: int, n_test: int) -> Split:
    """Draw the samples; the same counts always give the same cells.

    Args:
        n_fit: good cells to fit.
        n_calibrate: good cells, and as many defective ones, to calibrate on.
        n_test: good cells, and as many defective ones, to inspect.

    Raises:
        ValueError: the data set has fewer.
    """
    good, defective = _shuffled("0.0"), _shuffled("1.0")
    n_held_out = n_calibrate + n_test
    if n_fit + n_held_out > len(good) or n_held_out > len(defective):
        raise ValueError(
            f"the data set has {len(good)} good cells and {len(defective)} defective ones, "
            f"not {n_fit + n_held_out} and {n_held_out}"
        )
    return Split(
        fit=[_read(name, False) for name in good[:n_fit]],
        calibrate=[_read(name, False) for name in good[n_fit : n_fit + n_calibrate]]
        + [_read(name, True) for name in defective[:n_calibrate]],
        test=[_read(name, False) for name in good[n_fit + n_calibrate : n_fit + n_held_out]]
        + [_read(name, True) for name in defective[n_calibrate:n_held_out]],
    )


def _shuffled(probability: str) -> list[str]:
    """Paths of the monocrystalline cells of one defect probability, in seeded random order."""
    rows = (line.split() for line in _DATA.joinpath("labels.csv").read_text().splitlines())
    paths = [path for path, value, kind in rows if (value, kind) == (probability, "mono")]
    return [paths[i] for i in np.random.default_rng(_SEED).permutation(len(paths))]


def _read(path: str, defective: bool) -> Cell:
    return Cell(path.rpartition("/")[2], _DATA.joinpath(path).read_bytes(), defective)
