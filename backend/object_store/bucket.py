"""Objects of a bucket: read, written, swapped, listed and deleted, with errors in the words of the contract.

Operations that may happen twice are retried here. A swap is not: only `swap` can find out whether it happened.
"""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from backend.common.errors import StoreUnavailable
from backend.object_store.address import Address
from backend.object_store.waiting import wait_with_jitter

PROBES = "probes/"
"""Objects of a moment, to see what the store does and what time it is there."""
_CONNECT_S = 3.0
_SMALL_S = 5.0  # manifests: an inference waits for one
_LARGE_S = 120.0
_TRIES = 3
_FIRST_WAIT_S = 0.1
_STATUS = re.compile(r"status code: (\d{3})")
_PER_DELETION = 1000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Object:
    """The contents of an object, and the ETag of this state."""

    content: bytes
    etag: str


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size: int
    etag: str | None
    written_at: datetime


class SwapRefused(Exception):
    """The object is not the one that should be replaced, or exists although it should not."""


class Bucket:
    """The objects below one prefix of a bucket. Safe to call from many threads.

    Args:
        address: of the bucket.
    """

    def __init__(self, address: Address) -> None:
        self._small = _opened(address, _SMALL_S)
        self._large = _opened(address, _LARGE_S)
        self._silent_since: float | None = None

    @property
    def silent_s(self) -> float | None:
        """The seconds since the store stopped answering; None if it answered the last time."""
        since = self._silent_since  # once: another thread may hear from the store meanwhile
        return None if since is None else time.monotonic() - since

    def get(self, key: str) -> Object | None:
        """An object of the size of a manifest; None if there is none.

        Raises:
            StoreUnavailable: the store does not answer, or refuses.
        """
        found: Object | None = self._patiently("GET", key, lambda: _got(self._small, key, {}))
        return found

    def get_unless(self, key: str, etag: str) -> Object | str | None:
        """As `get`; returns the ETag itself if the object still has it.

        Raises:
            StoreUnavailable: as `get`.
        """
        options = {"if_none_match": etag}
        found: Object | str | None = self._patiently(
            "GET", key, lambda: _got(self._small, key, options), unchanged=etag
        )
        return found

    def get_large(self, key: str) -> bytes | None:
        """The bytes of an object of any size; None if there is none.

        Raises:
            StoreUnavailable: as `get`.
        """
        found = self._patiently("GET", key, lambda: _got(self._large, key, {}))
        return found.content if isinstance(found, Object) else None

    def put(self, key: str, content: bytes) -> None:
        """Write an object that nobody else writes.

        Raises:
            StoreUnavailable: as `get`.
        """
        self._patiently(
            "PUT", key, lambda: obstore.put(self._large, key, content, use_multipart=len(content) > 64 << 20)
        )

    def copy(self, key: str, target: str) -> bool:
        """Copy an object within the store to a key that nobody else writes; False if there is none.

        Raises:
            StoreUnavailable: as `get`.
        """

        def copied() -> bool:
            try:
                obstore.copy(self._large, key, target)
            except FileNotFoundError:
                return False
            return True

        return bool(self._patiently("PUT", target, copied))

    def swap(self, key: str, content: bytes, etag: str | None) -> str:
        """Replace an object if it still has this ETag (None: if it does not exist), without a retry.

        Returns:
            The new ETag.

        Raises:
            SwapRefused: the object is another one.
            StoreUnavailable: the store does not answer, or refuses. The change may still have happened.
        """
        mode: Any = "create" if etag is None else {"e_tag": etag}
        try:
            return _etag(obstore.put(self._small, key, content, mode=mode, use_multipart=False)["e_tag"])
        except BaseError as exc:
            status = _status(exc)
            # 409: AWS was writing the object for somebody else at that very moment.
            if status in (404, 409, 412) or type(exc).__name__ in ("AlreadyExistsError", "PreconditionError"):
                raise SwapRefused from exc
            raise self._unavailable("PUT", key, exc) from None
        except FileNotFoundError as exc:  # what should be replaced is not there, or the bucket is not
            raise SwapRefused from exc

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects below a prefix.

        Raises:
            StoreUnavailable: as `get`.
        """

        def listed() -> list[Any]:
            return [item for chunk in obstore.list(self._small, prefix, chunk_size=1000) for item in chunk]

        yield from map(_listed, self._patiently("LIST", prefix, listed))

    def is_listed(self, key: str) -> bool:
        """Whether a listing has an object; the listing begins there, so its cost does not depend on other objects.

        Raises:
            StoreUnavailable: as `get`.
        """

        def asked() -> bool:
            listed = obstore.list(self._small, key.rpartition("/")[0], offset=key[:-1], chunk_size=1000)
            return any(item["path"] == key for item in next(iter(listed), ()))

        return bool(self._patiently("LIST", key, asked))

    def head(self, key: str) -> Listed | None:
        """The entry of an object in a listing; None if there is none.

        Raises:
            StoreUnavailable: as `get`.
        """

        def asked() -> Listed | None:
            try:
                return _listed(obstore.head(self._small, key))
            except FileNotFoundError:
                return None

        found: Listed | None = self._patiently("HEAD", key, asked)
        return found

    def now(self) -> datetime:
        """The time by the clock of the store, independent of the clock of this machine.

        Raises:
            StoreUnavailable: as `get`.
        """
        key = f"{PROBES}clock-{uuid.uuid4().hex}"
        self.put(key, b"")
        written = self.head(key)
        self.delete([key])
        if written is None:
            raise StoreUnavailable("the object store does not have what was just written; retry")
        return written.written_at

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones do not matter.

        Raises:
            StoreUnavailable: as `get`.
        """
        for start in range(0, len(keys), _PER_DELETION):
            some = list(keys[start : start + _PER_DELETION])
            self._patiently("DELETE", some[0], partial(_deleted, self._small, some))

    def _patiently(self, what: str, key: str, action: Callable[[], _Result], unchanged: str | None = None) -> Any:
        """Try an operation that may happen twice, a few times."""
        wait_s = _FIRST_WAIT_S
        for left in reversed(range(_TRIES)):
            try:
                done = action()
            except BaseError as exc:
                if unchanged is not None and _status(exc) == 304:
                    self._silent_since = None
                    return unchanged
                is_final = _status(exc) in (400, 401, 403)
                if is_final or not left:
                    raise self._unavailable(what, key, exc) from None
            else:
                self._silent_since = None
                return done
            wait_with_jitter(wait_s)
            wait_s *= 2
        raise AssertionError("the last try returns or raises")

    def _unavailable(self, what: str, key: str, exc: Exception) -> StoreUnavailable:
        self._silent_since = self._silent_since or time.monotonic()
        return _unavailable(what, key, exc)


