"""Verdicts that are posted: in order, again until they arrive, and none lost over a restart."""

import time

import pytest

from backend.commands.watch import delivery
from backend.commands.watch.journal import Journal
from backend.commands.watch.webhook import Webhook
from backend.common.errors import InvalidRequest
from harness.server import free_port
from tests.commands.watch.lines import Line, picture
from tests.commands.watch.receiver import Receiver


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_WAIT_S", 0.05)


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def line_of(tmp_path, url, token=None, n_parts=3):
    line = Line(tmp_path, channels=[Webhook(url, token)])
    for number in range(n_parts):
        line.put(f"{number}.png", picture(left=number / 3))
    return line


def test_every_verdict_is_posted_as_it_stands_in_the_results(tmp_path, receiver):
    line = line_of(tmp_path, receiver.address + "/verdicts?line=1")
    line.run()
    assert receiver.bodies == line.results()
    assert [told["verdict"] for told in receiver.bodies] == ["ok", "ok", "ng"]
    path, headers, _ = receiver.got[0]
    assert (path, headers["Content-Type"]) == ("/verdicts?line=1", "application/json")
    assert "Authorization" not in headers


def test_the_token_travels_as_a_header(tmp_path, receiver):
    line_of(tmp_path, receiver.address, "secret", 1).run()
    assert receiver.got[0][1]["Authorization"] == "Bearer secret"


def test_no_log_has_the_address(tmp_path, receiver, caplog):
    caplog.set_level("INFO")
    line_of(tmp_path, receiver.address + "/a-secret-path", n_parts=1).run()
    assert len(receiver.got) == 1
    assert "a-secret-path" not in caplog.text


@pytest.mark.parametrize("status", [500, 503, 404, 401, 302])
def test_what_is_refused_is_sent_again_before_what_comes_after(tmp_path, receiver, status):
    receiver.answers = [(200, {}), (status, {}), (status, {})]
    line = line_of(tmp_path, receiver.address + "/a-secret-path")
    line.run()
    ids = [told["id"] for told in line.results()]
    assert [told["id"] for told in receiver.bodies] == [ids[0], ids[1], ids[1], ids[1], ids[2]]
    assert {headers["Idempotency-Key"] for _, headers, _ in receiver.got} == set(ids)
    assert [text for text in line.said if text.startswith("webhook")] == [
        f"webhook: 127.0.0.1 answered with status {status}. The message is sent again until it arrives.",
        "webhook: messages arrive again.",
    ]


def test_a_delivery_that_fails_ends_the_watch_though_no_part_comes(tmp_path):
    class Broken:
        name = "webhook"

        def send(self, message):
            raise OverflowError("nobody thought of this")

        def close(self):
            pass

    line = line_of(tmp_path, "http://127.0.0.1:1", n_parts=1)
    line.channels = [Broken()]
    with pytest.raises(OverflowError):
        line.run(once=False)
    assert len(line.results()) == 1


def test_an_answer_that_cannot_be_decoded_ends_no_delivery(tmp_path, receiver):
    receiver.answers = [(200, {"Content-Encoding": "gzip"}, b"no gzip")]
    line = line_of(tmp_path, receiver.address)
    line.run()
    ids = [told["id"] for told in line.results()]
    assert [told["id"] for told in receiver.bodies] == [ids[0], *ids]


@pytest.mark.slow
def test_a_receiver_that_asks_to_wait_is_given_the_time(tmp_path, receiver):
    receiver.answers = [(429, {"Retry-After": "1"})]
    line = line_of(tmp_path, receiver.address, n_parts=1)
    began = time.monotonic()
    line.run()
    assert len(receiver.got) == 2
    assert time.monotonic() - began >= 1


def test_what_nobody_received_is_sent_by_the_next_run(tmp_path):
    port = free_port()
    line = line_of(tmp_path, f"http://127.0.0.1:{port}")
    assert line.run(patience_s=0.1) == {"ok": 2, "ng": 1, "not_judged": 0}
    assert "127.0.0.1 does not answer" in line.said[-1]
    with Receiver(port) as receiver:
        line.channels = [Webhook(receiver.address, None)]
        line.put("later.png")
        line.run()
    assert receiver.bodies == line.results()
    assert len(line.results()) == 4


def test_a_receiver_that_does_not_answer_delays_no_verdict(tmp_path):
    line = line_of(tmp_path, f"http://127.0.0.1:{free_port()}", n_parts=3)
    line.run(patience_s=0)
    assert len(line.results()) == 3
    journal = Journal(tmp_path / "state")
    assert journal.n_messages() == {"webhook": 3}
    journal.close()


@pytest.mark.parametrize(
    "url", ["mes.example/verdicts", "ftp://mes.example", "http://", "http:///verdicts", "http://name:word@mes.example"]
)
def test_an_address_that_cannot_be_used_is_refused_without_its_secrets(url):
    with pytest.raises(InvalidRequest, match="--webhook") as exc:
        Webhook(url, None)
    assert "word" not in str(exc.value).replace("password", "")
