"""What a machine has: cores, memory, open files, and what glibc holds free, seen from outside."""

import ctypes
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from backend.common import machine
from backend.common.machine import free_memory, usable_cores


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A container's files, as Linux writes them."""
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")

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


@pytest.mark.parametrize(
    ("told", "free"),
    [
        ("0::/system.slice/roi-anomaly.service\n", 1_000_000),
        ("1:name=systemd:/x\n0::/system.slice/roi-anomaly.service\n", 1_000_000),
        ("0::/docker/0f8fad5b\n", 4_000_000),
        ("4:memory:/user.slice\n", 4_000_000),
    ],
    ids=["unit", "unit beside version 1", "path outside the container", "version 1"],
)
def test_the_limits_are_those_of_the_unit_that_runs_the_process(cgroup, tmp_path, told, free):
    cgroup(own=told, memory_max=5_000_000, memory_current=1_000_000)
    unit = tmp_path / "system.slice" / "roi-anomaly.service"
    unit.mkdir(parents=True)
    (unit / "memory.max").write_text("3000000\n")
    (unit / "memory.current").write_text("2000000\n")
    assert free_memory() == free


@pytest.mark.slow
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


# 128 MB in blocks of 8 kB, all freed but the last: glibc gives back what is free above a block in use, and no more.
HOLDS = """
import ctypes, psutil
from backend.common.machine import return_free_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [libc.malloc(8192) for _ in range(16_384)]
for block in blocks:
    ctypes.memset(block, 1, 8192)
for block in blocks[:-1]:
    libc.free(block)
def held():
    return psutil.Process().memory_info().rss
before = held()
return_free_memory()
print(before - held())
"""


ARENAS = """
import ctypes, sys, threading
from backend.common.machine import limit_arenas
if sys.argv[1] == "limited":
    limit_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.fopen.restype, libc.fclose.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
together = threading.Barrier(16)
def work():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=work) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


def run(script, *arguments):
    # Two cores whatever the machine has; the arenas that glibc allows depend on them.
    code = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])\n{script}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_memory_that_is_free_below_memory_in_use_goes_back_to_the_system():
    assert int(run(HOLDS)) > 100e6


def test_threads_share_as_many_arenas_as_there_are_cores(tmp_path):
    def arenas(how):
        file = tmp_path / how
        run(ARENAS, how, str(file))
        return file.read_text().count("<heap nr=")

    assert arenas("limited") <= 2 < arenas("unlimited")


@pytest.mark.parametrize(("answer", "longest"), [(0, 259), (1, None), (0x1234_5601, None), (None, 259)])
def test_windows_has_longest_paths_unless_its_setting_is_on(monkeypatch, answer, longest):
    """Asked of the system as it is asked there: the low byte is the answer; what came before Windows 10 has none."""
    library = SimpleNamespace() if answer is None else SimpleNamespace(RtlAreLongPathsEnabled=lambda: answer)
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: {"ntdll": library}[name], raising=False)
    monkeypatch.setattr(machine.sys, "platform", "win32")
    assert machine.longest_path() == longest


def test_elsewhere_only_the_file_system_says_how_long_paths_are():
    assert machine.longest_path() is None or sys.platform == "win32"


def test_cores_and_memory_are_told_where_there_is_neither_proc_nor_sys(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "sys")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    assert 0 < free_memory() <= psutil.virtual_memory().total
