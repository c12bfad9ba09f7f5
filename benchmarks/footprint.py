"""The cost of a server besides the time per image: start, memory and installed size, OpenVINO against torch.

``python -m benchmarks.footprint [server] [size]``; both if none is named. The model is fitted before. The weights (88
MB) are also in place before, and are not part of the installed size.
"""

import argparse
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from statistics import median

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.forms import Form
from harness.images import cell_png
from harness.measuring import at_most, peak_bytes, print_table
from harness.server import fitted_models, starting

_RUNTIMES = ("openvino", "torch")
_FITTED = 34  # cells: a memory bank of 697 embeddings at the default rate
_STARTS = 5
_SMALL, _N_SMALL = (512, 512), 50  # ROI width and height in pixels, inferences
_LARGE, _N_LARGE = (2448, 2048), 10

_START_CLAIM_S = 3
_MEMORY_CLAIM_MB = 500
_LARGEST = 6  # distributions listed

_BACKEND = Path(__file__).parents[1] / "backend"


def server() -> None:
    """Start servers of both runtimes in turn; time them to their first replies and weigh them after inferences."""
    small, large = (Form.of("image", [cell_png(*size)]) for size in (_SMALL, _LARGE))
    figures: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in _RUNTIMES}
    with fitted_models(_FITTED, RUNTIME="openvino") as environment:
        for _ in range(_STARTS):
            for runtime in _RUNTIMES:
                figures[runtime].append(_start(environment | {"RUNTIME": runtime}, small, large))

    middle = {
        runtime: {name: median(start[name] for start in starts) for name in starts[0]}
        for runtime, starts in figures.items()
    }
    ours, theirs = (middle[runtime] for runtime in _RUNTIMES)
    claims = {"first /infer, s": _START_CLAIM_S} | {
        name: _MEMORY_CLAIM_MB for name in ours if name.startswith("memory")
    }
    print_table(
        f"A server of one process, medians of {_STARTS} starts in turn, the model fitted and the weights in place",
        ("", *_RUNTIMES, "torch / OpenVINO"),
        [
            (
                name,
                at_most(claims[name], value) if name in claims else f"{value:.3g}",
                f"{theirs[name]:.3g}",
                f"{theirs[name] / value:.2f}" if value else "",
            )
            for name, value in ours.items()
        ],
    )


def _start(environment: dict[str, str], small: Form, large: Form) -> dict[str, float]:
    """Seconds from the start of the process, and its memory in MB (10⁶ bytes)."""
    begin = time.perf_counter()
    with starting(**environment) as started:
        started.wait_for("/health")
        healthy_s = time.perf_counter() - begin
        with started.client() as client:
            small.infer(client)
            inferred_s = time.perf_counter() - begin
            process = psutil.Process(started.process.pid)
            for _ in range(_N_SMALL - 1):
                small.infer(client)
            after_small = process.memory_info().rss
            for _ in range(_N_LARGE):
                large.infer(client)
        mapped = {file.path for file in process.memory_maps()}
        return {
            "first /health, s": healthy_s,
            "first /infer, s": inferred_s,
            f"memory after {_N_SMALL} × {_SMALL[0]}×{_SMALL[1]}, MB": after_small / 1e6,
            f"memory after {_N_LARGE} × {_LARGE[0]}×{_LARGE[1]} more, MB": process.memory_info().rss / 1e6,
            "highest ever, MB": peak_bytes(process) / 1e6,
            "libraries of torch in it": sum("torch" in Path(path).parts for path in mapped),
        }


def size() -> None:
    """Add up the files of the installed distributions that the service needs, without torch and with it."""
    service = _closure(_requirements(_BACKEND / "requirements.txt"))
    with_torch = service | _closure(_requirements(_BACKEND / "requirements-torch.txt"))
    torch_version = distribution("torch").version
    sizes = {name: _installed_bytes(name) / 1e6 for name in with_torch}
    totals = [sum(sizes[name] for name in names) for names in (service, with_torch)]
    rows = [
        (requirements, len(names), f"{total:.0f}", f"{total / totals[0]:.2f}", _largest(names, sizes))
        for requirements, names, total in (
            ("requirements.txt", service, totals[0]),
            (f"and requirements-torch.txt (torch {torch_version})", with_torch, totals[1]),
        )
    ]
    print_table(
        "Installed size of the pinned requirements and all they need, MB (10⁶ bytes), weights aside",
        ("", "distributions", "MB", "ratio", f"the largest {_LARGEST}"),
        rows,
    )


def _requirements(file: Path) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def _closure(requirements: Iterable[Requirement]) -> set[str]:
    """Canonical names of what is required on this machine, and of what that requires in turn.

    Raises:
        PackageNotFoundError: something of it is not installed.
    """
    waiting, walked = list(requirements), set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), requirement.extras or {""}
        applies = requirement.marker is None or requirement.marker.evaluate()
        if not applies or (name, frozenset(extras)) in walked:
            continue
        walked.add((name, frozenset(extras)))
        for further in map(Requirement, distribution(name).requires or []):
            if further.marker is None or any(further.marker.evaluate({"extra": extra}) for extra in extras):
                further.marker = None
                waiting.append(further)
    return {name for name, _ in walked}


def _installed_bytes(name: str) -> int:
    paths = (Path(str(file.locate())) for file in distribution(name).files or [])
    return sum(path.stat().st_size for path in paths if path.is_file())


def _largest(names: Iterable[str], sizes: dict[str, float]) -> str:
    chosen = sorted(names, key=lambda name: -sizes[name])[:_LARGEST]
    return ", ".join(f"{name} {sizes[name]:.0f}" for name in chosen)


_CLAIMS = {"server": server, "size": size}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"{', '.join(_CLAIMS)}; both if none is named")
    chosen = parser.parse_args(arguments).claims or list(_CLAIMS)
    if unknown := set(chosen) - set(_CLAIMS):
        parser.error(f"no claim is named {', '.join(sorted(unknown))}: choose from {', '.join(_CLAIMS)}")
    for claim in chosen:
        _CLAIMS[claim]()


if __name__ == "__main__":
    main()
