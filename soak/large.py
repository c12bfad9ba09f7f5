"""The largest images at once: peak memory of one inference of MAX_PIXELS, of eight together, and of eight uploads.

``python -m soak.large``: inferences and uploads share a limit of pixels, so eight take no more memory than one or two.
"""

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from harness.forms import ROI
from harness.hostile_files import jpeg_of_many_scans, pixels, saved
from harness.server import serving
from harness.watch import ENVIRONMENT, Watch

_SIDE = 8000  # 64 megapixels, the default of MAX_PIXELS
_SLOWEST_S = 120.0
_MOST_MB = 2500.0
_TOGETHER = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    argparse.ArgumentParser(prog="python -m soak.large", description=__doc__).parse_args(arguments)
    large = Image.fromarray(pixels(_SIDE, _SIDE))
    images = {
        "PNG": saved(large, "PNG", compress_level=1),
        "JPEG": saved(large, "JPEG"),
        "JPEG, progressive": saved(large, "JPEG", progressive=True),
        "JPEG of a hundred scans": jpeg_of_many_scans(_SIDE, _SIDE, 99),
    }
    figures: list[tuple[str, object]] = []
    with serving(**ENVIRONMENT) as server, server.client() as client, ThreadPoolExecutor(_TOGETHER) as pool:
        watch = Watch(server, frozenset({200}), _SLOWEST_S)
        small = saved(large.resize((64, 64)), "PNG")
        client.post("/fit_ok", data=ROI, files=[("images", ("a.png", small, "image/png"))]).raise_for_status()
        figures.append(("memory before", f"{watch.memory_mb():.0f} MB"))

        def send(endpoint: str, what: str) -> None:
            field = "image" if endpoint == "/infer" else "images"
            files = [(field, ("a.png", images[what], "image/png"))]
            watch.ask(what, endpoint, lambda: client.post(endpoint, data=ROI, files=files))

        for what in images:
            send("/infer", what)
            figures.append((f"peak after one /infer, {what}", f"{watch.peak_mb():.0f} MB"))
        for endpoint in ("/infer", "/datasets/ok/upload"):
            for what in images:
                list(pool.map(send, [endpoint] * _TOGETHER, [what] * _TOGETHER))
                figures.append((f"peak after {_TOGETHER} × {endpoint} at once, {what}", f"{watch.peak_mb():.0f} MB"))
        return watch.finish(f"{_SIDE} × {_SIDE} pixels", _MOST_MB, figures)


if __name__ == "__main__":
    sys.exit(main())
