"""Workers: how many a cluster has room for, and waiting for those that are lost."""

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from backend.cluster import workers as cluster_workers
from backend.cluster.ray_library import ADDRESS, TOKEN, import_ray
from backend.cluster.workers import Workers, connected, count_of_workers
from backend.common.errors import BackendError, ConfigError, RunCancelled
from backend.common.machine import STOP_SIGNAL
from harness.server import free_port


class Cluster:
    """Stands for Ray: machines with so many cores and bytes, and calls that end after some looks.

    Args:
        machines: (cores, bytes) of each.
        n_looks: after how many looks calls have ended.
        taken: cores that others have.
    """

    def __init__(self, *machines: tuple[float, float], n_looks: float = 0, taken: int = 0) -> None:
        self._machines, self._n_looks, self._taken = machines, n_looks, taken

    def cluster_resources(self) -> dict[str, float]:
        cores, memory = map(sum, zip(*self._machines, strict=True))
        return {"CPU": cores, "memory": memory}

    def available_resources(self) -> dict[str, float]:
        return {"CPU": self.cluster_resources()["CPU"] - self._taken}

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 64.0, "memory": 1e12}}
        return [{"Alive": True, "Resources": {"CPU": cpu, "memory": memory}} for cpu, memory in self._machines] + [lost]

    def remote(self, kind: Any) -> Any:
        numbers = iter(range(100))
        make = SimpleNamespace(remote=lambda: kind(next(numbers)))
        return SimpleNamespace(options=lambda **_: make)

    def wait(self, references: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout > 0
        self._n_looks -= 1
        n_ended = num_returns if self._n_looks < 0 else 0
        return references[:n_ended], references[n_ended:]

    def get(self, reference: Any) -> Any:
        return reference


class Actor:
    def __init__(self, number: int) -> None:
        self._actor_id = SimpleNamespace(hex=lambda: f"id {number}")
        self.work = SimpleNamespace(remote=lambda *call: ("done", number, *call))


def test_as_many_workers_as_fit_on_the_machines() -> None:
    cluster = Cluster((3, 1e9), (3, 1e9))
    assert count_of_workers(cluster, None, 2) == 2, "a worker is on one machine, so two cores stay free"
    with pytest.raises(ConfigError, match=r"3 workers need 2 cores each, on one machine, .* have room for 2"):
        count_of_workers(cluster, 3, 2)
    assert count_of_workers(Cluster((4, 1e9), (4, 1e9), taken=5), None, 1) == 3, "others have the rest"
    with pytest.raises(ConfigError, match="need 4 cores together"):
        count_of_workers(Cluster((2, 1e9)), None, 4)


@pytest.mark.parametrize(
    ("machines", "count", "gigabytes"),
    [
        ([(4, 8)], None, 8),
        ([(4, 8)], 2, 8),
        ([(4, 8), (4, 8)], None, 16),
        ([(4, 8), (4, 8)], 2, 8),  # both may be on one machine
        ([(4, 4), (1, 96)], None, 5),  # each of four has a gigabyte
        ([(0, 64), (2, 8)], None, 8),  # no worker is on the head
    ],
)
def test_memory_of_workers_is_that_of_the_machines_they_are_on(machines: Any, count: Any, gigabytes: float) -> None:
    workers = Workers(Cluster(*machines), Actor, count, 1)
    assert workers.memory() == gigabytes


def test_waiting_for_a_worker_ends_with_a_cancelled_run() -> None:
    def cancelled() -> None:
        raise RunCancelled("the run was cancelled")

    workers = Workers(Cluster((1, 1e9), n_looks=float("inf")), Actor, 1, 1)
    workers.meanwhile = cancelled
    for waiting in (lambda: workers.together("work", {0: ()}), lambda: list(workers.each("work", lambda _: (1,)))):
        with pytest.raises(RunCancelled):
            waiting()


def exceptions_and(states: dict[str, Any]) -> Any:
    class Never(Exception):
        pass

    return SimpleNamespace(
        actors=lambda: states, RayTaskError=Never, RayActorError=Never, ActorUnavailableError=Never, RayError=Never
    )


def test_who_waits_for_lost_workers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    states = {"id 0": {"State": "ALIVE"}, "id 1": {"State": "RESTARTING"}}
    monkeypatch.setattr(cluster_workers, "import_ray", lambda _: exceptions_and(states))
    monkeypatch.setattr(cluster_workers, "_SAY_EVERY_S", 0)
    workers = Workers(Cluster((2, 1e9), n_looks=1), Actor, 2, 1)
    with capture_logs() as logs:
        calls = iter([(7,)])
        assert list(workers.each("work", lambda _: next(calls, None))) == [(7, ("done", 0, 7))]
    assert [(line["event"], line["n_missing"], line["n_workers"]) for line in logs] == [("workers.missing", 1, 2)]


def test_who_waits_is_told_every_minute_whatever_ends_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr(cluster_workers, "import_ray", lambda _: exceptions_and({"id 0": {"State": "DEAD"}}))
    monkeypatch.setattr(cluster_workers, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    cluster = Cluster((1, 1e9))
    workers = Workers(cluster, Actor, 1, 1)
    told = []
    for _ in range(5):  # calls that take 30 s each
        cluster._n_looks = 30
        with capture_logs() as logs:
            workers.together("work", {0: ()})
        told.append(len(logs))
    assert told == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("ended", [False, True])
def test_call_is_made_again_until_ray_has_noticed_that_a_machine_is_lost(
    monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    errors = import_ray("ray.exceptions")
    answers = iter([*[errors.ActorUnavailableError("no connection", None)] * 5, "done"])
    n_restarts = iter(range(6) if ended else [0, 0, 0, 0, 1])

    def answer(_: Any) -> Any:
        if isinstance(found := next(answers), Exception):
            raise found
        return found

    modules = {
        "ray.exceptions": errors,
        "ray._private.state": SimpleNamespace(actors=lambda: {"id 0": {"NumRestarts": next(n_restarts)}}),
    }
    monkeypatch.setattr(cluster_workers, "import_ray", modules.__getitem__)
    monkeypatch.setattr(cluster_workers, "_LOOK_EVERY_S", 1e-6)
    monkeypatch.setattr(Cluster, "get", staticmethod(answer))
    workers = Workers(Cluster((1, 1e9)), Actor, 1, 1)
    if ended:
        with pytest.raises(BackendError, match=r"ended more than 3 times during the same call: .*no connection"):
            workers.together("work", {0: ()})
    else:
        calls = iter([(7,)])
        assert list(workers.each("work", lambda _: next(calls, None))) == [(7, "done")]


def test_workers_that_are_lost_when_told_are_counted() -> None:
    workers = Workers(Cluster((2, 1e9)), Actor, 2, 1)
    assert workers.tell("work", 1) == 0
    workers = Workers(Cluster((2, 1e9), n_looks=1), Actor, 2, 1)
    assert workers.tell("work", 1) == 2


def test_signals_stay_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}

    def take(**options: Any) -> None:
        taken.update(options)
        signal.signal(STOP_SIGNAL, signal.SIG_IGN)

    before = signal.getsignal(STOP_SIGNAL)
    monkeypatch.setenv(TOKEN, "0" * 64)
    ray = SimpleNamespace(init=take, shutdown=lambda: None)
    monkeypatch.setattr(cluster_workers, "import_ray", lambda: ray)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv(ADDRESS, f"127.0.0.1:{listener.getsockname()[1]}")
        with connected():
            assert signal.getsignal(STOP_SIGNAL) == before
    assert taken["address"] == os.environ[ADDRESS]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:70000"])
def test_address_where_nothing_listens_is_an_error_before_ray_tries(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = address.format(port=free_port())
    monkeypatch.setenv(ADDRESS, address)
    monkeypatch.setenv(TOKEN, "0" * 64)
    monkeypatch.setattr(cluster_workers, "_LISTENS_WITHIN_S", 0.01)
    monkeypatch.setattr(cluster_workers, "_LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(cluster_workers, "init", lambda *_, **__: pytest.fail("Ray tried"))
    with pytest.raises(ConfigError, match=rf"the cluster of RAY_ADDRESS={address} cannot be reached: "), connected():
        pytest.fail("it was reached")


def test_cluster_that_is_being_started_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setattr(cluster_workers, "_LOOK_EVERY_S", 0.05)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cluster_workers._wait_for_listener, f"127.0.0.1:{port}")
        time.sleep(0.2)
        assert not waiting.done()
        with socket.create_server(("127.0.0.1", port)):
            waiting.result(timeout=20)
