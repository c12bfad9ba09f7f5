"""Whether a fit fits into a cluster: in one round, in two, or not at all."""

import pytest

from backend.cluster.fit_plan import Disk, FitSize, check_disks, plan_of
from backend.common.errors import TooLarge

GIB = 1 << 30
# 10,000 images of 1024 patches in four workers, whose memory banks keep 30,000 patches of each of four blocks.
SIZE = FitSize(10_000, 1024, 4 * 384, 4, 30_000, 4)
ROWS = 2_500 * 1024
ONE_ROUND = GIB + ROWS * (4 * 384 * 4 + 64) + 3 * 30_000 * 4 * 384 * 4
ROUND_TWO = GIB + ROWS * 64 + (30_000 + 3 * 30_000) * (384 * 4 + 64)


def test_one_round_where_the_embeddings_fit_into_memory() -> None:
    assert plan_of(SIZE, ONE_ROUND) == (None, "")
    assert plan_of(SIZE, ONE_ROUND - 1).most_images == 2_500, "all of a block fits"


@pytest.mark.parametrize("share", [ROUND_TWO, 2 * GIB, 4 * GIB])
def test_pieces_fill_the_memory_of_a_worker(share: int) -> None:
    n_images = plan_of(SIZE, share).most_images
    assert n_images is not None
    of_image = 1024 * (384 * 4 + 64)
    assert n_images * of_image <= share - GIB - ROWS * 64 < (n_images + 1) * of_image


def test_notice_has_the_numbers() -> None:
    notice = plan_of(SIZE, 4 * GIB).notice
    assert "2500 images × 1024 patches × (1536 × 4 + 64) bytes = 15.9 GB for each of 4 workers" in notice
    assert "plus 553.0 MB for the memory bank and 1.1 GB in any case: 17.5 GB, but a worker of this cluster" in notice
    assert "has 4.3 GB" in notice


def test_neither_fits() -> None:
    with pytest.raises(TooLarge, match=r"17\.5 GB, but .* 163\.8 MB for 64 bytes of each patch, 192\.0 MB .*: 1\.4 GB"):
        plan_of(SIZE, ROUND_TWO - 1)


def test_workers_that_share_a_disk_need_room_for_all_of_them() -> None:
    of_worker = 2 * ROWS * 4 * 384 * 4
    alone = [Disk(f"machine{number}", 1, "/models", of_worker) for number in range(4)]
    check_disks(SIZE, alone)
    check_disks(SIZE, [disk._replace(machine="one", device=number) for number, disk in enumerate(alone)])
    together = [Disk("one", 1, "/models", 4 * of_worker) for _ in range(4)]
    check_disks(SIZE, together)
    with pytest.raises(TooLarge, match=r"/models on one .* each of 4 workers = 125\.8 GB, but 125\.8 GB are free"):
        check_disks(SIZE, [disk._replace(free=disk.free - 1) for disk in together])
