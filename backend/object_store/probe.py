"""Requirements for a store, checked at the start: a store that ignores conditions would silently lose changes."""

import uuid

from backend.common.errors import ConfigError
from backend.object_store.bucket import PROBES, Bucket, SwapRefused


def probe(bucket: Bucket) -> None:
    """Write, swap, refuse, list and delete a test object.

    Raises:
        ConfigError: the store ignores a condition, or returns wrong data.
        StoreUnavailable: it does not answer, or refuses.
    """
    key = f"{PROBES}{uuid.uuid4().hex}"
    if bucket.get(key) is not None:
        raise _unfit("it gives an object that was never written")
    first = _written(bucket, key, b"1", None)
    try:
        _expect_refusal(bucket, key, None, "If-None-Match: * on a write")
        second = _written(bucket, key, b"2", first)
        if second == first:
            raise _unfit("it gives two states of an object one ETag")
        _expect_refusal(bucket, key, first, "If-Match on a write")
        there = bucket.get(key)
        if there is None or (there.content, there.etag) != (b"2", second):
            raise _unfit("it does not give what was just written")
        if bucket.get_unless(key, second) != second:
            raise _unfit("it ignores If-None-Match on a read")
        if not any(item.key == key for item in bucket.list(PROBES.rstrip("/"))):
            raise _unfit("it does not list what was just written")
    finally:
        bucket.delete([key])


def _written(bucket: Bucket, key: str, content: bytes, etag: str | None) -> str:
    try:
        return bucket.swap(key, content, etag)
    except SwapRefused:
        raise _unfit("it refuses a write though its condition holds") from None


def _expect_refusal(bucket: Bucket, key: str, etag: str | None, condition: str) -> None:
    try:
        bucket.swap(key, b"3", etag)
    except SwapRefused:
        return
    raise _unfit(f"it ignores {condition}, so that changes of two replicas would overwrite one another")


def _unfit(why: str) -> ConfigError:
    return ConfigError(f"this object store cannot keep models: {why}; AWS S3 and others with conditional writes can")
