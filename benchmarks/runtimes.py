"""One forward pass, OpenVINO against torch, on the real weights; and how far their tokens are apart."""

import numpy as np

from backend.common.config import DEFAULT_MODEL, load_settings
from backend.features import preprocess
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.runtimes.torch import TorchRuntime
from backend.network.weights import find_weights
from harness.images import solar_cells
from harness.measuring import interleaved, print_table


def main() -> None:
    """Print the table."""
    weights = find_weights(load_settings()).path
    rows = []
    for size in (336, 448):
        runtimes = {
            "openvino": OpenVinoRuntime(weights, size),
            "torch": TorchRuntime(DEFAULT_MODEL, weights, size, "cpu"),
        }
        pixels = preprocess(solar_cells(1)[0], size)[None]
        seconds = interleaved({name: lambda r=r, p=pixels: r.forward(p) for name, r in runtimes.items()}, rounds=7)
        left, right = (runtime.forward(pixels)[0] for runtime in runtimes.values())
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        worst = float(((left * right).sum(axis=1) / norms).min())
        openvino, torch = (seconds[name] * 1000 for name in ("openvino", "torch"))
        rows.append((size, f"{openvino:.0f}", f"{torch:.0f}", f"{torch / openvino:.2f}", f"{worst:.7f}"))
    print_table(
        "Forward pass, one image, float32, median of 7 interleaved runs",
        ("input", "OpenVINO ms", "torch ms", "torch / OpenVINO", "lowest token cosine"),
        rows,
    )
    side = 4096
    matrix = np.random.default_rng(0).random((side, side), np.float32)
    seconds = interleaved({"product": lambda: matrix @ matrix}, rounds=5)["product"]
    print(f"\nFor scale, a float32 product of {side}×{side} matrices: {2 * side**3 / seconds / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
