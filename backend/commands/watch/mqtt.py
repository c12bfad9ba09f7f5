"""MQTT: each verdict is published as JSON to a topic, with QoS 1, not retained."""

import contextlib
import ssl
import threading
import uuid
from typing import Any
from urllib.parse import unquote, urlsplit

from backend.commands.watch.delivery import Undelivered
from backend.commands.watch.journal import Message
from backend.common.errors import InvalidRequest

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_EXAMPLE = "mqtt://broker:1883/line-1/verdicts"
_PATIENCE_S = 10.0
_KEEP_ALIVE_S = 30
_AT_LEAST_ONCE = 1


class Mqtt:
    """Publishes messages.

    Args:
        url: broker and topic.
        username, password: of the broker; None if it asks for none.

    Raises:
        InvalidRequest: the address cannot be used, or paho-mqtt is not installed.
    """

    name = "mqtt"

    def __init__(self, url: str, username: str | None, password: str | None) -> None:
        self._scheme, self._host, self._port, self._topic = _parts_of(url)
        try:
            from paho.mqtt import client, enums
        except ImportError as exc:
            raise InvalidRequest("--mqtt needs paho-mqtt: pip install -r backend/requirements-mqtt.txt") from exc
        self._paho, self._version = client, enums.CallbackAPIVersion.VERSION2
        self._username, self._password = username, password
        self._connected = threading.Event()
        self._refusal: str | None = None
        self._client: Any = None

    def send(self, message: Message) -> None:
        """As of `Channel`: it has arrived when the broker acknowledges it."""
        try:
            if self._client is None:
                self._client = self._connect()
            if not self._connected.wait(_PATIENCE_S):
                raise Undelivered(self._refusal or f"{self._host}:{self._port} does not answer")
            published = self._client.publish(self._topic, message.body.encode(), qos=_AT_LEAST_ONCE)
            published.wait_for_publish(_PATIENCE_S)
            if not published.is_published():
                raise Undelivered(f"{self._host}:{self._port} does not acknowledge")
        except (OSError, ValueError, RuntimeError) as exc:
            self.close()
            raise Undelivered(f"{self._host}:{self._port} cannot be reached ({exc})") from exc
        except Undelivered:
            self.close()  # with what it would send again by itself, beside this
            raise

    def close(self) -> None:
        """As of `Channel`."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None
        self._connected.clear()

    def _connect(self) -> Any:
        self._refusal = None
        client = self._paho.Client(self._version, client_id=f"roi-anomaly-{uuid.uuid4().hex[:10]}")
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        if self._scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self._connected.clear()
        client.connect(self._host, self._port, _KEEP_ALIVE_S)
        client.loop_start()
        return client

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"{self._host}:{self._port} refuses the connection: {reason}"
        else:
            self._connected.set()


def _parts_of(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and topic.

    Raises:
        InvalidRequest: it is not such an address.
    """
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise InvalidRequest(f"--mqtt: this is not an address ({exc}): give one such as {_EXAMPLE}") from exc
    topic = unquote(parts.path).removeprefix("/")
    port = None
    with contextlib.suppress(ValueError):
        port = parts.port or _PORTS.get(parts.scheme)
    if parts.scheme not in _PORTS or not parts.hostname or port is None or not topic or parts.query or parts.fragment:
        raise InvalidRequest(f"--mqtt: give an address such as {_EXAMPLE}, or mqtts:// for TLS")
    if "@" in parts.netloc:
        raise InvalidRequest("--mqtt: leave out name and password; other users could see them in the list of processes")
    if any(sign in topic for sign in "#+\0"):
        raise InvalidRequest(f"--mqtt: the topic {topic!r} contains # or +, which only subscribers may use")
    return parts.scheme, parts.hostname, port, topic
