"""What a process knows of a unit, and what of it is in its local copy."""

import threading
from dataclasses import dataclass, field

from backend.object_store.manifest import Entry, Manifest


@dataclass
class UnitState:
    """What is known of a unit, and what of it is here.

    Attributes:
        manifest, etag: that the local files are of; None as ETag where there is none, or where it is not known.
        looked_at: when the last look at the store began, on the clock of `time.monotonic`.
        answered_at: when the store answered with the manifest that is here.
        here: files of the manifest that are here.
        lost: paths of those whose bytes the store has lost: they are empty here, so that nobody takes one for a file
            that never was, and judges by another model.
        installing: held while files are fetched and put in place.
        changing: held by the one thread of this process that changes the unit.
        is_changing: whether it is held.
    """

    manifest: Manifest
    etag: str | None = None
    looked_at: float = -float("inf")
    answered_at: float = -float("inf")
    here: dict[str, Entry] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    installing: threading.Lock = field(default_factory=threading.Lock)
    changing: threading.RLock = field(default_factory=threading.RLock)
    is_changing: bool = False

    @property
    def is_of_use(self) -> bool:
        """Whether there is something in the unit, or about to be."""
        return self.manifest.generation > 0 or self.installing.locked() or self.is_changing
