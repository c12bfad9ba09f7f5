"""A data set that influenced no choice of the method: polycrystalline solar cells of ELPV, as a folder in MVTec layout.

``python -m benchmarks.poly_cells FOLDER`` writes 120 good cells (defect probability 0) and 70 defective ones
(probability 1), drawn at random and always the same, from the package ``elpv-dataset``. Its licence is CC BY-NC-SA 4.0;
`demo.cells` names the authors. ``elpv_mono`` is of the other, monocrystalline cells.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np

_DATA = files("elpv_dataset").joinpath("data")
_N_GOOD, _N_FIT, _N_DEFECTIVE = 120, 80, 70


def drawn() -> tuple[list[str], list[str]]:
    """Paths in the package, of good and of defective cells."""
    rows = [line.split() for line in _DATA.joinpath("labels.csv").read_text().splitlines()]
    rng = np.random.default_rng(0)

    def some(probability: str, n: int) -> list[str]:
        paths = [path for path, value, kind in rows if (value, kind) == (probability, "poly")]
        return [paths[number] for number in rng.permutation(len(paths))[:n]]

    return some("0.0", _N_GOOD), some("1.0", _N_DEFECTIVE)


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    folder: Path = parser.parse_args().folder
    good, defective = drawn()
    for name, paths in (("train/good", good[:_N_FIT]), ("test/good", good[_N_FIT:]), ("test/defective", defective)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for path in paths:
            (folder / name / Path(path).name).write_bytes(_DATA.joinpath(path).read_bytes())


if __name__ == "__main__":
    main()
