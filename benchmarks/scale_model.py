"""Capacity on paper: how many machines, what binds, and what a million inferences cost, from measured figures.

``python -m benchmarks.scale_model``. Figures that were measured stand in `MEASURED`, with where; the others in
`ASSUMED`. ``--cpu-ms 200`` and so on replace one of them.
"""

import argparse
import math
from typing import NamedTuple

from harness.measuring import print_table

MEASURED = {
    "cpu_ms": 372.0,  # of one inference, float32, one core; docs/scale.md
    "bfloat16_cpu_ms": 200.0,  # an assumption for CPUs with AMX
    "proxy_cpu_ms": 13.0,  # of Ray's Python proxy and its way to a replica
    "manifest_ms": 1.9,  # of looking whether a model is current, store on the same machine
}
ASSUMED = {
    "gpu_per_s": 500.0,  # inferences of a GPU of the L4 class
    "gpu_cpu_ms": 18.0,  # decode, search and encode beside it
    "node_cores": 16.0,
    "core_hour_dollars": 0.05,
    "gpu_hour_dollars": 0.80,
    "million_gets_dollars": 0.40,
    "gets_per_s_of_a_prefix": 5500.0,  # AWS: a prefix of a bucket
    "proxy_per_s": 1000.0,  # requests that one proxy passes on, whatever is behind it
    "load": 0.7,  # share of the cores that may be busy on average
}


class Capacity(NamedTuple):
    """What a kind of node gives.

    Attributes:
        name: of the kind.
        per_node: inferences per second of a node.
        per_million: dollars of a million inferences, without the store.
    """

    name: str
    per_node: float
    per_million: float


def capacities(given: dict[str, float]) -> list[Capacity]:
    """Capacity of each kind of node.

    Args:
        given: the figures, by name.
    """
    found = []
    for name, cpu_ms in (("CPU, float32", given["cpu_ms"]), ("CPU, bfloat16 with AMX", given["bfloat16_cpu_ms"])):
        core_ms = cpu_ms + given["proxy_cpu_ms"] + given["manifest_ms"]
        per_node = given["node_cores"] * given["load"] * 1000 / core_ms
        hours = 1e6 * core_ms / 3.6e6 / given["load"]
        found.append(Capacity(name, per_node, hours * given["core_hour_dollars"]))
    core_ms = given["gpu_cpu_ms"] + given["proxy_cpu_ms"] + given["manifest_ms"]
    per_node = given["load"] * min(given["gpu_per_s"], given["node_cores"] * 1000 / core_ms)
    hour = given["gpu_hour_dollars"] + given["node_cores"] * given["core_hour_dollars"]
    return [*found, Capacity("GPU of the L4 class", per_node, 1e6 / per_node / 3600 * hour)]


def binds(nodes: int, per_node: float, given: dict[str, float]) -> str:
    """What limits a cluster of so many nodes first, and what is done about it.

    Args:
        nodes: how many.
        per_node: inferences per second of each.
        given: the figures, by name.
    """
    per_s = nodes * per_node
    limits = []
    if per_node > given["proxy_per_s"]:
        limits.append("the proxy of a node: several, or HAProxy")
    if per_s > given["gets_per_s_of_a_prefix"]:
        prefixes = math.ceil(per_s / given["gets_per_s_of_a_prefix"])
        limits.append(f"reads of manifests: {prefixes} prefixes, or MODELS_FRESH_S")
    if nodes > 100:
        limits.append(
            f"the control store: {math.ceil(nodes / 100)} clusters of 100 nodes, one home bucket for a recipe"
        )
    elif nodes > 1:
        limits.append("the head: Redis, else its end is the end of the cluster")
    return "; ".join(limits) or "the forward pass"


def main(arguments: list[str] | None = None) -> None:
    """Print what follows from the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_model", description=__doc__.splitlines()[0])
    for name, value in {**MEASURED, **ASSUMED}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=value, help=f"default {value:g}")
    given = vars(parser.parse_args(arguments))
    kinds = capacities(given)
    rows = [
        [
            kind.name,
            f"{kind.per_node:.0f}",
            f"{math.ceil(1000 / kind.per_node)}",
            f"{kind.per_million:.2f}",
            f"{given['million_gets_dollars']:.2f}",
        ]
        for kind in kinds
    ]
    heads = [
        "kind of node",
        "inferences/s of a node",
        "nodes for 1,000/s",
        "$ per million",
        "of it reads of manifests $",
    ]
    print_table("Capacity", heads, rows)
    rows = [
        [kind.name, str(nodes), f"{nodes * kind.per_node:,.0f}", binds(nodes, kind.per_node, given)]
        for kind in kinds
        for nodes in (1, 10, 100, 1000)
    ]
    print_table("What binds", ["kind of node", "nodes", "inferences/s", "what binds, and what is done"], rows)


if __name__ == "__main__":
    main()
