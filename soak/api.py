"""The service's own OpenAPI document against the service: schemathesis with all checks, then requests it cannot make.

``python -m soak.api [--cases 10000]``: no 5xx, every reply as documented, too large bodies refused while they arrive.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.abuse import BODIES, send_bodies
from harness.measuring import print_table
from harness.server import Server, serving
from harness.watch import ENVIRONMENT, Watch

_CONFIG = Path(__file__).with_name("schemathesis.toml")
_SLOWEST_S = 15.0
_MOST_MB = 1500.0
_SEED = 1
_TIDY, _TIDY_EVERY_S = "tidy", 0.5


def schemathesis(server: Server, per_operation: int, seed: int = _SEED) -> tuple[int, str]:
    """Run schemathesis with all checks; its exit status and what it printed.

    Args:
        server: whose document it reads.
        per_operation: random cases for each operation, beside those that it derives.
        seed: of the random cases.
    """
    options = ["-n", str(per_operation), "--seed", str(seed), "--continue-on-failure", "--no-color"]
    with _tidying(server):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG), "run"),
                *(f"{server.address}/openapi.json", "--suppress-health-check", "all", *options),
            ],
            capture_output=True,
            text=True,
            cwd=server.log_file.parent,  # it keeps examples that failed where it runs
            check=False,
        )
    return done.returncode, done.stdout + done.stderr


@contextlib.contextmanager
def _tidying(server: Server) -> Iterator[None]:
    """Clear the data set of the document's examples now and then: else every reply about it is longer than the last."""
    done = threading.Event()
    roi = {"role_id": "Master1", "roi_id": "Pattern", "recipe_id": "line 1"}

    def tidy() -> None:
        with server.client() as client:
            while not done.wait(_TIDY_EVERY_S):
                for label in ("ok", "ng"):
                    client.delete("/datasets/clear", params={**roi, "label": label}, headers={"X-Request-Id": _TIDY})

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def requests_of(server: Server) -> list[dict[str, Any]]:
    """The log entries of all requests but those that are not logged: /health and /metrics that went well."""
    lines = server.log_text().rpartition("\n")[0].splitlines()
    entries = (json.loads(line) for line in lines if line.startswith("{"))
    return [entry for entry in entries if entry["event"] == "request" and entry["request_id"] != _TIDY]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m soak.api", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="minimum number of requests of schemathesis")
    parser.add_argument("--seed", type=int, default=_SEED)
    options = parser.parse_args(arguments)
    with serving(**ENVIRONMENT, MIN_OK_SAMPLES="1") as server:
        with server.client() as client:
            paths = client.get("/openapi.json").json()["paths"]
        # Of an operation that takes nothing there is one case.
        operations = sum(
            "parameters" in operation or "requestBody" in operation
            for methods in paths.values()
            for operation in methods.values()
        )
        n_before = len(requests_of(server))  # those that asked whether it is ready
        begin = time.monotonic()
        status, printed = schemathesis(server, -(-options.cases // operations), options.seed)
        minutes = (time.monotonic() - begin) / 60
        print(printed)
        entries = requests_of(server)[n_before:]
        _print_requests(f"schemathesis, all checks, {minutes:.1f} minutes", entries)
        watch = send_bodies(server, Watch(server, frozenset(), _SLOWEST_S))
        watch.expect(status == 0, f"schemathesis ended with {status}; see above")
        watch.expect(len(entries) >= options.cases, f"{len(entries)} requests, {options.cases} were wanted")
        unexpected = [entry for entry in entries if entry["status"] >= 500]
        watch.expect(not unexpected, f"{len(unexpected)} replies of 5xx, the first: {unexpected[:1]}")
        return watch.finish(f"{len(BODIES)} kinds of requests that no schema makes", _MOST_MB)


def _print_requests(title: str, entries: Iterable[dict[str, Any]]) -> None:
    counts: Counter[tuple[int, str]] = Counter()
    slowest = (0.0, "")
    for entry in entries:
        counts[entry["status"], "requests"] += 1
        slowest = max(slowest, (entry["ms"], entry["endpoint"]))
    rows: list[tuple[object, object]] = [(status, count) for (status, _), count in sorted(counts.items())]
    rows += [("all", counts.total()), ("slowest reply", f"{slowest[0] / 1000:.2f} s ({slowest[1]})")]
    print_table(title, ("status", "requests"), rows)


if __name__ == "__main__":
    sys.exit(main())
