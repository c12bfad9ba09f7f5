"""/fit_ok of 34 images without HTTP, against torch float32 image by image with the plain k-center loop."""

import tempfile
from collections.abc import Callable

import cv2
import numpy as np

from backend.common.config import DEFAULT_MODEL, load_settings
from backend.common.errors import ConfigError
from backend.common.logs import configure_logging
from backend.common.roi_key import RoiKey
from backend.features import preprocess
from backend.network.runtimes.torch import TorchRuntime
from backend.network.weights import find_weights
from backend.patchcore import coreset_size, l2_normalize
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.utils import NamedImage
from benchmarks.coreset import plain_loop
from harness.images import solar_cells
from harness.measuring import at_least, at_most, interleaved, print_table

_IMAGES = 34
_CLAIMED_GAIN = {"float32": 1.8, "bfloat16": 3}


def main() -> None:
    """Print the table."""
    configure_logging("warning", "console")
    files = [cv2.imencode(".png", cell)[1] for cell in solar_cells(_IMAGES)]
    settings = load_settings()
    torch_runtime = TorchRuntime(DEFAULT_MODEL, find_weights(settings).path, settings.input_size, "cpu")

    def reference() -> None:
        tokens = []
        for file in files:
            image = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
            tokens.append(torch_runtime.forward(preprocess(image, settings.input_size)[None])[0])
        embeddings = l2_normalize(np.concatenate(tokens))
        plain_loop(embeddings, coreset_size(len(embeddings), settings.coreset_rate))

    contenders: dict[str, Callable[[], object]] = {"torch": reference}
    pixels = preprocess(solar_cells(1)[0], settings.input_size)[None]
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for precision in _CLAIMED_GAIN:
            try:
                service = InspectionService.open(
                    load_settings(precision=precision, models_dir=folder, runtime="openvino")
                )
            except ConfigError as exc:
                print(exc)
                continue
            named = [NamedImage("cell.png", file.tobytes) for file in files]
            contenders[precision] = lambda s=service, n=named, p=precision: fit(s, RoiKey("Fit", p), n, mm_per_px=1)
            contenders[f"{precision} passes"] = lambda r=service.features.runtime: [r.forward(pixels) for _ in files]
            measured.append(precision)
        seconds = interleaved(contenders, rounds=3)
    rows = [
        (
            precision,
            f"{seconds[precision]:.2f}",
            f"{seconds['torch']:.2f}",
            at_least(_CLAIMED_GAIN[precision], seconds["torch"] / seconds[precision]),
            f"{seconds[f'{precision} passes']:.2f}",
            at_most(1.1, seconds[precision] / seconds[f"{precision} passes"]),
        )
        for precision in measured
    ]
    print_table(
        f"/fit_ok of {_IMAGES} cells of 300×300 pixels, 448 pixels, 2 %, medians of 3 interleaved runs",
        (
            "OpenVINO",
            "ours s",
            "torch float32 one by one and plain loop s",
            "torch / ours",
            f"{_IMAGES} bare forward passes s",
            "ours / passes",
        ),
        rows,
    )


if __name__ == "__main__":
    main()
