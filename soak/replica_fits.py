"""Replicas that are killed in the middle of a fit: the fit gets an error, the old model serves, and the next fit works.

``python -m soak.replica_fits [--rounds 10]``, with two replicas on Ray.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from harness.forms import Form
from harness.images import png, solar_cells
from harness.measuring import print_table
from harness.server import Server, cluster_command, starting

_ENVIRONMENT = {"DEVICE": "cpu", "THREADS": "1", "INPUT_SIZE": "112", "CORESET_RATE": "0.1"}
_START_S, _WITHIN_S, _LOOK_EVERY_S = 400, 120, 0.02
_N_OLD, _N_NEW = 4, 60


@dataclass
class Killed:
    """Replicas that were killed.

    Attributes:
        errors_s: seconds from each kill to the error of its fit.
        served_s: seconds from each kill to a judgement by the old model.
        broken: promises that were broken.
    """

    errors_s: list[float] = field(default_factory=list)
    served_s: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def kill_in_a_fit(server: Server, ids: Mapping[str, str], killed: Killed) -> None:
    """Fit, begin another fit, kill its replica, look at what is served, and fit again.

    Args:
        server: at least two replicas over a folder.
        ids: of a ROI.
        killed: gets the figures.
    """
    cells = [png(cell) for cell in solar_cells(_N_NEW)]
    old, new = Form.of("images", cells[:_N_OLD], **ids), Form.of("images", cells, **ids)
    inference = Form.of("image", cells[-1:], **ids)
    with server.client() as client, server.client() as other, ThreadPoolExecutor(1) as pool:
        _answered(old, client, "/fit_ok").raise_for_status()
        before = _answered(inference, client, "/infer").json()
        fitting = pool.submit(new.post, other, "/fit_ok")
        os.kill(_process_of_fit(server, ids), signal.SIGKILL)
        start = time.monotonic()
        now = _answered(inference, client, "/infer").json()
        killed.served_s.append(time.monotonic() - start)
        reply = fitting.result(_WITHIN_S)
        killed.errors_s.append(time.monotonic() - start)
        if (reply.status_code, reply.json().get("code")) != (503, "not_ready"):
            killed.broken.append(f"the fit was answered {reply.status_code}: {reply.text[:200]}")
        if now["score"] != before["score"]:
            killed.broken.append("after the kill, another model judges")
        if _runs_of(client, ids):
            killed.broken.append("/runs shows a fit whose replica has ended")
        fitted = _answered(new, client, "/fit_ok").json()
        if fitted.get("n_embeddings") != _N_NEW * 64:
            killed.broken.append(f"the next fit replies {fitted}")
        if _answered(inference, client, "/infer").json()["score"] == before["score"]:
            killed.broken.append("after the next fit, the old model judges")


def _answered(form: Form, client: httpx.Client, path: str) -> httpx.Response:
    """The first reply that is not 503: requests to a replica that was killed get one until Ray has noticed it."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        reply = form.post(client, path)
        if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
            return reply
        time.sleep(_LOOK_EVERY_S)


def _process_of_fit(server: Server, ids: Mapping[str, str]) -> int:
    """The process id of the replica that fits, as soon as some of its images are embedded."""
    deadline = time.monotonic() + _WITHIN_S
    while time.monotonic() < deadline:
        for path in (server.models / ".runs").glob("*.json"):
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["roi_id"] == ids["roi_id"] and record["step"] == "extract" and record["done"]:
                return int(record["pid"])
        time.sleep(_LOOK_EVERY_S)
    raise RuntimeError(f"no fit was seen in {_WITHIN_S} s")


def _runs_of(client: httpx.Client, ids: Mapping[str, str]) -> list[object]:
    runs = client.get("/runs").json()["runs"]
    return [run for run in runs if run["roi_id"] == ids["roi_id"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.replica_fits", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="number of replicas that are killed (%(default)s)")
    chosen = parser.parse_args(arguments)
    killed = Killed()
    with starting(cluster_command, **_ENVIRONMENT) as server:
        server.wait_for("/health", _START_S)
        for number in range(chosen.rounds):
            kill_in_a_fit(server, {"role_id": "Killed", "roi_id": f"Fit{number}", "mm_per_px": "0.2"}, killed)
    rows = [
        ["replicas killed in a fit", len(killed.errors_s)],
        ["seconds to the error of the fit, median", f"{statistics.median(killed.errors_s):.2f}"],
        ["seconds to a judgement by the old model, median", f"{statistics.median(killed.served_s):.2f}"],
        ["the longest", f"{max(killed.served_s):.2f}"],
        ["promises broken", len(killed.broken)],
    ]
    print_table("Two replicas on Ray", ("", ""), rows)
    for text in killed.broken:
        print(text)
    return int(bool(killed.broken))


if __name__ == "__main__":
    sys.exit(main())
