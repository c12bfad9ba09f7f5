"""Manifests: the files of a unit, by their content. Each manifest is one object, which is replaced as a whole.

A text file of up to some thousand bytes is in the manifest itself. The bytes of other files are in blobs, whose names
have their sha256 and their writer. So an unreferenced blob can be deleted safely: nobody is about to reference it
again.
"""

import gzip
import hashlib
import io
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backend.common.errors import StorageError
from backend.object_store.units import Unit, is_stored, unit_of
from backend.utils import utc_now

BLOBS = "blobs/"
FORMAT = 1
_MAX_TEXT_BYTES = 4096
_MAX_COUNTED_BYTES = 256 << 10  # of statistics, which change every two seconds: one object and not two
_COMPRESS_FROM_BYTES = 32 << 10
_MAX_BYTES = 256 << 20
_RECENT = 128
_GZIP = b"\x1f\x8b"


class Entry(BaseModel):
    """A file of a unit.

    Attributes:
        sha256, size: of its bytes.
        mtime_ns: when it was written, in nanoseconds since 1970.
        blob: distinguishes its blob from others with the same bytes; None if the bytes are in `text`.
        text: its bytes, as UTF-8.
        memory_id: identity of its memory bank, if it has one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    mtime_ns: int = Field(ge=0)
    blob: str | None = Field(None, pattern="^[0-9a-f]{16}$")
    text: str | None = None
    memory_id: str | None = None

    @property
    def blob_key(self) -> str | None:
        """The key of the object with its bytes."""
        return None if self.blob is None else f"{BLOBS}{self.sha256[:2]}/{self.sha256}-{self.blob}"

    def is_content(self, content: bytes) -> bool:
        """Whether these are its bytes."""
        return len(content) == self.size and hashlib.sha256(content).hexdigest() == self.sha256


class _Written(BaseModel):
    model_config = ConfigDict(extra="ignore")

    format: Literal[1]
    unit: str
    generation: int = Field(ge=1)
    nonce: str
    recent: list[str]
    files: dict[str, Entry]


@dataclass(frozen=True)
class Manifest:
    """The files of a unit.

    Attributes:
        unit: the unit.
        generation: number of writes; 0 if it was never written.
        nonce: of its writer, so that no two manifests have the same bytes or the same ETag.
        recent: nonces of the previous manifests, the newest first: a writer that got no answer finds its own.
        files: by path below the models folder, with slashes.
    """

    unit: Unit
    generation: int = 0
    nonce: str = ""
    recent: tuple[str, ...] = ()
    files: Mapping[str, Entry] = field(default_factory=dict)

    def successor(self, files: Mapping[str, Entry]) -> "Manifest":
        """The next manifest, with other files."""
        recent = (self.nonce, *self.recent)[:_RECENT] if self.nonce else ()
        return replace(
            self, generation=self.generation + 1, nonce=uuid.uuid4().hex[:12], recent=recent, files=dict(files)
        )

    def encode(self) -> bytes:
        """The bytes of its object."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "unit": str(self.unit),
            "generation": self.generation,
            "nonce": self.nonce,
            "written_at_utc": utc_now().isoformat(),
            "files": {path: entry.model_dump(exclude_none=True) for path, entry in sorted(self.files.items())},
            "recent": list(self.recent),
        }
        encoded = json.dumps(content, separators=(",", ":")).encode()
        return gzip.compress(encoded, 6, mtime=0) if len(encoded) > _COMPRESS_FROM_BYTES else encoded


def parse_manifest(unit: Unit, content: bytes) -> Manifest:
    """Read the manifest of a unit.

    Raises:
        StorageError: it is damaged, belongs to another unit, or a newer version wrote it.
    """
    try:
        if content.startswith(_GZIP):
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError("too large")
        written = _Written.model_validate_json(content)
        if written.unit != str(unit):
            raise ValueError("of another unit")
        for path, entry in written.files.items():
            if unit_of(path) != unit or not is_stored(path):
                raise ValueError("a file of another unit")
            if (entry.blob is None) == (entry.text is None):
                raise ValueError("a file without content")
            if entry.text is not None and not entry.is_content(entry.text.encode()):
                raise ValueError("a text that is not the one that was stored")
    except (ValidationError, ValueError, EOFError, OSError) as exc:
        why = f"{exc.error_count()} values cannot be used" if isinstance(exc, ValidationError) else str(exc)
        raise StorageError(
            f"the manifest of {unit} in the object store is damaged ({why}): restore an earlier version of "
            f"{unit.key} in the bucket, or push a backup; if there is neither, delete the manifest, restart the "
            "replicas and store the data again"
        ) from None
    return Manifest(unit, written.generation, written.nonce, tuple(written.recent), written.files)


def entry_of(unit: Unit, content: bytes, mtime_ns: int, memory_id: str | None = None) -> Entry:
    """The entry of a file; an entry with `blob` must be uploaded before a manifest references it.

    Args:
        unit: the unit of the file.
        content: its bytes.
        mtime_ns: when it was written, in nanoseconds since 1970.
        memory_id: identity of the memory bank in it.
    """
    text = None
    if len(content) <= (_MAX_COUNTED_BYTES if unit.kind == "drift" else _MAX_TEXT_BYTES):
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = None
    return Entry(
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        mtime_ns=mtime_ns,
        blob=uuid.uuid4().hex[:16] if text is None else None,
        text=text,
        memory_id=memory_id,
    )
