"""The time that a server adds to the bare forward pass: over HTTP, under load, during a fit, and with a full queue.

``python -m benchmarks.serving [single] [load] [fit] [queue] [--precision float32 bfloat16] [--rounds 40]``; all four if
none is named. Servers are real processes on loopback; they and the forward pass take turns, so that noise hits both.
"""

import argparse
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from benchmarks.bare_forward import bare_forward
from harness.forms import Form
from harness.images import cell_png
from harness.measuring import at_least, at_most, p95, print_table
from harness.server import Server, fitted_models, gunicorn_command, serve_command, serving

_SIZES = ((300, 300), (512, 512), (2448, 2048))  # ROI width and height in pixels; the last is a 5-megapixel camera's
_SIDE = 512  # of the ROI under load
_FITTED = 34  # cells: a memory bank of 697 embeddings at the default rate
_CLIENTS = 8
_REQUESTS = 48  # of all clients together
_BLOCKS = 3
_LARGE_FIT = 60
_MAX_QUEUE = 4
_CROWD = 16
_CONNECT_S = 60

_SINGLE_CLAIM = {"float32": 1.12, "bfloat16": 1.2}  # of 512×512: HTTP over the bare forward pass, medians
_THROUGHPUT_CLAIM = 0.95  # requests per second × seconds of a lone request
_FAIR_SHARE_CLAIM = 1.3  # p95 over clients × seconds of a lone request
_DURING_FIT_CLAIM = 2.5  # p95 over seconds of a lone request


@dataclass(frozen=True)
class Load:
    """What a group of clients saw.

    Attributes:
        seconds: from the first request to the last reply.
        latencies: seconds of every request, by client.
    """

    seconds: float
    latencies: list[list[float]]

    @property
    def every(self) -> list[float]:
        """Seconds of every request."""
        return [latency for own in self.latencies for latency in own]

    @property
    def throughput(self) -> float:
        """Replies per second."""
        return len(self.every) / self.seconds


def press(server: Server, form: Form, clients: int, total: int, name: str = "load") -> Load:
    """Send `total` inferences from `clients` clients, each of which sends its next request once it has its reply.

    Their request ids are ``<name>-0``, ``<name>-1``, …
    """
    remaining = iter(range(total))  # shared, so that who is served sooner sends more
    together = threading.Barrier(clients + 1, timeout=_CONNECT_S)

    def work(_: int) -> list[float]:
        with server.client() as client:
            client.get("/health")  # connected before the clock starts
            together.wait()
            return [form.infer(client, f"{name}-{ticket}") for ticket in remaining]

    with ThreadPoolExecutor(clients) as pool:
        latencies = pool.map(work, range(clients))
        together.wait()
        start = time.perf_counter()
        served = list(latencies)
        return Load(time.perf_counter() - start, served)


def alone(server: Server, form: Form, count: int) -> list[float]:
    """Seconds of `count` inferences by a lone client."""
    return press(server, form, 1, count).every


def single(environment: dict[str, str], rounds: int) -> None:
    """One client against the bare forward pass; then where the rest of the time goes."""
    forms = [Form.of("image", [cell_png(*size)]) for size in _SIZES]
    bare: list[list[float]] = [[] for _ in _SIZES]
    http: list[list[float]] = [[] for _ in _SIZES]
    with (
        serving(**environment) as server,
        server.client() as client,
        bare_forward(precision=environment["PRECISION"]) as forward,
    ):
        health = server.wait_for("/health").json()
        for form in forms:
            form.infer(client)
        for run in range(rounds):
            for index, form in enumerate(forms):
                bare[index].append(forward())
                http[index].append(form.infer(client, f"{index}-{run}"))
        logged = [server.log_of([f"{index}-{run}" for run in range(rounds)]) for index in range(len(_SIZES))]

    names = [f"{width}×{height}" for width, height in _SIZES]
    rows = []
    for name, size, alone_s, http_s in zip(names, _SIZES, bare, http, strict=True):
        ratio = median(http_s) / median(alone_s)
        claim = _SINGLE_CLAIM.get(health["precision"]) if size == (_SIDE, _SIDE) else None
        rows.append(
            (
                name,
                *(f"{1000 * seconds:.0f}" for seconds in (median(alone_s), p95(alone_s), median(http_s), p95(http_s))),
                at_most(claim, ratio) if claim else f"{ratio:.2f}",
            )
        )
    print_table(
        f"/infer over HTTP, one client, {_network(health)}, {rounds} rounds of each in turn, milliseconds",
        ("ROI", "forward p50", "forward p95", "HTTP p50", "HTTP p95", "HTTP / forward, p50"),
        rows,
    )
    _print_stages({name: (logged[i], http[i]) for i, name in enumerate(names)})


