"""``doctor``: what this machine has, how fast each precision is on it, and what would keep the service from working."""

import argparse
import contextlib
import http.client
import json
import os
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil

from backend.commands.arguments import Commands, add_command, natural_number
from backend.commands.console import count, print_line, progress_bar
from backend.commands.serve import reachable_name
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import BackendError, ConfigError, WeightsError
from backend.common.machine import free_memory, usable_cores
from backend.common.roi_key import RoiKey
from backend.network.weights import Weights, find_weights
from backend.service.stores import open_stores

_TEXT = """
Measures a pass of the network in every precision that this CPU is fast in, in turn, and recommends one. Says how many
stored ROIs would have to be fitted again for it. Weights that are not there yet are fetched, as `weights` does.

Looks for what is wrong: weights, models folder, address, memory, disk, clock. The exit status is 1 if anything is."""
_EPILOG = """\
examples:
  %(prog)s
  MODELS_DIR=/srv/models %(prog)s --json
"""
_PRECISIONS = ("float32", "bfloat16", "int8")
# Another precision asks for a refit of every ROI, and moves scores: not for less.
_LEAST_GAIN = 1.15
# A server of one process takes up to 0.5 GB (docs/benchmarks.md); a fit needs more.
_LEAST_MEMORY = 2**30
_LEAST_DISK = 2**30
_CLOCK_TOLERANCE_S = 120.0
_ASK_WITHIN_S = 2.0
_CPU_INFO = Path("/proc/cpuinfo")
_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass
class Measured:
    """How fast a precision is here.

    Attributes:
        ms: median milliseconds of a pass; None if it was not measured.
        times_float32: speed as a multiple of that of float32; None likewise.
        note: why it was not measured.
    """

    ms: float | None = None
    times_float32: float | None = None
    note: str | None = None


