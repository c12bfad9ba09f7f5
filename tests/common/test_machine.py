import json
import os
import subprocess
import sys

import psutil
import pytest

from backend.common import machine
from backend.common.machine import free_memory, usable_cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A container's files, as Linux writes them."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)

    def write(**files):
        for name, text in files.items():
            (tmp_path / name.replace("_", ".")).write_text(f"{text}\n")

    return write


def test_without_a_container_every_core_of_the_affinity_mask_counts(cgroup):
    assert usable_cores() == len(psutil.Process().cpu_affinity())


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8)],
)
def test_a_containers_quota_of_processor_time_is_rounded_to_cores(cgroup, monkeypatch, quota, cores):
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: list(range(8)))
    cgroup(cpu_max=quota)
    assert usable_cores() == cores


def test_free_memory_is_that_of_the_system_or_less_in_a_container(cgroup):
    """Where a container has less left than the system, that counts, without the file cache that can be freed."""
    available = psutil.virtual_memory().available
    assert free_memory() == pytest.approx(available, rel=0.2)
    cgroup(memory_max="max", memory_current="123")
    assert free_memory() == pytest.approx(available, rel=0.2)
    cgroup(memory_max=10_000_000, memory_current=7_000_000, memory_stat="anon 4000000\ninactive_file 1500000")
    assert free_memory() == 4_500_000
    cgroup(memory_max=10_000_000, memory_current=11_000_000, memory_stat="inactive_file 0")
    assert free_memory() == 0


def test_threads_are_limited_in_every_numeric_library():
    script = (
        "import json, numpy, scipy.linalg; from backend.common.machine import limit_threads; limit_threads(1);"
        "import cv2, faiss, threadpoolctl;"
        "pools = {pool['filepath']: pool['num_threads'] for pool in threadpoolctl.threadpool_info()};"
        "print(json.dumps([cv2.getNumThreads(), faiss.omp_get_max_threads(), *pools.values()]))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    numbers = json.loads(done.stdout)
    assert len(numbers) >= 4
    assert set(numbers) == {1}


def test_a_process_may_open_as_many_files_as_the_system_lets_it():
    program = (
        "import resource; from backend.common.machine import raise_open_files; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 100)); "
        "print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["100"] * 3
