"""API keys: where they come from, how they are compared, and what each may do. Requests are checked in `access`."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from backend.common.config import Settings
from backend.common.errors import ConfigError

Right = Literal["infer", "full"]
"""What a key may do: read and infer, or everything."""

OPEN = "anybody who reaches this address may fit, delete and infer: set API_KEYS, or HOST=127.0.0.1"

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{16,512}")
_LINE = re.compile(r"(?:(infer)\s+)?(\S+)")
_WHAT_A_KEY_IS = "a key is 16 to 512 characters of printable ASCII without spaces and commas"


@dataclass(frozen=True)
class ApiKey:
    """A configured key; only its hash is kept.

    Attributes:
        digest: sha256 of the key.
        right: what it may do.
    """

    digest: bytes = field(repr=False)
    right: Right


class ApiKeys:
    """The keys of a service; without keys, everybody may do everything."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    @classmethod
    def of(cls, settings: Settings) -> "ApiKeys":
        """The keys of ``API_KEYS``, ``INFER_KEYS`` and ``API_KEYS_FILE``.

        Raises:
            ConfigError: one cannot be used, or a source holds none; the message names the source and never a key.
        """
        keys: dict[bytes, ApiKey] = {}
        for source, right, secret in _configured(settings):
            if not _KEY.fullmatch(secret):
                raise ConfigError(f"{source}: {_WHAT_A_KEY_IS}")
            key = ApiKey(_digest(secret.encode()), right)
            if keys.setdefault(key.digest, key).right != right:
                raise ConfigError(f"{source}: this key is listed both as a full key and as an infer key; list it once")
        return cls(keys.values())

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, given: bytes) -> ApiKey | None:
        """The key that equals `given`, if any. The time does not depend on the key or on matching characters."""
        digest = _digest(given)
        found = None
        for key in self._keys:
            if hmac.compare_digest(digest, key.digest):
                found = key
        return found


@lru_cache(maxsize=64)
def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: an address, a name, or the path of a Unix socket.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "/run/roi.sock")]
    [True, True, True, True]
    >>> [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.7", "inspection-pc")]
    [False, False, False, False]
    """
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name, which may be anything
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _configured(settings: Settings) -> Iterator[tuple[str, Right, str]]:
    yield from _listed("API_KEYS", "full", settings.api_keys)
    yield from _listed("INFER_KEYS", "infer", settings.infer_keys)
    if settings.api_keys_file is not None:
        yield from _filed(settings.api_keys_file)


def _listed(source: str, right: Right, secrets: SecretStr | None) -> Iterator[tuple[str, Right, str]]:
    if secrets is None:
        return
    keys = [key.strip() for key in secrets.get_secret_value().split(",")]
    if not any(keys):
        raise ConfigError(f"{source} holds no key")
    for key in filter(None, keys):
        yield source, right, key


def _filed(file: Path) -> Iterator[tuple[str, Right, str]]:
    """A key per line, ``infer KEY`` or ``KEY``; lines that begin with ``#`` are comments."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as exc:
        raise ConfigError(f"API_KEYS_FILE={str(file)!r} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise ConfigError(f"API_KEYS_FILE={str(file)!r} is not UTF-8 text") from None  # it would quote the bytes
    n_keys = 0
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"API_KEYS_FILE, line {number}: write KEY, or infer KEY")
        n_keys += 1
        yield f"API_KEYS_FILE, line {number}", "infer" if match[1] else "full", match[2]
    if not n_keys:
        raise ConfigError(f"API_KEYS_FILE={str(file)!r} holds no key")
