"""Several workers, many clients: every reply comes from one complete and current model, whichever worker gives it.

``python -m soak.processes [--workers 2] [--clients 16] [--minutes 10] [--kill-every 20] [--store moto [--fails]]
[--sites 2]``. The clients mix fits, calibrations and inferences of shared ROIs and of a ROI of their own. Meanwhile,
workers are killed and restarted. With several sites, each is a service of its own, and all write the same object store.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil
from tqdm import tqdm

from harness.disk import Broken, stored
from harness.history import Lost, Refused
from harness.load import Client, Roi, Tally, insist, mix, prepare
from harness.measuring import print_table
from harness.memory import Memory
from harness.places import Place, add_store, opened
from harness.server import Server, gunicorn_command, serving
from harness.versions import SMALL_NETWORK, Versions, known_versions

_VERSIONS = 6
_KINDS = ("fit", "calibrate", "infer")
_LONGEST_REQUEST_S = 45.0  # beyond the time that writers wait for a lock
_SAMPLE_S = 0.5


def run(
    sites: Sequence[Server],
    versions: Versions,
    tally: Tally,
    place: Place,
    clients: int,
    seconds: float,
    kill_s: float,
) -> Memory:
    """Press for some seconds, kill a worker every `kill_s`, and look at what is stored in the end."""
    shared = [
        Roi({"role_id": "Shared", "roi_id": "Plain"}),
        Roi({"role_id": "Shared", "roi_id": "Recipe", "recipe_id": "line"}),
    ]
    own = [Roi({"role_id": "Own", "roi_id": f"{number}"}) for number in range(clients)]
    with Client(sites[0], versions, tally) as client:
        prepare(client, [*shared, *own], versions)
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(
            target=_press,
            args=(sites[number % len(sites)], versions, tally, [*shared, mine], end, number),
            daemon=True,
        )
        for number, mine in enumerate(own)
    ]
    for thread in threads:
        thread.start()
    memory = _watch(sites, tally, end, kill_s)
    for thread in threads:
        thread.join(max(0.0, end + _LONGEST_REQUEST_S - time.monotonic()))
    if stuck := sum(thread.is_alive() for thread in threads):
        tally.breaks(f"{stuck} clients still wait for a reply {_LONGEST_REQUEST_S:.0f} s after the last request")
        return memory
    root = place.files()
    for site in sites:
        with Client(site, versions, tally) as client:
            for roi in [*shared, *own]:
                _look_at(client, roi, root, versions, tally)
    return memory


def _press(server: Server, versions: Versions, tally: Tally, rois: Sequence[Roi], end: float, seed: int) -> None:
    chance = random.Random(seed)
    with Client(server, versions, tally) as client:
        while time.monotonic() < end:
            with suppress(Refused, Lost):
                mix(client, rois, versions, chance)


def _watch(sites: Sequence[Server], tally: Tally, end: float, kill_s: float) -> Memory:
    """Sample the workers' memory until the end, and kill one of them now and then."""
    masters = [psutil.Process(site.process.pid) for site in sites]
    memory, start = Memory(), time.monotonic()
    next_kill = start + kill_s
    with tqdm(total=round(end - start), unit="s", file=sys.stderr) as bar:
        while (now := time.monotonic()) < end:
            by_site = [master.children() for master in masters]
            workers = [worker for own in by_site for worker in own]
            memory.sample(now - start, [worker.pid for worker in workers])
            if now >= next_kill and end - now > kill_s / 2:
                own = by_site[tally.counts["workers killed"] % len(by_site)]  # one site after the other
                max(own, key=psutil.Process.create_time).kill()  # so that one lives to show its memory
                tally.count("workers killed")
                next_kill += kill_s
            time.sleep(_SAMPLE_S)
            bar.update(round(now - start) - bar.n)
    return memory


def _look_at(client: Client, roi: Roi, root: Path, versions: Versions, tally: Tally) -> None:
    """Now that all is quiet, whatever worker answers tells what is on disk."""
    try:
        found = stored(root, roi.ids, versions)
        for _ in range(8):
            answer = insist(partial(client.infer, roi))
            applied = found.threshold if found.calibrated == found.version else None
            if (answer.version, answer.threshold) != (found.version, applied):
                tally.breaks(f"/infer of {roi.name} tells of another model than its files")
    except (Broken, Refused, Lost) as exc:
        tally.breaks(f"in the end, {roi.name}: {exc!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.processes", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="workers of gunicorn (%(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="number of simultaneous clients (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="duration in minutes (%(default)g)")
    parser.add_argument("--kill-every", type=float, default=20, help="seconds between kills of a worker (%(default)g)")
    parser.add_argument("--sites", type=int, default=1, help="services that write the same store (%(default)s)")
    add_store(parser)
    chosen = parser.parse_args(arguments)
    if chosen.sites > 1 and chosen.store == "folder":
        parser.error("several sites need an object store: add --store moto")
    versions, tally = known_versions(_VERSIONS), Tally()
    command = partial(gunicorn_command, workers=chosen.workers)
    with (
        tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder,
        opened(chosen.store, Path(folder), chosen.ministack, fails=chosen.fails) as place,
        ExitStack() as stack,
    ):
        environment = {**SMALL_NETWORK, **place.environment, "MAX_FITS": f"{chosen.clients}"}
        sites = [stack.enter_context(serving(command, **environment)) for _ in range(chosen.sites)]
        memory = run(sites, versions, tally, place, chosen.clients, 60 * chosen.minutes, chosen.kill_every)
    of_sites = f"{chosen.sites} sites with " if chosen.sites > 1 else ""
    title = f"{of_sites}{chosen.workers} workers, {chosen.clients} clients, {chosen.minutes:g} minutes, milliseconds"
    print_table(title, ("request", "answered", "median", "p95"), tally.rows(_KINDS))
    others = sorted(what for what in tally.counts if what not in _KINDS)
    rows = [[what, tally.counts[what]] for what in others]
    print_table("What happened beside", ("", "count"), [*rows, ["promises broken", len(tally.broken)]])
    print_table("Memory of each worker that lived to the end, MB", memory.header, memory.rows())
    for text in memory.grown():
        tally.breaks(text)
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
