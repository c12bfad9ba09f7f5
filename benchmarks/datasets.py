"""Stored images over HTTP: how listing and upload grow with their number, and a whole data set against single calls."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import httpx

from harness.forms import ROI, Form
from harness.images import png, solar_cells
from harness.measuring import interleaved, print_table
from harness.server import starting

_SIZES = (100, 1_000, 10_000)
_PER_UPLOAD = 100
_RUNS = 9
_JUDGED = 10
_ROUNDS = 5


def main() -> None:
    """Print the tables."""
    with starting() as server, server.client() as client:
        server.wait_for("/health")
        _print_growth(client)
        server.fit(_JUDGED)
        _print_runs(client)


def _print_growth(client: httpx.Client) -> None:
    """Times of single requests to data sets of growing size."""
    upload = Form.of("images", [png(cell) for cell in solar_cells(1)] * _PER_UPLOAD, roi_id="Growing")
    one_more = Form.of("images", [png(cell) for cell in solar_cells(1)], roi_id="Growing")
    rows = []
    stored = 0
    for size in _SIZES:
        while stored < size:
            upload.post(client, "/datasets/ok/upload").raise_for_status()
            stored += _PER_UPLOAD
        query = {"role_id": ROI["role_id"], "roi_id": "Growing", "label": "ok"}
        names = client.get("/datasets/list", params=query).json()["classes"]["ok"]["files"]
        named = {**query, "filename": names[len(names) // 2]}
        requests: dict[str, Callable[[], httpx.Response]] = {
            "list": partial(client.get, "/datasets/list", params=query),
            "file": partial(client.get, "/datasets/file", params=named),
            "metadata": partial(client.get, "/datasets/meta", params=named),
            "upload of one more": partial(one_more.post, client, "/datasets/ok/upload"),
        }
        seconds = [_median_seconds(request) for request in requests.values()]
        rows.append((f"{size:,}", *(f"{1000 * value:.1f}" for value in seconds)))
        stored += _RUNS
    print_table(f"Requests to a data set, median milliseconds of {_RUNS}", ("stored images", *requests), rows)


def _print_runs(client: httpx.Client) -> None:
    """One call for a whole data set beside one call for each of its images."""
    cells = [png(cell) for cell in solar_cells(_JUDGED)]
    Form.of("images", cells).post(client, "/datasets/ok/upload").raise_for_status()
    single = [Form.of("image", [cell]) for cell in cells]
    body = {"role_id": ROI["role_id"], "roi_id": ROI["roi_id"], "default_mm_per_px": 0.52}
    seconds = interleaved(
        {
            "single": lambda: [form.infer(client) for form in single],
            "infer_dataset": lambda: client.post("/infer_dataset", json={**body, "include_heatmap": True}),
            "calibrate_dataset": lambda: client.post("/calibrate_dataset", json={**body, "require_ng": False}),
        },
        _ROUNDS,
    )
    rows = [
        ("one /infer each", f"{seconds['single']:.2f}", "1.00"),
        ("/infer_dataset, with heatmaps", f"{seconds['infer_dataset']:.2f}", _ratio(seconds, "infer_dataset")),
        (
            "/calibrate_dataset, repeated: its scores are kept",
            f"{seconds['calibrate_dataset']:.2f}",
            _ratio(seconds, "calibrate_dataset"),
        ),
    ]
    print_table(f"{_JUDGED} stored cells, median seconds of {_ROUNDS} interleaved rounds", ("", "s", "ratio"), rows)


def _ratio(seconds: dict[str, float], name: str) -> str:
    return f"{seconds[name] / seconds['single']:.2f}"


def _median_seconds(request: Callable[[], httpx.Response]) -> float:
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        request().raise_for_status()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
