"""Fetching the bytes of files from the store to this machine, several at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from backend.common.errors import StoreUnavailable
from backend.object_store.bucket import Bucket
from backend.object_store.local_copy import LocalCopy
from backend.object_store.lost import how_lost
from backend.object_store.manifest import Entry

_THREADS = 8


class Fetched(NamedTuple):
    """The result for the needed files.

    Attributes:
        come: by path, a file with the bytes, which may be moved, and its entry; an empty file for lost ones.
        lost: the errors of files whose bytes the store has lost, by path.
    """

    come: dict[str, tuple[Path, Entry]]
    lost: dict[str, str]


class Fetcher:
    """Fetches files into a local copy. Safe to call from many threads.

    Args:
        bucket: where they come from.
        copy: where they go to.
    """

    def __init__(self, bucket: Bucket, copy: LocalCopy) -> None:
        self._bucket = bucket
        self._copy = copy
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="object-store-fetch")

    def close(self) -> None:
        """Stop fetching."""
        self._threads.shutdown()

    def fetch(self, needed: Mapping[str, Entry]) -> Fetched:
        """Fetch files.

        Args:
            needed: by path.

        Raises:
            StoreUnavailable: the store does not answer, refuses, or contradicts itself; no file remains here.
        """
        fetching = {path: self._threads.submit(self._fetch, entry) for path, entry in needed.items()}
        try:
            found = {path: fetch.result() for path, fetch in fetching.items()}
        except BaseException:  # else what did come would lie here for good, and come again with the next look
            for fetch in fetching.values():
                if not fetch.cancel() and fetch.exception() is None:
                    fetch.result()[0].unlink(missing_ok=True)
            raise
        come = {path: (source, needed[path]) for path, (source, _) in found.items()}
        return Fetched(come, {path: wrong for path, (_, wrong) in found.items() if wrong is not None})

    def _fetch(self, entry: Entry) -> tuple[Path, str | None]:
        """A file with the bytes, or an empty file and the error."""
        content, wrong = self._bytes(entry), None
        if content is None or not entry.is_content(content):
            content, wrong = b"", how_lost(content, entry)
        source = self._copy.incoming()
        source.write_bytes(content)
        return source, wrong

    def _bytes(self, entry: Entry) -> bytes | None:
        """The bytes in the store; None if it neither returns nor lists the object, so that it is lost."""
        key = entry.blob_key
        if key is None:
            return (entry.text or "").encode()
        content = self._bucket.get_large(key)
        if content is None and self._bucket.is_listed(key):
            raise StoreUnavailable(
                f"the object store lists {key}, but says that it does not exist; nothing was lost: retry"
            )
        return content
