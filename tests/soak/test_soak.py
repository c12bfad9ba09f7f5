"""The soak runs, shortened: the same corpus, the same promises."""

import subprocess
import sys
from collections.abc import Iterator
from itertools import islice

import pytest

from backend.network.weights import Weights
from harness.abuse import BODIES, exchange
from harness.hostile_files import corpus, mutations
from harness.server import Server, serving
from harness.watch import ENVIRONMENT, is_an_error_of_the_contract
from soak.api import schemathesis
from soak.files import send
from soak.slow import soak as slow_clients


@pytest.fixture(scope="module")
def served(weights: Weights) -> Iterator[Server]:
    with serving(**ENVIRONMENT, WEIGHTS=str(weights.path), MIN_OK_SAMPLES="1", BODY_TIMEOUT_S="2") as server:
        yield server


@pytest.mark.long
def test_the_corpus_and_its_mutations_are_the_same_for_everybody() -> None:
    assert corpus() == corpus()
    assert list(mutations(50, seed=3)) == list(mutations(50, seed=3))
    assert list(mutations(50, seed=3)) != list(mutations(50, seed=4))


def test_hostile_files_get_replies_in_contract_shape_in_bounded_memory(served: Server) -> None:
    """Every file of a sample of the hostile corpus is answered, and the service lives on."""
    files = [(what, content) for what, content in corpus().items() if not what.endswith((" 7 %", " 53 %"))]
    watch = send(served, [*files[:100], *files[100::10], *mutations(400)])
    assert watch.broken == []
    assert {status.split()[1] for status in watch.statuses} >= {"200", "400", "413", "415"}
    assert served.process.poll() is None
    assert watch.peak_mb() < 2000


@pytest.mark.parametrize("what", BODIES)
def test_what_no_schema_makes_is_refused_as_soon_as_it_is_known(served: Server, what: str) -> None:
    body = BODIES[what]
    status, content, seconds = exchange(served, body.path, body.headers, body.pieces)
    assert int(status) in body.statuses, content[:500]
    assert status == "200" or is_an_error_of_the_contract(content)
    assert len(content) < 10_000
    assert seconds < 15


def test_slow_clients_hold_no_thread_and_nobody_up(served: Server) -> None:
    watch, _ = slow_clients(served, connections=60, timeout_s=2)
    assert watch.broken == []


def test_every_reply_is_as_the_openapi_document_says(served: Server) -> None:
    status, printed = schemathesis(served, per_operation=1)
    assert status == 0, printed


def test_a_broken_promise_is_reported(served: Server, capsys: pytest.CaptureFixture[str]) -> None:
    watch = send(served, islice(mutations(3), 3))
    watch.allowed = frozenset({200})
    with served.client() as client:
        watch.ask("an unknown path", "/nowhere", lambda: client.get("/nowhere"))
    assert watch.finish("A run", most_mb=1) == 1
    printed = capsys.readouterr().out
    assert "/nowhere, an unknown path: 404" in printed
    assert "at most 1 are promised" in printed


@pytest.mark.parametrize("run", ["files", "api", "slow", "large", "console"])
def test_every_run_says_what_it_does(run: str) -> None:
    done = subprocess.run([sys.executable, "-m", f"soak.{run}", "--help"], capture_output=True, text=True, check=True)
    assert f"python -m soak.{run}" in done.stdout
