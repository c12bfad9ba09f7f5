"""What a process knows about a unit, and which files are in its local copy."""

import threading
from dataclasses import dataclass, field

from backend.object_store.manifest import Entry, Manifest


@dataclass
class UnitState:
    """What is known about a unit, and which files are here.

    Attributes:
        manifest, etag: of the local files; the ETag is None if there is none, or if it is unknown.
        looked_at: time when the last look at the store began, on the clock of `time.monotonic`.
        answered_at: time when the store returned this manifest.
        here: files of the manifest that are here.
        lost: paths of files whose bytes the store has lost: they are empty here, so that they do not count as files
            that never existed, which would select another model.
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
        """Whether the unit has files, or will have soon."""
        return self.manifest.generation > 0 or self.installing.locked() or self.is_changing
