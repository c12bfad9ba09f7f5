"""A cluster under load while a part of it fails or changes: which requests fail, and how long until all is well.

``python -m soak.cluster [node] [redeploy] [scale] [store] [control] [--pause 20]``; all if none is named. Ray's nodes
are processes of this machine. Two clients send one inference after another, and every judgement must have the
score that the first one had. Errors must be 503 `not_ready` or `store_unavailable`.

- node: one of two nodes is killed, and later another one is added.
- redeploy: every replica is replaced, because a setting changed.
- scale: one replica becomes eight, and one again.
- store: the object store is frozen, then gone, then frozen again with MODELS_FRESH_S.
- control: Ray's control store is gone, with Redis (apt-get install redis-server).

Two sites that write one ROI are in `soak.processes --sites 2`.
"""

import argparse
import contextlib
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import httpx

from backend.commands.console import count
from backend.common.config import load_settings
from backend.network.weights import find_weights
from harness.fault_proxy import proxy_process
from harness.forms import Form
from harness.images import png, solar_cells
from harness.measuring import p95, print_table
from harness.object_store import BUCKET, CREDENTIALS, moto_store
from harness.ray_nodes import Nodes, ray_nodes
from harness.server import free_port
from harness.steady_load import Asked, SteadyLoad, ask

_SETTINGS = {"DEVICE": "cpu", "THREADS": "1", "INPUT_SIZE": "112", "CORESET_RATE": "0.1", "LOG_LEVEL": "warning"}
_REDIS = "redis-server"
_N_GOOD, _MOST_REPLICAS = 4, 8
_STEADY = 20  # judgements that are waited for
_START_S, _STOP_S = 400.0, 20.0
_RECOVERS_S = 5.0  # requests that begin so soon after an outage may still fail
_ERRORS = ("not_ready", "store_unavailable")


