"""Replacing a manifest unless somebody else did, and finding out whether a write without an answer was done."""

from typing import NamedTuple

from backend.common.errors import StorageError, StoreUnavailable
from backend.object_store.bucket import Bucket, SwapRefused
from backend.object_store.manifest import Manifest, parse_manifest
from backend.object_store.waiting import wait_with_jitter

_TRIES = 4
_FIRST_WAIT_S = 0.2


class OutcomeUnknown(StoreUnavailable):
    """The store does not say whether a change was done: it may have been."""


class Swapped(NamedTuple):
    """A manifest was replaced.

    Attributes:
        etag: of the new one; None if another one has replaced it since.
    """

    etag: str | None


def swap(bucket: Bucket, manifest: Manifest, etag: str | None) -> Swapped | None:
    """Replace a manifest, if the one that it follows is still there.

    A write that got no answer may have been done, and then it is found by its nonce: in the manifest that is there, or
    among those before it.

    Args:
        bucket: where it is.
        manifest: the new one.
        etag: of the one that it follows; None if there was none.

    Returns:
        None if another one is there: nothing was changed.

    Raises:
        OutcomeUnknown: the store does not say whether it was done.
    """
    content, key = manifest.encode(), manifest.unit.key
    wait_s = _FIRST_WAIT_S
    failure = "the object store contradicts itself"
    for _ in range(_TRIES):
        try:
            return Swapped(bucket.swap(key, content, etag))
        except SwapRefused:
            pass
        except StoreUnavailable as exc:
            failure = str(exc)
        try:
            there = bucket.get(key)
            if there is not None:
                found = parse_manifest(manifest.unit, there.content)
                if found.nonce == manifest.nonce:
                    return Swapped(there.etag)
                if manifest.nonce in found.recent:
                    return Swapped(None)
                if there.etag != etag:
                    return None
            # What is there is what was to be replaced: the write was not done, or not yet. To try it again is safe:
            # only one of the two finds the ETag that both ask for.
        except StorageError as exc:
            failure = str(exc)
        wait_with_jitter(wait_s)
        wait_s *= 2
    raise OutcomeUnknown(
        f"{failure}; it is not known whether the change was stored: check, and send it again if it was not"
    )
