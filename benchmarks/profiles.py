"""The cost of the recommended profile compared with the contract: inferences in turns, and the size of the banks.

``python -m benchmarks.profiles FOLDER [--rounds N]``: good images below ``FOLDER/train``, fitted with both profiles;
then the images are judged in turns, as in ``/infer``, including the heatmap.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from backend.common.config import load_settings
from backend.common.logs import configure_logging
from backend.common.profiles import PROFILES, ProfileName
from backend.common.roi_key import RoiKey
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.utils import NamedImage
from benchmarks.splits import open_split
from harness.measuring import print_table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--rounds", type=int, default=40, help="inferences of each profile; default 40")
    options = parser.parse_args()
    configure_logging("error", "console")
    split = open_split(options.folder)
    images = [NamedImage(path.name, path.read_bytes) for path in split.train]
    with tempfile.TemporaryDirectory() as models:
        service = InspectionService.open(load_settings().model_copy(update={"models_dir": Path(models)}))
        keys = {profile: RoiKey("benchmark", profile) for profile in PROFILES}
        fit_s: dict[ProfileName, float] = {}
        for profile, key in keys.items():
            service.features_of(profile)  # loads the network, which no fit and no inference waits for then
            start = time.perf_counter()
            fit(service, key, images, mm_per_px=1, profile=profile)
            fit_s[profile] = time.perf_counter() - start
        took: dict[ProfileName, list[float]] = {profile: [] for profile in PROFILES}
        for number in range(options.rounds):
            for profile, key in keys.items():
                start = time.perf_counter()
                infer(service, key, images[number % len(images)], Scoring(1))
                took[profile].append(time.perf_counter() - start)
        sizes = {p: next((Path(models) / "benchmark" / p).glob("memory.npz")).stat().st_size for p in PROFILES}
    contract, recommended = (np.array(took[profile]) for profile in PROFILES)
    rows = [
        (
            profile,
            f"{1000 * statistics.median(took[profile]):.0f}",
            f"{fit_s[profile]:.1f}",
            f"{sizes[profile] / 1e6:.1f}",
        )
        for profile in PROFILES
    ]
    ratio = f"{np.median(recommended / contract):.2f}"
    fits, banks = fit_s["recommended"] / fit_s["contract"], sizes["recommended"] / sizes["contract"]
    rows.append(("recommended / contract", ratio, f"{fits:.2f}", f"{banks:.2f}"))
    title = f"{split.name}: {len(images)} good images, {options.rounds} inferences of each profile, in turns"
    print_table(title, ("profile", "inference, ms", "fit, s", "memory.npz, MB"), rows)


if __name__ == "__main__":
    main()
