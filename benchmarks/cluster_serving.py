"""What Ray costs: one replica behind its proxy beside plain uvicorn, with the real network.

``python -m benchmarks.cluster_serving [--rounds 40] [--side 512] [--threads 2]``. Both servers run at once, and one
client asks them in turn, so that noise hits both. CPU time is that of all processes of a server, from each request
until 50 ms after its reply, because log lines and statistics are written then.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil
import yaml

from harness.forms import Form
from harness.images import cell_png
from harness.measuring import at_most, p95, print_table
from harness.server import ROOT, Server, cluster_command, fitted_models, starting, uvicorn_command

_N_FITTED = 34  # cells: a memory bank of 697 embeddings at the default rate
_START_S = 400.0
_SETTLED_S = 0.05  # log lines and statistics of a request are written after its reply
_CLAIM = 1.15


def _one_replica(folder: Path, threads: int) -> Path:
    """``deploy/serve.yaml`` with one replica, which has all cores."""
    config = yaml.safe_load((ROOT / "deploy/serve.yaml").read_text(encoding="utf-8"))
    (deployment,) = config["applications"][0]["deployments"]
    deployment |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": threads}}
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextmanager
def _both(threads: int) -> Iterator[dict[str, Server]]:
    """Both servers over the same models, by name."""
    with fitted_models(_N_FITTED) as environment, tempfile.TemporaryDirectory(prefix="roi-anomaly-") as name:
        config, given = _one_replica(Path(name), threads), {**environment, "THREADS": str(threads)}

        def on_ray(port: int) -> list[str]:
            return [*cluster_command(port), "--config", str(config)]

        with starting(uvicorn_command, **given) as alone, starting(on_ray, **given) as replica:
            servers = {"uvicorn": alone, "Ray, one replica": replica}
            for server in servers.values():
                server.wait_for("/health", _START_S)
            yield servers


def _cpu_s(server: Server) -> float:
    """CPU seconds of all processes of a server so far."""
    process = psutil.Process(server.pid)
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            times = each.cpu_times()
            total += times.user + times.system
    return total


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_serving", description=__doc__)
    parser.add_argument("--rounds", type=int, default=40, help="requests to each server (%(default)s)")
    parser.add_argument("--side", type=int, default=512, help="width and height of the ROI in pixels (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each server (%(default)s)")
    chosen = parser.parse_args(arguments)
    form = Form.of("image", [cell_png(chosen.side, chosen.side)])
    with _both(chosen.threads) as servers:
        seconds: dict[str, list[float]] = {name: [] for name in servers}
        cpu: dict[str, list[float]] = {name: [] for name in servers}
        clients = {name: server.client() for name, server in servers.items()}
        for client in clients.values():
            form.infer(client)
        for _ in range(chosen.rounds):
            for name, server in servers.items():
                before = _cpu_s(server)
                seconds[name].append(form.infer(clients[name]))
                time.sleep(_SETTLED_S)
                cpu[name].append(_cpu_s(server) - before)
        for client in clients.values():
            client.close()
    rows: list[list[object]] = [
        [
            name,
            f"{1000 * median(seconds[name]):.0f}",
            f"{1000 * p95(seconds[name]):.0f}",
            f"{1000 * sum(cpu[name]) / chosen.rounds:.0f}",
        ]
        for name in servers
    ]
    (alone, replica), n = servers, chosen.rounds
    print_table(
        f"/infer of {chosen.side}×{chosen.side}, {n} requests to each in turn, {chosen.threads} threads",
        ("server", "p50 ms", "p95 ms", "CPU ms per request"),
        rows,
    )
    print_table(
        "Ray over uvicorn",
        ("", "ratio"),
        [
            ["p50", at_most(_CLAIM, median(seconds[replica]) / median(seconds[alone]))],
            ["CPU per request", at_most(_CLAIM, sum(cpu[replica]) / sum(cpu[alone]))],
        ],
    )


if __name__ == "__main__":
    main()
