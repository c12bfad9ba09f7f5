"""A full disk, a read-only folder, and a folder without write permission: a clear error, and nothing is lost.

``sudo python -m soak.unwritable``: it mounts a small tmpfs, and removes root's permission to write everywhere. The old
model and its calibration are served meanwhile, and writing works again after there is space and permission.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from harness.disk import leftovers, stored
from harness.forms import Form
from harness.history import Lost, Refused
from harness.load import Client, Roi, Tally, prepare
from harness.measuring import print_table
from harness.server import Server, serve_command, serving
from harness.versions import MM_PER_PX, SMALL_NETWORK, Versions, known_versions

_ROI = {"role_id": "Unwritable", "roi_id": "Roi"}
_WRITES = ("fit", "calibrate", "upload")
_DISK_BYTES = 1 << 20
# Without this capability root is held to the permissions of files like everybody else.
_HELD_TO_PERMISSIONS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")

Obstacle = Callable[[Path], Iterator[None]]


def _held_to_permissions(port: int) -> list[str]:
    return [*_HELD_TO_PERMISSIONS, *serve_command(port)]


def full(models: Path) -> Iterator[None]:
    """Fill the disk to the last byte."""
    filler = models / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            while _wrote(file.fileno(), size):
                pass
    try:
        yield
    finally:
        filler.unlink()


def read_only(models: Path) -> Iterator[None]:
    """Mount the disk read-only."""
    _run("mount", "-o", "remount,ro", str(models))
    try:
        yield
    finally:
        _run("mount", "-o", "remount,rw", str(models))


def denied(models: Path) -> Iterator[None]:
    """Take the leave to write away from everybody."""
    folders = [models, *(path for path in models.rglob("*") if path.is_dir())]
    files = [path for path in models.rglob("*") if path.is_file()]
    before = {path: path.stat().st_mode for path in (*folders, *files)}
    for path in before:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def check(server: Server, models: Path, versions: Versions, tally: Tally, name: str, obstacle: Obstacle) -> list[str]:
    """Hold the service against one obstacle; the errors it gave to a fit, a calibration and an upload."""
    roi = Roi(_ROI)
    with Client(server, versions, tally) as client, server.client() as http:
        prepare(client, [roi], versions)
        answer = client.infer(roi)
        before = stored(models, roi.ids, versions)
        with contextmanager(obstacle)(models):
            errors = [_error_of(reply, name, tally) for reply in _writes(http, versions)]
            if client.infer(roi) != answer:
                tally.breaks(f"{name}: another model is served than before")
            if stored(models, roi.ids, versions) != before:
                tally.breaks(f"{name}: another model is stored than before")
            if left := leftovers(models):
                tally.breaks(f"{name}: left behind {left}")
        for reply in _writes(http, versions):
            if reply.status_code != httpx.codes.OK:
                tally.breaks(f"after {name}: {reply.status_code} {reply.text[:300]}")
    return errors


def _writes(http: httpx.Client, versions: Versions) -> Iterator[httpx.Response]:
    version = versions.every[1]
    yield version.fit_form(**_ROI).post(http, "/fit_ok")
    body = {**_ROI, "mm_per_px": float(MM_PER_PX), "ok_scores": [0.7]}
    yield http.post("/calibrate_ng", json=body)
    yield Form.of("images", version.images[:2], **_ROI).post(http, "/datasets/ok/upload")


def _error_of(reply: httpx.Response, name: str, tally: Tally) -> str:
    error = str(reply.json().get("error", "no error"))
    if reply.status_code != httpx.codes.INTERNAL_SERVER_ERROR or "check the models folder" not in error:
        tally.breaks(f"{name}: {reply.status_code} {error}")
    return error


def _wrote(descriptor: int, size: int) -> bool:
    try:
        return os.write(descriptor, bytes(size)) == size
    except OSError:  # full
        return False


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    _run("mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0777", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the errors; 1 if a promise was broken."""
    argparse.ArgumentParser(prog="python -m soak.unwritable", description=__doc__).parse_args(arguments)
    if os.geteuid() != 0:
        print("this needs root: it mounts a small disk, and serves as another user")
        return 1
    versions, tally, rows = known_versions(2), Tally(), []
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder, _small_disk(Path(folder)) as models:
        for obstacle in (full, read_only, denied):
            name = obstacle.__name__.replace("_", "-")
            with serving(_held_to_permissions, MODELS_DIR=str(models), **SMALL_NETWORK) as server:
                try:
                    errors = check(server, models, versions, tally, name, obstacle)
                    rows += [[name, *row] for row in zip(_WRITES, errors, strict=True)]
                except (Refused, Lost) as exc:
                    tally.breaks(f"{name}: {exc!r}")
    print_table("Errors while the old model is served", ("models folder", "request", "error"), rows)
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
