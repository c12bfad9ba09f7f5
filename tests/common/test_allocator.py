"""Memory that glibc holds free, seen from outside: by the kernel's count of the process, and glibc's of its arenas."""

import subprocess
import sys

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
