"""Verdicts that are published, before Debian's mosquitto: at least once, in order, and none lost while it is away."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from paho.mqtt import client, enums

from backend.commands.watch import delivery, mqtt
from backend.commands.watch.journal import Journal
from backend.commands.watch.mqtt import Mqtt
from harness.server import free_port
from tests.commands.watch.lines import Line, picture

TOPIC = "hall 7/line-1/verdicts"
ADDRESS = "hall%207/line-1/verdicts"
_PATIENCE_S = 20


def program(name):
    # Debian keeps servers where the PATH of most people does not look.
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install mosquitto openssl, or put it on the PATH")
    return found


class Broker:
    """A mosquitto that can be stopped or killed, and started again."""

    def __init__(self, folder, *settings):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        # Started by root it would become another user, who may not read the files of a test.
        lines = [f"listener {self.port} 127.0.0.1", "user root", *settings]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process = None

    def start(self):
        command = [program("mosquitto"), "-c", str(self._config)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), contextlib.closing(mqtt_socket(self.port)):
                return
            assert self._process.poll() is None, self._process.stderr.read()
            time.sleep(0.02)
        pytest.fail("mosquitto does not listen")

    def stop(self):
        """End it in order: what it acknowledged is on its disk, if it keeps anything there."""
        self._process.terminate()
        self._process.wait(_PATIENCE_S)
        self.kill()

    def freeze(self):
        """Let it take in what is sent to it, and never answer."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()
            self._process = None


def mqtt_socket(port):
    return socket.create_connection(("127.0.0.1", port), timeout=1)


class Listener:
    """Gets what is published; each message with its QoS and whether it was retained."""

    def __init__(self, port, configure=lambda _: None, **session):
        self.got = []
        self._subscribed = threading.Event()
        self._client = client.Client(enums.CallbackAPIVersion.VERSION2, **session)
        configure(self._client)
        self._client.on_connect = lambda *_: self._client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.got.append(message)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(_PATIENCE_S)

    def told(self, number):
        """What was published, once there are so many messages."""
        deadline = time.monotonic() + _PATIENCE_S
        while len(self.got) < number and time.monotonic() < deadline:
            time.sleep(0.02)
        return [json.loads(message.payload) for message in self.got]

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(delivery, "_FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(delivery, "_LONGEST_WAIT_S", 0.5)
    monkeypatch.setattr(mqtt, "_PATIENCE_S", 3.0)


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path, "allow_anonymous true")
    broker.start()
    yield broker
    broker.kill()


def line_of(tmp_path, url, username=None, password=None, n_parts=4):
    line = Line(tmp_path, channels=[Mqtt(url, username, password)])
    for number in range(n_parts):
        line.put(f"{number}.png", picture(left=number / n_parts))
    return line


def test_every_verdict_is_published_once_and_not_retained(tmp_path, broker):
    listener = Listener(broker.port)
    line = line_of(tmp_path, f"mqtt://127.0.0.1:{broker.port}/{ADDRESS}")
    line.run(patience_s=_PATIENCE_S)
    assert listener.told(4) == line.results()
    assert {(message.topic, message.qos, message.retain) for message in listener.got} == {(TOPIC, 1, False)}
    listener.close()
    late = Listener(broker.port)
    time.sleep(0.3)
    assert late.got == []
    late.close()


def test_what_a_broker_that_was_away_did_not_get_the_next_run_sends(tmp_path, broker):
    broker.kill()
    url = f"mqtt://127.0.0.1:{broker.port}/{ADDRESS}"
    line = line_of(tmp_path, url)
    line.run(patience_s=0.3)
    assert len(line.results()) == 4
    assert any("cannot be reached" in text and "sent again until it arrives" in text for text in line.said)
    broker.start()
    listener = Listener(broker.port)
    line.channels = [Mqtt(url, None, None)]
    line.put("later.png")
    line.run(patience_s=_PATIENCE_S)
    assert listener.told(5) == line.results()
    listener.close()


def test_what_a_broker_took_and_did_not_acknowledge_the_next_run_sends(tmp_path, broker, monkeypatch):
    listener = Listener(broker.port)
    url = f"mqtt://127.0.0.1:{broker.port}/{ADDRESS}"
    line = line_of(tmp_path, url)
    really = line.judge.infer

    def infer(*question):
        if len(line.judge.asked) == 4:
            listener.told(2)
            broker.freeze()
        return really(*question)

    line.judge.infer = infer
    with monkeypatch.context() as patch:
        patch.setattr(mqtt, "_PATIENCE_S", 0.5)
        line.run(patience_s=0.1)
    assert any("does not acknowledge" in text for text in line.said), line.said
    broker.kill()
    listener.close()
    journal = Journal(tmp_path / "state")
    waiting = journal.n_messages()["mqtt"]
    journal.close()
    assert waiting >= 2
    broker.start()
    late = Listener(broker.port)
    line.channels = [Mqtt(url, None, None)]
    line.run(patience_s=_PATIENCE_S)
    assert late.told(waiting) == line.results()[-waiting:]
    late.close()


def test_a_broker_that_is_stopped_while_it_is_sent_to_misses_nothing(tmp_path):
    # It keeps what it acknowledged for a listener that it knows, who may well come back later than `watch` does.
    broker = Broker(tmp_path, "allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/")
    broker.start()
    listener = Listener(broker.port, client_id="mes", clean_session=False)
    line = line_of(tmp_path, f"mqtt://127.0.0.1:{broker.port}/{ADDRESS}", n_parts=12)
    really = line.judge.infer

    def infer(*question):
        if len(line.judge.asked) == 8:
            broker.stop()
        if len(line.judge.asked) == 16:
            broker.start()
        return really(*question)

    line.judge.infer = infer
    try:
        line.run(patience_s=_PATIENCE_S)
        ids = [told["id"] for told in line.results()]
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and {told["id"] for told in listener.told(1)} != set(ids):
            time.sleep(0.05)
        got = [told["id"] for told in listener.told(1)]
        assert set(got) == set(ids)
        assert sorted(set(got), key=got.index) == ids  # in order, though some may come twice
        listener.close()
    finally:
        broker.kill()


def test_a_wrong_password_is_said_and_printed_nowhere(tmp_path):
    passwords = tmp_path / "passwords"
    subprocess.run([program("mosquitto_passwd"), "-b", "-c", str(passwords), "line", "right-word"], check=True)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.start()
    try:
        url = f"mqtt://127.0.0.1:{broker.port}/{ADDRESS}"
        line = line_of(tmp_path, url, "line", "wrong-word")
        line.run(patience_s=1.0)
        assert any("refuses the connection: Not authorized" in text for text in line.said), line.said
        assert "wrong-word" not in repr(line.said)
        listener = Listener(broker.port, lambda found: found.username_pw_set("line", "right-word"))
        line.channels = [Mqtt(url, "line", "right-word")]
        line.run(patience_s=_PATIENCE_S)
        assert listener.told(4) == line.results()
        listener.close()
    finally:
        broker.kill()


def test_tls_is_checked_against_the_certificates_of_the_machine(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    broker = Broker(tmp_path, "allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    broker.start()
    try:
        url = f"mqtts://localhost:{broker.port}/{ADDRESS}"
        line = line_of(tmp_path, url)
        line.run(patience_s=0.5)
        assert any("certificate verify failed" in text for text in line.said), line.said
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        listener = Listener(broker.port, lambda found: found.tls_set(str(certificate)))
        line.channels = [Mqtt(url, None, None)]
        line.run(patience_s=_PATIENCE_S)
        assert listener.told(4) == line.results()
        listener.close()
    finally:
        broker.kill()
