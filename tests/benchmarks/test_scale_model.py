"""The capacity on paper follows from its figures."""

import pytest

from benchmarks.scale_model import ASSUMED, MEASURED, binds, capacities, main

GIVEN = {**MEASURED, **ASSUMED}


def test_half_the_time_is_nearly_twice_the_capacity_at_half_the_price():
    before, after = (capacities({**GIVEN, "cpu_ms": cpu_ms})[0] for cpu_ms in (400.0, 200.0))
    assert 1.8 < after.per_node / before.per_node < 2
    assert before.per_million / after.per_million == pytest.approx(after.per_node / before.per_node)


def test_price_and_capacity_agree():
    for kind in capacities(GIVEN)[:2]:
        node_hour = GIVEN["node_cores"] * GIVEN["core_hour_dollars"]
        assert kind.per_million == pytest.approx(1e6 / (kind.per_node * 3600) * node_hour)


@pytest.mark.parametrize(
    ("nodes", "per_node", "said"),
    [(1, 30, "the forward pass"), (10, 30, "Redis"), (1000, 30, "10 clusters"), (100, 300, "6 prefixes")],
)
def test_what_binds_grows_with_the_cluster(nodes, per_node, said):
    assert said in binds(nodes, per_node, GIVEN)


def test_the_script_prints_both_tables(capsys):
    main(["--cpu-ms", "100"])
    printed = capsys.readouterr().out
    assert "nodes for 1,000/s" in printed
    assert "what binds" in printed
