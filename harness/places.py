"""The place of models in a soak: a folder, or an object store on this machine, and its contents."""

import argparse
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.disk import leftovers
from harness.fault_proxy import Fault, faulty
from harness.object_store import BUCKET, CREDENTIALS, ministack_store, moto_store

Kind = Literal["folder", "moto", "ministack"]
KINDS: tuple[Kind, ...] = ("folder", "moto", "ministack")
FAULTS = (
    Fault("reset", chance=0.01),
    Fault("lost", chance=0.01),
    Fault("unreachable", chance=0.01),
    Fault("status", status=503, chance=0.01),
    Fault("slow", seconds=0.1, chance=0.01),
)


@dataclass
class Place:
    """Where models are kept.

    Attributes:
        environment: of a service that keeps them there.
        folder: of the models; of a store, what was pulled last.
        endpoint: of the store, past all faults; None where there is none.
    """

    environment: dict[str, str]
    folder: Path
    endpoint: str | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def files(self) -> Path:
        """A models folder that has what is there now."""
        if self.endpoint is None:
            return self.folder
        from backend.object_store.address import read_address  # here alone: a folder needs no client
        from backend.object_store.bucket import Bucket
        from backend.object_store.transfer import pull

        address = read_address(
            self.environment["MODELS_URL"],
            insecure=False,
            environment={**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint},
        )
        target = self.folder / f"pulled-{next(self._numbers)}"
        pull(Bucket(address), target, _refuse)
        return target

    def leftovers(self) -> list[str]:
        """What killed writers left in a folder; in a store, `models gc` clears it a day later."""
        return leftovers(self.folder) if self.endpoint is None else []


@contextlib.contextmanager
def opened(kind: Kind, folder: Path, ministack: Path | None = None, *, fails: bool = False) -> Iterator[Place]:
    """A place.

    Args:
        kind: a folder, or whose store.
        folder: for it.
        ministack: folder in which ministack is installed.
        fails: one of twenty requests to the store fails in some way, or is slow.
    """
    if kind == "folder":
        yield Place({"MODELS_DIR": str(folder)}, folder)
        return
    with contextlib.ExitStack() as stack:
        if kind == "moto":
            endpoint = stack.enter_context(moto_store())
        elif ministack is None:
            raise ValueError("ministack has to be installed somewhere: --ministack FOLDER")
        else:
            endpoint = stack.enter_context(ministack_store(ministack))
        reached = endpoint
        if fails:
            faults = stack.enter_context(faulty(endpoint))
            faults.every = list(FAULTS)
            reached = faults.endpoint
        environment = {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": reached,
            "MODELS_URL": f"s3://{BUCKET}/soak",
            "MODELS_DIR": str(folder / "unused"),
        }
        yield Place(environment, folder, endpoint)


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where a soak keeps its models: the arguments of `opened`."""
    parser.add_argument("--store", choices=KINDS, default="folder", help="place of the models (%(default)s)")
    parser.add_argument("--fails", action="store_true", help="let one of twenty requests to the store fail or be slow")
    parser.add_argument("--ministack", type=Path, metavar="FOLDER", help="folder in which ministack is installed")


def _refuse(problem: str) -> None:
    raise AssertionError(problem)