@dataclass
class Result:
    """What was seen of one scenario.

    Attributes:
        rows: names and figures.
        broken: promises that were broken, as sentences.
    """

    rows: list[tuple[str, object]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect_none(self, asked: Sequence[Asked], what: str) -> None:
        """Note a broken promise if there are such requests."""
        if asked:
            seen = sorted({f"{each.status} {each.code}".strip() for each in asked})
            self.broken.append(f"{count(len(asked), 'request')} {what}: {', '.join(seen)}")


@dataclass(frozen=True)
class Event:
    """Something that was done to the cluster, or an outage.

    Attributes:
        start, end: on the clock of `time.monotonic`.
        steady_s: seconds from the end until `_STEADY` judgements; NaN if nobody waited for them.
        recovers_s: seconds after the end in which requests may still fail.
    """

    start: float
    end: float
    steady_s: float = math.nan
    recovers_s: float = 0.0

    @classmethod
    def of(cls, action: Callable[[], object]) -> "Event":
        """Do it."""
        start = time.monotonic()
        action()
        return cls(start, time.monotonic())

    def others(self, every: Sequence[Asked]) -> Sequence[Asked]:
        """The requests that were not in work at any time between start and end."""
        return [asked for asked in every if asked.end < self.start or asked.start > self.end + self.recovers_s]

    def rows(self, name: str, load: SteadyLoad) -> list[tuple[str, object]]:
        """Figures of an outage, when all requests have ended.

        Args:
            name: of the outage.
            load: the clients.
        """
        during = [asked for asked in load.asked if self.start < asked.start <= self.end]
        longest = max((asked.end - asked.start for asked in during), default=0.0)
        n_failed = sum(asked.score is None for asked in during)
        return [
            (
                f"{name}: requests that began in {self.end - self.start:.0f} s, without a judgement",
                f"{len(during)}, {n_failed}",
            ),
            (f"{name}: seconds of the longest of them", f"{longest:.1f}"),
            (f"{name}: seconds from its end to {_STEADY} judgements", f"{self.steady_s:.1f}"),
        ]


@contextlib.contextmanager
def under_load(nodes: Nodes, result: Result) -> Iterator[SteadyLoad]:
    """Fit a ROI, and send inferences for the duration of the block.

    Args:
        nodes: with replicas that are ready.
        result: gets the figures. Replies with another score are broken promises, and so are errors in another shape.
    """
    cells = [png(cell) for cell in solar_cells(_N_GOOD + 1)]
    inference = Form.of("image", cells[-1:])
    with httpx.Client(base_url=nodes.address, timeout=_START_S, trust_env=False) as client:
        Form.of("images", cells[:_N_GOOD]).post(client, "/fit_ok").raise_for_status()
        score = ask(client, inference).score
    assert score is not None, "the ROI is fitted"
    with SteadyLoad(nodes.address, inference, score) as load:
        load.wait_for_judgements(_STEADY)
        yield load
        load.wait_for_judgements(_STEADY)
    judged = [1000 * (asked.end - asked.start) for asked in load.asked if asked.score is not None]
    result.rows += [
        ("requests", len(load.asked)),
        ("of these without a judgement", len(load.failed())),
        ("milliseconds of a judgement, p50 and p95", f"{statistics.median(judged):.0f}, {p95(judged):.0f}"),
    ]
    result.expect_none(load.wrong(), "got another score")
    other = [asked for asked in load.failed() if asked.status != 503 or asked.code not in _ERRORS]
    result.expect_none(other, f"failed otherwise than with 503 {' or '.join(_ERRORS)}")


def node(nodes: Nodes, result: Result, pause_s: float) -> None:
    """Kill one of two nodes under load, and add another one after `pause_s` seconds."""
    nodes.deploy(2, 1)
    with under_load(nodes, result) as load:
        kill = Event.of(lambda: nodes.kill(nodes.others[0]))
        if len(nodes.replicas()) != 1:
            result.broken.append("the kill of a node did not end its replica")
        result.rows.append(
            (f"seconds from the kill to {_STEADY} judgements", f"{load.wait_for_judgements(_STEADY):.1f}")
        )
        time.sleep(pause_s)
        nodes.add(1)
        result.rows.append(("seconds from a new node to two replicas", f"{nodes.wait_for_replicas(2):.1f}"))
    result.expect_none(kill.others(load.failed()), "failed that were not in work at the kill")


def redeploy(nodes: Nodes, result: Result, _pause_s: float) -> None:
    """Replace every replica under load."""
    nodes.deploy(2, 1)
    with under_load(nodes, result) as load:
        before, start = {process.pid for process in nodes.replicas()}, time.monotonic()
        nodes.deploy(2, 1, {"KEEP_VERSIONS": "5"})
        nodes.wait_for_replicas(2)
        result.rows.append(("seconds until both replicas are new", f"{time.monotonic() - start:.1f}"))
        if before & {process.pid for process in nodes.replicas()}:
            result.broken.append("a replica was not replaced")
    result.expect_none(load.failed(), "failed")


def scale(nodes: Nodes, result: Result, pause_s: float) -> None:
    """Make one replica eight under load, and one again."""
    nodes.deploy(1, 2 / _MOST_REPLICAS)
    with under_load(nodes, result) as load:
        for number in (_MOST_REPLICAS, 1):
            start = time.monotonic()
            nodes.deploy(number, 2 / _MOST_REPLICAS)
            nodes.wait_for_replicas(number)
            result.rows.append((f"seconds to {count(number, 'replica')}", f"{time.monotonic() - start:.1f}"))
            time.sleep(pause_s)
    result.expect_none(load.failed(), "failed")


def store(result: Result, pause_s: float) -> None:
    """Freeze the object store under load, let it refuse connections, and freeze it again with ``MODELS_FRESH_S``."""
    fresh = {"MODELS_FRESH_S": f"{3 * pause_s:g}"}
    with moto_store() as endpoint, proxy_process(endpoint) as process:
        settings = {**CREDENTIALS, "AWS_ENDPOINT_URL": process.address, "MODELS_URL": f"s3://{BUCKET}/models"}
        with _nodes(2, **settings) as nodes:
            nodes.deploy(2, 1)
            with under_load(nodes, result) as load:
                frozen = _outage(load, pause_s, process.freeze, process.go_on)
                gone = _outage(load, pause_s, process.end, process.start)
                nodes.deploy(2, 1, fresh)
                nodes.wait_for_replicas(2)
                load.wait_for_judgements(_STEADY)
                frozen_again = _outage(load, pause_s, process.freeze, process.go_on)
            for name, outage in (("frozen", frozen), ("gone", gone), ("frozen, MODELS_FRESH_S", frozen_again)):
                result.rows += outage.rows(name, load)
            if len(gone.others(load.failed())) == len(load.failed()):
                result.broken.append("no request failed while the store was gone, so nobody asked it")
            result.expect_none(gone.others(frozen.others(load.failed())), "failed outside of both outages")


def control(result: Result, pause_s: float) -> None:
    """Let Ray's control store be gone under load; then a killed replica must be replaced as before."""
    with _redis() as address, _nodes(2, RAY_REDIS_ADDRESS=address) as nodes:
        nodes.deploy(2, 1)
        with under_load(nodes, result) as load:
            head = nodes.cluster.head_node
            gone = _outage(load, pause_s, head.kill_gcs_server, head.start_gcs_server)
            load.wait_for_judgements(_STEADY)
            kill = Event.of(nodes.replicas()[0].kill)
            nodes.wait_for_replicas(2)
            took_s = time.monotonic() - kill.end
        result.rows += gone.rows("gone", load)
        result.rows.append(("seconds to the replacement of a killed replica", f"{took_s:.1f}"))
        result.expect_none(kill.others(load.failed()), "failed that were not in work at the kill of a replica")


def _outage(load: SteadyLoad, pause_s: float, begin: Callable[[], object], end: Callable[[], object]) -> Event:
    """Let something fail for some seconds."""
    start = time.monotonic()
    begin()
    time.sleep(pause_s)
    end()
    back = time.monotonic()
    return Event(start, back, load.wait_for_judgements(_STEADY), _RECOVERS_S)


@contextlib.contextmanager
def _nodes(*cores: int, **settings: str) -> Iterator[Nodes]:
    """A cluster with a node for each number of cores."""
    weights = str(find_weights(load_settings()).path)
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as models:
        environment = {**_SETTINGS, "WEIGHTS": weights, "MODELS_DIR": models, **settings}
        with ray_nodes(environment) as nodes:
            for number in cores:
                nodes.add(number)
            yield nodes


@contextlib.contextmanager
def _redis() -> Iterator[str]:
    """The address, host:port, of an empty Redis on loopback.

    Raises:
        FileNotFoundError: it is not installed.
    """
    port = free_port()
    command = [_REDIS, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(_STOP_S)


_ON_TWO_NODES: Mapping[str, Callable[[Nodes, Result, float], None]] = {
    "node": node,
    "redeploy": redeploy,
    "scale": scale,
}
_ON_THEIR_OWN: Mapping[str, Callable[[Result, float], None]] = {"store": store, "control": control}
_SCENARIOS = (*_ON_TWO_NODES, *_ON_THEIR_OWN)


def run(names: Sequence[str], pause_s: float) -> int:
    """Print the figures of some scenarios; the number of promises that were broken.

    Args:
        names: of `_SCENARIOS`.
        pause_s: duration of an outage in seconds.
    """
    n_broken = 0

    def show(name: str, scenario: Callable[[Result, float], None]) -> None:
        nonlocal n_broken
        result = Result()
        scenario(result, pause_s)
        print_table(name, ("", ""), [*result.rows, ("promises broken", len(result.broken))])
        for text in result.broken:
            print(f"BROKEN: {text}")
        n_broken += len(result.broken)

    if together := [name for name in _ON_TWO_NODES if name in names]:
        with _nodes(1, 1) as nodes:
            for name in together:
                show(name, partial(_ON_TWO_NODES[name], nodes))
    for name, scenario in _ON_THEIR_OWN.items():
        if name in names:
            show(name, scenario)
    return n_broken


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.cluster", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=f"{', '.join(_SCENARIOS)}; default: all")
    parser.add_argument("--pause", type=float, default=20, help="duration of an outage in seconds (%(default)g)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.scenarios) - set(_SCENARIOS):
        parser.error(f"no scenario is named {', '.join(sorted(unknown))}: choose from {', '.join(_SCENARIOS)}")
    names = chosen.scenarios or list(_SCENARIOS)
    if "control" in names and shutil.which(_REDIS) is None:
        parser.error(f"{_REDIS} is not installed: apt-get install redis-server")
    return int(run(names, chosen.pause) > 0)


if __name__ == "__main__":
    sys.exit(main())
