"""Replacing a manifest unless somebody else did, and finding out whether an unanswered write happened."""

from typing import NamedTuple

from backend.common.errors import StorageError, StoreUnavailable
from backend.object_store.bucket import Bucket, SwapRefused
from backend.object_store.manifest import Manifest, parse_manifest
from backend.object_store.waiting import wait_with_jitter

_TRIES = 4
_FIRST_WAIT_S = 0.2


class OutcomeUnknown(StoreUnavailable):
    """It is unknown whether a change happened."""


class Swapped(NamedTuple):
    """A manifest was replaced.

    Attributes:
        etag: of the new one; None if it was replaced since.
    """

    etag: str | None


def swap(bucket: Bucket, manifest: Manifest, etag: str | None) -> Swapped | None:
    """Replace a manifest, if its predecessor is still there.

    A write without an answer may have happened. Then its nonce is found: in the current manifest, or among the previous
    ones.

    Args:
        bucket: the place of the manifest.
        manifest: the new one.
        etag: of its predecessor; None if there was none.

    Returns:
        None if another manifest is there: nothing was changed.

    Raises:
        OutcomeUnknown: it is unknown whether the change happened.
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