def load(environment: dict[str, str], rounds: int) -> None:
    """Eight clients against a lone one, before uvicorn alone and before gunicorn with two workers."""
    form = Form.of("image", [cell_png(_SIDE, _SIDE)])
    rows = []
    for name, command in (("uvicorn", serve_command), ("gunicorn -w 2", gunicorn_command)):
        with serving(command, **environment) as server:
            network = _network(server.wait_for("/health").json())
            press(server, form, _CLIENTS, _CLIENTS)
            blocks = [
                (median(alone(server, form, rounds)), press(server, form, _CLIENTS, _REQUESTS, f"block-{block}"))
                for block in range(_BLOCKS)
            ]
            logged = [server.log_of([f"block-{block}-{i}" for i in range(_REQUESTS)]) for block in range(_BLOCKS)]
        workers = [Counter(entry["pid"] for entry in entries) for entries in logged]
        served = [len(own) for _, block in blocks for own in block.latencies]
        rows.append(
            (
                name,
                f"{1000 * median(lone for lone, _ in blocks):.0f}",
                f"{1000 * median(median(block.every) for _, block in blocks):.0f}",
                f"{1000 * median(p95(block.every) for _, block in blocks):.0f}",
                at_most(_FAIR_SHARE_CLAIM, median(p95(block.every) / (_CLIENTS * lone) for lone, block in blocks)),
                f"{median(block.throughput for _, block in blocks):.2f}",
                at_least(_THROUGHPUT_CLAIM, median(block.throughput * lone for lone, block in blocks)),
                f"{min(served)} … {max(served)}",
                ", ".join("+".join(map(str, sorted(counts.values()))) for counts in workers),
            )
        )
    print_table(
        f"/infer of {_SIDE}×{_SIDE} by {_CLIENTS} clients at once, {network}, medians of {_BLOCKS} blocks: "
        f"a lone client, then {_REQUESTS} requests of all",
        (
            "server",
            "lone p50 ms",
            "p50 ms",
            "p95 ms",
            f"p95 / ({_CLIENTS} × lone)",
            "requests per s",
            "requests per s × lone",
            "fewest … most served to a client",
            "served by each worker, per block",
        ),
        rows,
    )


def fit(environment: dict[str, str], rounds: int) -> None:
    """A lone client while another ROI is fitted, its coreset included, against the same client without the fit."""
    form = Form.of("image", [cell_png(_SIDE, _SIDE)])
    with serving(**environment) as server, server.client() as client, ThreadPoolExecutor(1) as background:
        network = _network(server.wait_for("/health").json())
        form.infer(client)
        lone = [form.infer(client, f"before-{index}") for index in range(rounds)]
        fitted = background.submit(server.fit, _LARGE_FIT, "large-fit", roi_id="Other")
        during = []
        while not fitted.done():
            during.append(form.infer(client, f"during-{len(during)}"))
        fitted.result()
        lone += [form.infer(client, f"after-{index}") for index in range(rounds)]
        lone_entries = server.log_of([f"{when}-{index}" for when in ("before", "after") for index in range(rounds)])
        entries = server.log_of([f"during-{index}" for index in range(len(during))])
        (fit_entry,) = server.log_of(["large-fit"])

    coreset_end = _end(fit_entry) - fit_entry["store_ms"] / 1000
    coreset_start = coreset_end - fit_entry["coreset_ms"] / 1000
    beside_coreset = [
        seconds
        for seconds, entry in zip(during, entries, strict=True)
        if _end(entry) >= coreset_start and _end(entry) - entry["ms"] / 1000 <= coreset_end
    ]
    rows = [("without a fit", len(lone), f"{1000 * median(lone):.0f}", f"{1000 * p95(lone):.0f}", "", "")]
    for name, seconds in (("during the fit", during), ("of these, beside its coreset", beside_coreset)):
        if not seconds:
            continue  # a coreset may be done between two requests
        ratio = p95(seconds) / median(lone)
        rows.append(
            (
                name,
                len(seconds),
                f"{1000 * median(seconds):.0f}",
                f"{1000 * p95(seconds):.0f}",
                at_most(_DURING_FIT_CLAIM, ratio) if seconds is during else f"{ratio:.2f}",
                f"{max(seconds) / median(lone):.2f}",
            )
        )
    print_table(
        f"/infer of {_SIDE}×{_SIDE} by one client while {_LARGE_FIT} cells are fitted ({fit_entry['ms'] / 1000:.1f} s, "
        f"{fit_entry['coreset_ms'] / 1000:.1f} s of it the coreset), {network}",
        ("", "requests", "p50 ms", "p95 ms", "p95 / p50 without a fit", "slowest / p50 without a fit"),
        rows,
    )
    _print_stages({"without a fit": (lone_entries, lone), "during the fit": (entries, during)})