def _opened(address: Address, timeout_s: float) -> S3Store:
    config: dict[str, Any] = {**address.credentials, "region": address.region}
    if address.credentials and "token" not in address.credentials and os.environ.get("AWS_SESSION_TOKEN"):
        # From a provider: else the client adds the token of the environment to the keys of a profile.
        given: Any = {**address.credentials, "token": None, "expires_at": None}
        config = {"region": address.region, "credential_provider": lambda: given}
    if address.endpoint is not None:
        config["endpoint"] = address.endpoint
    return S3Store(
        address.bucket,
        prefix=address.prefix or None,
        **config,
        client_options={
            "allow_http": address.is_plain,
            "timeout": timedelta(seconds=timeout_s),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
        },
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)},
    )


def _got(store: S3Store, key: str, options: Any) -> Object | None:
    try:
        found = obstore.get(store, key, options=options)
        return Object(bytes(found.bytes()), _etag(found.meta["e_tag"]))
    except FileNotFoundError as exc:
        if "NoSuchBucket" in str(exc):
            raise _unavailable("GET", key, exc) from None
        return None


def _listed(item: Any) -> Listed:
    return Listed(item["path"], item["size"], item["e_tag"], item["last_modified"])


def _deleted(store: S3Store, keys: list[str]) -> None:
    try:
        obstore.delete(store, keys)
    except FileNotFoundError:
        return


def _etag(etag: str | None) -> str:
    if etag is None:
        raise StoreUnavailable("the object store gives no ETags, which are needed to replace objects safely")
    return etag


def _status(exc: Exception) -> int | None:
    found = _STATUS.search(str(exc))
    return int(found[1]) if found else None


def _unavailable(what: str, key: str, exc: Exception) -> StoreUnavailable:
    """The error, without the address, which may be confidential, and without the requested bytes."""
    status = _status(exc)
    advice = "nothing was lost: retry"
    if "NoSuchBucket" in str(exc):
        why, advice = "the bucket does not exist", "make it, or name another one"
    elif "RequestTimeTooSkewed" in str(exc):
        why = "the clock of this machine differs from that of the store"
    elif status in (401, 403):
        why = f"it refuses the credentials: HTTP {status}"
        advice = "use other credentials, or give these more rights (docs/scale.md)"
    elif status is not None:
        why = f"HTTP {status}"
    else:
        why = "no answer"
    return StoreUnavailable(f"the object store cannot be used now ({what} {key}: {why}); {advice}")
