"""The parts of the results of an archive: the images of each, and its content as a Parquet file.

A part is written atomically, and its name determines its images. So a part that is written twice has the same rows, and
a run that was killed continues with the missing parts: no row exists twice, and none is lost.
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
    """All that the rows of a run depend on. It is stored with the parts, and only an equal run may continue them.

    Attributes:
        source: folder or URL of the images.
        n_images: number of the images.
        images_sha256: hash of their names, in hexadecimal digits.
        per_part: images of a part.
        with_heatmaps: whether rows have heatmaps.
        conditions: the ROI, its memory bank, its calibration and the settings that change results, by name.
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
        """The run over images of these names, sorted."""
        digest = hashlib.sha256("\0".join(names).encode(errors="surrogateescape")).hexdigest()
        return cls(source, len(names), digest, per_part, with_heatmaps, conditions)

    @property
    def part_names(self) -> list[str]:
        """File names of all parts, in the order of their numbers."""
        return [f"part-{number:0{_ORDER}d}.parquet" for number in range(-(-self.n_images // self.per_part))]

    def images_of(self, part: int, names: Sequence[str]) -> Sequence[str]:
        """Names of the images of a part.

        Args:
            part: number of the part, from 0.
            names: of all images of the run, in order.
        """
        return names[part * self.per_part : (part + 1) * self.per_part]

    def missing(self, out: Place, address: str) -> list[int]:
        """Numbers of the parts that `out` lacks. The run is recorded there first, if it is new.

        Args:
            out: the place of the results.
            address: its name, for messages.

        Raises:
            InvalidRequest: `out` has the results of another run.
            StorageError: `out` cannot be read or written.
        """
        there = out.names()
        if RUN in there:
            self._require_same(out.read(RUN), address)
        elif any(name in there for name in self.part_names):
            raise InvalidRequest(f"{address} has parts but no {RUN}, so their run is unknown: use another --out")
        else:
            out.write(RUN, json.dumps(asdict(self), indent=1).encode())
        return [number for number, name in enumerate(self.part_names) if name not in there]

    def _require_same(self, content: bytes | None, address: str) -> None:
        try:
            before = json.loads(content or b"")
            differ = [name for name, value in asdict(self).items() if before[name] != json.loads(json.dumps(value))]
        except (ValueError, KeyError, TypeError) as exc:
            raise StorageError(f"{address}: {RUN} is damaged: use another --out") from exc
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
        raise InvalidRequest(f"{address} has the results of a run with {what}: use another --out")


def as_parquet(rows: Sequence[Mapping[str, Any]], with_heatmaps: bool) -> bytes:
    """A part as the bytes of a Parquet file.

    Args:
        rows: of the part; `docs/scale.md` lists the columns. A missing value is null.
        with_heatmaps: whether the file has the column ``heatmap_png``.
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