def queue(environment: dict[str, str], rounds: int) -> None:
    """A crowd before a short queue: who is refused comes back when told, until all are served."""
    form = Form.of("image", [cell_png(_SIDE, _SIDE)])
    with serving(**environment, MAX_QUEUE=str(_MAX_QUEUE)) as server:
        network = _network(server.wait_for("/health").json())
        press(server, form, 1, 1)
        lone = median(alone(server, form, rounds))
        crowds = [_crowd(server, form) for _ in range(_BLOCKS)]
    attempts = [attempt for crowd in crowds for own in crowd for attempt in own]
    served = [attempt for attempt in attempts if attempt.status == 200]
    refused = [attempt for attempt in attempts if attempt.status == 503]
    firsts = [own[0].status for crowd in crowds for own in crowd]
    rows = [
        ("replies 200, one for each client", f"{len(served)} of {_CROWD * _BLOCKS}"),
        ("of these at the first attempt", f"{firsts.count(200)}"),
        ("replies 503", len(refused)),
        ("of these with Retry-After", sum(attempt.retry_after_s is not None for attempt in refused)),
        ("other replies", len(attempts) - len(served) - len(refused)),
        (f"slowest 200 / ({_MAX_QUEUE} × lone)", at_most(_FAIR_SHARE_CLAIM, _slowest(served) / (_MAX_QUEUE * lone))),
        ("slowest 503 / lone", f"{_slowest(refused) / lone:.2f}"),
        ("most attempts of one client", max(len(own) for crowd in crowds for own in crowd)),
    ]
    print_table(
        f"{_CROWD} clients at once, MAX_QUEUE={_MAX_QUEUE}, {_BLOCKS} times, {network}; lone p50 {1000 * lone:.0f} ms",
        ("", ""),
        rows,
    )


@dataclass(frozen=True)
class _Attempt:
    status: int
    seconds: float
    retry_after_s: float | None


def _crowd(server: Server, form: Form) -> list[list[_Attempt]]:
    """The attempts of every client until its request was served, or failed otherwise than by 503."""
    together = threading.Barrier(_CROWD, timeout=_CONNECT_S)

    def work(_: int) -> list[_Attempt]:
        attempts: list[_Attempt] = []
        with server.client() as client:
            client.get("/health")
            together.wait()
            while not attempts or attempts[-1].status == 503:
                if attempts:
                    time.sleep(attempts[-1].retry_after_s or 1)
                start = time.perf_counter()
                reply = form.post(client, "/infer")
                told = reply.headers.get("Retry-After")
                attempts.append(
                    _Attempt(reply.status_code, time.perf_counter() - start, None if told is None else float(told))
                )
        return attempts

    with ThreadPoolExecutor(_CROWD) as pool:
        return list(pool.map(work, range(_CROWD)))


def _slowest(attempts: Sequence[_Attempt]) -> float:
    return max((attempt.seconds for attempt in attempts), default=0.0)


def _print_stages(requests: Mapping[str, tuple[list[dict[str, Any]], list[float]]]) -> None:
    """Where the time of requests goes, from their log entries and from their seconds as the client saw them."""
    stages: list[str] = []
    rows = []
    for name, (entries, seconds) in requests.items():
        stages = [key for key in entries[0] if key.endswith("_ms")]
        columns = [[entry[stage] for entry in entries] for stage in stages]
        columns.append([entry["ms"] - sum(entry[stage] for stage in stages) for entry in entries])
        columns.append([1000 * value - entry["ms"] for value, entry in zip(seconds, entries, strict=True)])
        rows.append((name, *(f"{median(column):.1f}" for column in columns)))
    print_table(
        "The same requests in the server's log, median milliseconds",
        ("", *(stage.removesuffix("_ms") for stage in stages), "else in the server", "client and loopback"),
        rows,
    )


def _network(health: dict[str, str]) -> str:
    """What runs the network, in the server's own words: a setting that it does not know shows here."""
    return f"{health['runtime']} {health['precision']}"


def _end(entry: dict[str, Any]) -> float:
    """When a request was answered, in seconds of the server's clock."""
    return datetime.fromisoformat(entry["timestamp"]).timestamp()


_CLAIMS = {"single": single, "load": load, "fit": fit, "queue": queue}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"{', '.join(_CLAIMS)}; default: all")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=list(_SINGLE_CLAIM),
        default=["float32"],
        help="precisions of the servers (default: float32)",
    )
    parser.add_argument("--rounds", type=int, default=40, help="requests of the single client (%(default)s)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.claims) - set(_CLAIMS):
        parser.error(f"no claim is named {', '.join(sorted(unknown))}: choose from {', '.join(_CLAIMS)}")
    for precision in chosen.precision:
        with fitted_models(_FITTED, PRECISION=precision) as environment:
            for claim in chosen.claims or _CLAIMS:
                _CLAIMS[claim](environment, chosen.rounds)


if __name__ == "__main__":
    main()