@dataclass
class Findings:
    """What `doctor` found.

    Attributes:
        cpu: name of the processor.
        instructions: those of it that decide which precision is fast; empty where the system does not list them.
        cores: that this process may use.
        memory, free_memory: in bytes.
        openvino: its version.
        input_size: side of the network input in pixels.
        precisions: by name; empty without weights.
        recommended: the precision that this machine should use; None if it was not measured.
        refits: ROIs that each precision would need fitted again, by name.
        n_rois: ROIs that have a model.
        problems: what is wrong, in words.
    """

    cpu: str
    instructions: list[str]
    cores: int
    memory: int
    free_memory: int
    openvino: str
    input_size: int
    precisions: dict[str, Measured] = field(default_factory=dict)
    recommended: str | None = None
    refits: dict[str, int] = field(default_factory=dict)
    n_rois: int = 0
    problems: list[str] = field(default_factory=list)


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "doctor", run, "say what this machine can do, and what is wrong", _TEXT, _EPILOG)
    parser.add_argument(
        "--seconds", type=natural_number, default=10, metavar="N", help="how long to measure (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Print what was found; the exit status is 1 if anything is wrong."""
    found = examine(settings, options.seconds)
    if options.json:
        print_line(json.dumps(asdict(found)))
    else:
        for line in _lines(found, settings.precision):
            print_line(line)
    if found.problems:
        sys.exit(1)


def examine(settings: Settings, seconds: float) -> Findings:
    """Look at the machine, measure, and look for what is wrong.

    Args:
        settings: the configuration that a service would have.
        seconds: how long to measure, beside some seconds to compile the network.
    """
    from backend.network.openvino_library import ov  # here and below: other commands need not wait for it

    found = Findings(
        cpu=str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")),
        instructions=_instructions(),
        cores=usable_cores(),
        memory=int(psutil.virtual_memory().total),
        free_memory=free_memory(),
        openvino=str(ov.__version__),
        input_size=settings.input_size,
    )
    found.problems += [*_problems_of_memory(found), *_problems_of_address(settings)]
    if settings.models_url is None:
        found.problems += _problems_of_folder(settings.models_dir)
    try:
        weights = find_weights(settings)
        if settings.model_name == DEFAULT_MODEL:
            found.precisions = measure(settings, weights, seconds)
    except WeightsError as exc:
        found.problems.append(str(exc))
    found.recommended = recommended(found.precisions)
    try:
        _count_refits(settings, found)
    except BackendError as exc:
        found.problems.append(str(exc))
    return found


def measure(settings: Settings, weights: Weights, seconds: float) -> dict[str, Measured]:
    """Passes of the network in every precision that may be fast here, in turn."""
    from backend.network.runtimes.openvino import OpenVinoRuntime

    threads = settings.threads or usable_cores()
    found: dict[str, Measured] = {}
    runtimes: dict[str, OpenVinoRuntime] = {}
    for name in _PRECISIONS:
        try:
            runtime = OpenVinoRuntime(weights.path, settings.input_size, name, threads)
        except ConfigError as exc:
            found[name] = Measured(note=str(exc))
            continue
        found[name] = Measured(note=runtime.advice)
        if runtime.advice is None:
            runtimes[name] = runtime
    pixels = np.zeros((1, 3, settings.input_size, settings.input_size), np.float32)
    taken: dict[str, list[float]] = {name: [] for name in runtimes}
    start = time.monotonic()
    with progress_bar("measuring", round(seconds), unit="s") as bar:
        while (passed := time.monotonic() - start) < seconds or not all(taken.values()):
            bar.update(min(int(passed), bar.total) - bar.n)
            for name, runtime in runtimes.items():
                begin = time.perf_counter()
                runtime.forward(pixels)
                taken[name].append((time.perf_counter() - begin) * 1000)
    for name, own in taken.items():
        found[name].ms = statistics.median(own)
        # Pass by pass: what else the machine does slows neighbours alike.
        found[name].times_float32 = statistics.median(np.divide(taken["float32"], own).tolist())
    return found


def recommended(precisions: Mapping[str, Measured]) -> str | None:
    """The fastest precision, float32 if none is clearly faster; None if nothing was measured."""
    gains = {name: own.times_float32 for name, own in precisions.items() if own.times_float32 is not None}
    if not gains:
        return None
    fastest = max(gains, key=gains.__getitem__)
    return fastest if gains[fastest] >= _LEAST_GAIN else "float32"


def _count_refits(settings: Settings, found: Findings) -> None:
    stores = open_stores(settings)
    known = stores.known_rois()
    found.problems += known.problems
    found.refits = dict.fromkeys(_PRECISIONS, 0)
    for stored in known.rois:
        key = RoiKey(stored.role_id, stored.roi_id, stored.recipe, stored.model)
        try:
            header = stores.headers.find(key)
        except BackendError as exc:
            found.problems.append(f"{key.role_id} {key.roi_id}: {exc}")
            continue
        if header is None:
            continue
        found.n_rois += 1
        extractor = header.header.metadata.get("extractor")
        built_in = extractor.get("precision") if isinstance(extractor, dict) else None
        for name in _PRECISIONS:
            own = name if name == "float32" else f"{name}/openvino"
            found.refits[name] += built_in not in (None, own)


def _instructions() -> list[str]:
    try:
        lines = _CPU_INFO.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # another system than Linux
        return []
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return [name for name in _INSTRUCTIONS if name in flags]


def _problems_of_memory(found: Findings) -> Iterator[str]:
    if found.free_memory < _LEAST_MEMORY:
        yield f"{_gb(found.free_memory)} of memory are free; the service needs {_gb(_LEAST_MEMORY)}"


def _problems_of_address(settings: Settings) -> Iterator[str]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            return
    except OSError as exc:
        if not _service_answers(settings):
            yield f"HOST={settings.host} PORT={settings.port} cannot be used ({exc.strerror})"


def _service_answers(settings: Settings) -> bool:
    """Whether the program that uses the port is this service."""
    connection = http.client.HTTPConnection(reachable_name(settings.host), settings.port, timeout=_ASK_WITHIN_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/health")
            reply = json.loads(connection.getresponse().read(2**20))
        except (OSError, ValueError, http.client.HTTPException):
            return False
    return isinstance(reply, dict) and "recipe_id" in reply


def _problems_of_folder(folder: Path) -> Iterator[str]:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"MODELS_DIR={folder}: {there} cannot be written"
    free = shutil.disk_usage(there).free
    if free < _LEAST_DISK:
        yield f"MODELS_DIR={folder}: {_gb(free)} of the disk are free"
    if folder.is_dir():
        newest = max((path.lstat().st_mtime for path in folder.glob("*/*/*")), default=0.0)
        if newest > time.time() + _CLOCK_TOLERANCE_S:
            by = (newest - time.time()) / 3600
            yield f"the clock is wrong, or was: the newest file in MODELS_DIR={folder} is {by:.1f} h ahead of it"


def _lines(found: Findings, configured: str) -> Iterator[str]:
    instructions = ", ".join(found.instructions) or "instructions not listed"
    yield f"machine      {found.cpu} ({instructions}), {count(found.cores, 'core')}"
    yield f"memory       {_gb(found.memory)}, {_gb(found.free_memory)} free"
    yield f"OpenVINO     {found.openvino}"
    for name, own in found.precisions.items():
        if own.ms is None or own.times_float32 is None:
            yield f"{name:12} {own.note}"
        else:
            yield f"{name:12} {own.ms:.0f} ms for {found.input_size} pixels, {own.times_float32:.2f} × float32"
    if found.recommended is not None:
        is_set = " (as it is set)" if found.recommended == configured else f" (PRECISION={configured} is set)"
        yield f"recommended  PRECISION={found.recommended}{is_set}"
        yield f"refits       {found.refits.get(found.recommended, 0)} of {count(found.n_rois, 'ROI')} for it"
    for problem in found.problems:
        yield f"problem      {problem}"
    if not found.problems:
        yield "problems     none"


def _gb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
