"""The service in replicas behind Ray's proxy, as clients see it: what one process answers, and closed by default."""

import ipaddress
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from backend.network.weights import Weights
from harness.contract.blanks import Blanks
from harness.contract.client import Client, collect
from harness.contract.generations import GENERATIONS
from harness.server import Server, serving
from soak.replica_fits import Killed, kill_in_a_fit
from tests.cluster.conftest import SETTINGS, processes_of

pytestmark = pytest.mark.slow
ROI = {"role_id": "Cluster", "roi_id": "Pattern", "mm_per_px": "0.2"}


@pytest.fixture(scope="module")
def crops(images) -> list[bytes]:
    import cv2

    return [cv2.imencode(".png", cv2.resize(image, (150, 120)))[1].tobytes() for image in images]


@pytest.fixture(scope="module")
def fitted(cluster: Server, crops: list[bytes]) -> Iterator[httpx.Client]:
    """A client of the replicas, which have a model of `ROI`."""
    with cluster.client() as client:
        files = [("images", (f"{number}.png", crop, "image/png")) for number, crop in enumerate(crops[:3])]
        client.post("/fit_ok", data=ROI, files=files).raise_for_status()
        yield client


def infer(client: httpx.Client, crop: bytes, **headers: str) -> httpx.Response:
    return client.post("/infer", data=ROI, files={"image": ("a.png", crop, "image/png")}, headers=headers)


def replicas_of(cluster: Server) -> list[psutil.Process]:
    return [process for process in processes_of(cluster) if "ServeReplica" in " ".join(process.cmdline())]


def test_every_port_is_on_loopback(fitted: httpx.Client, cluster: Server) -> None:
    listening = {
        (process.name(), connection.laddr.ip)
        for process in processes_of(cluster)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or (connection.type == 2 and connection.laddr)
    }
    assert len(listening) > 5
    open_to_others = [
        (name, address)
        for name, address in listening
        if not ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback
    ]
    assert open_to_others == []


def test_clients_get_the_replies_of_one_process(cluster: Server, weights: Weights, tmp_path: Path) -> None:
    settings = {**SETTINGS, "WEIGHTS": str(weights.path)}
    with serving(folder=tmp_path, as_set=False, **settings) as alone:
        texts = {}
        for server in (alone, cluster):
            blanks = Blanks({str(server.port): "<port>", str(server.models): "<models>"})
            collected = collect(Client("127.0.0.1", server.port), GENERATIONS, blanks)
            assert collected.broken == []
            texts[server] = collected.texts
    assert len(texts[alone]) > 30
    differ = [name for name, text in texts[alone].items() if texts[cluster][name] != text]
    assert {name: (texts[alone][name], texts[cluster][name]) for name in differ} == {}


def test_request_has_one_id_and_metrics_add_up_all_replicas(fitted: httpx.Client, crops: list[bytes]) -> None:
    def counted() -> float:
        lines = fitted.get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith('requests_total{endpoint="/infer"') and '"200"' in line]
        return float(line.split()[-1])

    infer(fitted, crops[4])
    before = counted()
    replies = [infer(fitted, crops[4], **{"X-Request-Id": f"part-{number}"}) for number in range(6)]
    assert [reply.status_code for reply in replies] == [200] * 6
    assert [reply.headers.get_list("X-Request-Id") for reply in replies] == [[f"part-{n}"] for n in range(6)]
    assert len({reply.json()["score"] for reply in replies}) == 1
    assert [counted() for _ in range(4)] == [before + 6] * 4


def test_full_queues_answer_busy_through_the_proxy(fitted: httpx.Client, cluster: Server, crops: list[bytes]) -> None:
    def ask(_number: int) -> httpx.Response:
        with cluster.client() as client:
            return infer(client, crops[4])

    with ThreadPoolExecutor(24) as pool:
        replies = list(pool.map(ask, range(48)))
    refused = [reply for reply in replies if reply.status_code != 200]
    assert 0 < len(refused) < len(replies)
    assert {(reply.status_code, reply.json()["code"]) for reply in refused} == {(503, "busy")}
    assert all(int(reply.headers["Retry-After"]) > 0 for reply in refused)


def test_killed_replica_costs_what_it_was_at_work_on(fitted: httpx.Client, cluster: Server, crops: list[bytes]) -> None:
    killed = False

    def ask(number: int) -> httpx.Response:
        nonlocal killed
        if number == 20:
            killed = True
            os.kill(replicas_of(cluster)[0].pid, signal.SIGKILL)
        with cluster.client() as client:
            return infer(client, crops[4])

    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(ask, range(60)))
    assert killed
    lost = [reply for reply in replies if reply.status_code != 200]
    assert len(lost) <= 2
    assert {(reply.status_code, reply.json()["code"]) for reply in lost} <= {(503, "not_ready")}


def test_replica_killed_in_the_middle_of_a_fit_leaves_the_old_model(cluster: Server) -> None:
    killed = Killed()
    kill_in_a_fit(cluster, {"role_id": "Killed", "roi_id": "Fit", "mm_per_px": "0.2"}, killed)
    assert killed.broken == []
    assert len(killed.errors_s) == 1
