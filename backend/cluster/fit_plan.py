"""Whether a fit fits into a cluster: into its memory, or onto its disks with a selection in two rounds."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from backend.bank.two_rounds import KEPT_FOR_EACH
from backend.common.errors import TooLarge

# Of every embedding: what the selection and the comparisons know about it besides its numbers.
_BYTES_PER_EMBEDDING = 64
# Of every worker: the network, its buffers, and what it compares at once.
_BYTES_PER_WORKER = 1 << 30
# Copies of the memory bank in every worker: the picks, spare room of their array, and the bank of the comparisons.
_COPIES_OF_BANK = 3
# On disk: a file for each image, from which the fit resumes, and the files of the blocks, which are compared.
_COPIES_ON_DISK = 2


class Disk(NamedTuple):
    """Where a worker keeps embeddings.

    Attributes:
        machine: its name.
        device: number of the file system on this machine.
        folder: of the embeddings.
        free: bytes that are free there, and those that a previous run of the fit has kept.
    """

    machine: str
    device: int
    folder: str
    free: int


class FitSize(NamedTuple):
    """The size of a fit.

    Attributes:
        n_images: number of images.
        per_image: embeddings of an image.
        dim: length of an embedding of all blocks.
        n_blocks: of the network.
        n_select: embeddings of each block that the memory bank keeps, at most.
        n_workers: number of workers.
    """

    n_images: int
    per_image: int
    dim: int
    n_blocks: int
    n_select: int
    n_workers: int

    @property
    def images_of_worker(self) -> int:
        """Most images of a worker."""
        return -(-self.n_images // self.n_workers)


class Plan(NamedTuple):
    """How a fit is selected.

    Attributes:
        most_images: images of a piece, see `Pieces`; None is one round, with all embeddings in memory.
        notice: why there are two rounds, for people; empty if there is one.
    """

    most_images: int | None = None
    notice: str = ""


def plan_of(size: FitSize, share: float) -> Plan:
    """One round if the memory of the workers holds all embeddings, else two rounds.

    Args:
        size: of the fit.
        share: bytes of memory for each worker.

    Raises:
        TooLarge: neither fits; the message has the calculation.
    """
    n_rows = size.images_of_worker * size.per_image
    embeddings = n_rows * (size.dim * 4 + _BYTES_PER_EMBEDDING)
    bank = size.n_select * size.dim * 4 * _COPIES_OF_BANK
    needed = embeddings + bank + _BYTES_PER_WORKER
    if needed <= share:
        return Plan()
    calculation = (
        f"{size.images_of_worker} images × {size.per_image} patches × ({size.dim} × 4 + {_BYTES_PER_EMBEDDING}) bytes "
        f"= {_gb(embeddings)} for each of {size.n_workers} workers, plus {_gb(bank)} for the memory bank and "
        f"{_gb(_BYTES_PER_WORKER)} in any case: {_gb(needed)}, but a worker of this cluster has {_gb(share)}"
    )
    per_row = size.dim // size.n_blocks * 4 + _BYTES_PER_EMBEDDING
    n_kept = min(-(-KEPT_FOR_EACH * size.n_select // size.n_workers), n_rows)
    round_two = (n_kept + _COPIES_OF_BANK * size.n_select) * per_row
    known, least = n_rows * _BYTES_PER_EMBEDDING, max(size.per_image * per_row, round_two)
    needed = known + least + _BYTES_PER_WORKER
    if needed > share:
        raise TooLarge(
            f"the memory of the cluster does not hold this fit: {calculation}; two rounds, with the embeddings on "
            f"disk, need {_gb(known)} for {_BYTES_PER_EMBEDDING} bytes of each patch, {_gb(least)} for the {n_kept} "
            f"patches of round one and the memory bank of {size.n_select}, and {_gb(_BYTES_PER_WORKER)} in any case: "
            f"{_gb(needed)}; add machines, use fewer workers with more cores (--workers, --cores), set CORESET_MAX, or "
            "fit on fewer images"
        )
    in_piece = int((share - known - _BYTES_PER_WORKER) // (size.per_image * per_row))
    most_images = min(in_piece, size.images_of_worker)
    return Plan(
        most_images,
        f"two rounds: the memory of the cluster does not hold all embeddings ({calculation}). The workers keep them on "
        f"disk. Round one reads pieces of at most {most_images} images, and keeps {KEPT_FOR_EACH} times as many "
        "patches as the memory bank will have. Round two selects the memory bank among these patches. The result is "
        "not exactly that of `fit`, and the reply says how closely it covers the images",
    )


def _gb(n_bytes: float) -> str:
    """Bytes as people read them, of large sizes in GB.

    >>> _gb(1 << 30), _gb(921_600)
    ('1.1 GB', '0.9 MB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def check_disks(size: FitSize, disks: Sequence[Disk]) -> None:
    """Check that the disks hold the embeddings of a selection in two rounds.

    Args:
        size: of the fit.
        disks: of each worker. Workers of one machine may share a file system; a file system that several machines
            share counts as one of each.

    Raises:
        TooLarge: one does not; the message has the calculation.
    """
    of_worker = _COPIES_ON_DISK * size.images_of_worker * size.per_image * size.dim * 4
    sharing = Counter((disk.machine, disk.device) for disk in disks)
    for disk in disks:
        n_workers = sharing[disk.machine, disk.device]
        if n_workers * of_worker > disk.free:
            raise TooLarge(
                f"the disk of {disk.folder} on {disk.machine} does not hold the embeddings of this fit: "
                f"{_COPIES_ON_DISK} × {size.images_of_worker} images × {size.per_image} patches × {size.dim} × 4 bytes "
                f"for each of {n_workers} workers = {_gb(n_workers * of_worker)}, but {_gb(disk.free)} are free; "
                "put MODELS_DIR on a larger disk, add machines, or fit on fewer images"
            )
