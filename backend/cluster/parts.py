"""The results of an archive as parts: which images belong to which, and a part as the bytes of a Parquet file.

A part is written whole, under a name that its images decide. So whoever writes it twice writes the same rows, and a
run that was killed goes on with the parts that are missing: no row is there twice, and none is lost.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from backend.cluster.places import Place
from backend.common.errors import InvalidRequest, StorageError

RUN = "run.json"
_ORDER = 8  # digits of the number of a part


@dataclass(frozen=True)
class ArchiveRun:
    """What decides the rows of a run: it is written beside the parts, and only the same run goes on there.

    Attributes:
        source: address of the images.
        n_images, images_sha256: how many, and the hash of their names.
        per_part: how many go into a part.
        with_heatmaps: whether rows have heatmaps.
        conditions: how images are judged: the ROI, its memory bank and its calibration, and so on.
    """

    source: str
    n_images: int
    images_sha256: str
    per_part: int
    with_heatmaps: bool
    conditions: Mapping[str, Any]

    @classmethod
    def of(
        cls, source: str, names: Sequence[str], per_part: int, with_heatmaps: bool, conditions: Mapping[str, Any]
    ) -> "ArchiveRun":
        """The run over images of these names."""
        digest = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
        return cls(source, len(names), digest, per_part, with_heatmaps, conditions)

    @property
    def part_names(self) -> list[str]:
        """Of all parts."""
        return [f"part-{number:0{_ORDER}d}.parquet" for number in range(-(-self.n_images // self.per_part))]

    def images_of(self, part: int, names: Sequence[str]) -> Sequence[str]:
        """The images of a part."""
        return names[part * self.per_part : (part + 1) * self.per_part]

    def missing(self, out: Place, address: str) -> list[int]:
        """Numbers of the parts that are to be made, after this run is on record there.

        Args:
            out: where the parts go.
            address: its name, for messages.

        Raises:
            InvalidRequest: another run has its parts there.
            StorageError: it cannot be read or written.
        """
        there = out.names()
        if RUN in there:
            self._require_same(out.read(RUN), address)
        elif any(name in there for name in self.part_names):
            raise InvalidRequest(f"{address} has parts, and no {RUN} that says what they are: give another place")
        else:
            out.write(RUN, json.dumps(asdict(self), indent=1).encode())
        return [number for number, name in enumerate(self.part_names) if name not in there]

    def _require_same(self, content: bytes | None, address: str) -> None:
        try:
            before = json.loads(content or b"")
            differ = [name for name, value in asdict(self).items() if before[name] != json.loads(json.dumps(value))]
        except (ValueError, KeyError, TypeError) as exc:
            raise StorageError(f"{address}: {RUN} is damaged: give another place") from exc
        if not differ:
            return
        if "conditions" in differ:
            now = json.loads(json.dumps(dict(self.conditions)))
            names = [name for name in now if before["conditions"].get(name) != now[name]]
            what = f"other conditions ({', '.join(names)})"
        elif set(differ) & {"n_images", "images_sha256"}:
            what = f"other images ({before['n_images']} then, {self.n_images} now)"
        else:
            what = f"another {' and '.join(differ)}"
        raise InvalidRequest(f"{address} has the results of a run with {what}: give another place")


def as_parquet(rows: Sequence[Mapping[str, Any]], with_heatmaps: bool) -> bytes:
    """A part as the bytes of a Parquet file.

    Args:
        rows: see `docs/scale.md` for the columns; what a row lacks is null.
        with_heatmaps: whether there is a column for them.
    """
    import pyarrow
    from pyarrow import parquet

    region = [("x", pyarrow.int32()), ("y", pyarrow.int32()), ("w", pyarrow.int32()), ("h", pyarrow.int32())]
    region += [("area_px", pyarrow.float64()), ("area_mm2", pyarrow.float64())]
    columns = [
        ("path", pyarrow.string()),
        ("sha256", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("decision", pyarrow.string()),
        ("threshold", pyarrow.float64()),
        ("calibration", pyarrow.string()),
        ("regions", pyarrow.list_(pyarrow.struct(region))),
        ("why", pyarrow.string()),
        ("warning", pyarrow.string()),
        ("memory_id", pyarrow.string()),
        ("ms", pyarrow.float64()),
        ("error", pyarrow.string()),
        *([("heatmap_png", pyarrow.binary())] if with_heatmaps else []),
    ]
    table = pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(columns))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
