"""Kill the service at random moments of fits, calibrations, uploads and reads, restart it, and check the remains.

``python -m soak.crash [--rounds 200] [--seed 1] [--store moto [--fails]]``. After each restart, every ROI answers with
the complete old or new model, confirmed changes exist, and the next write deletes remains.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

from tqdm import tqdm

from harness.disk import Broken, stored, stored_images
from harness.history import Lost, Refused
from harness.load import Client, Roi, Tally, insist, prepare
from harness.measuring import print_table
from harness.places import Place, add_store, opened
from harness.server import Server, serving
from harness.versions import SMALL_NETWORK, Versions, known_versions

_VERSIONS = 6
_LONGEST_LIFE_S = 0.6  # of the load until the kill; a fit takes a tenth
_MOST_STORED = 60
_KINDS = ("fit", "calibrate", "infer", "upload")


class Crashes:
    """A place for models whose service is killed again and again.

    Args:
        place: the place.
        versions: what is fitted.
        chance: decides when to kill, and what clients do.
    """

    def __init__(self, place: Place, versions: Versions, chance: random.Random) -> None:
        self.tally = Tally()
        self._place = place
        self._versions = versions
        self._chance = chance
        self._rois = (
            Roi({"role_id": "Crash", "roi_id": "Plain"}),
            Roi({"role_id": "Crash", "roi_id": "Recipe", "recipe_id": "line"}),
        )
        self._images = versions.every[0].images[:2]
        self._acknowledged: dict[str, bytes] = {}

    def run(self, rounds: int) -> None:
        """Kill `rounds` times, and look after each."""
        with self._serving() as server, Client(server, self._versions, self.tally) as client:
            prepare(client, self._rois, self._versions)
        for _ in tqdm(range(rounds), unit="kill", file=sys.stderr):
            with self._serving() as server:
                self._look(server)
                self._load_until_killed(server)
            for what in self._place.leftovers():
                self.tally.count("left behind")
                self.tally.count(f"left behind: {_kind_of(what)}")
        with self._serving() as server:
            self._look(server)

    def _serving(self) -> AbstractContextManager[Server]:
        return serving(**self._place.environment, **SMALL_NETWORK)

    def _load_until_killed(self, server: Server) -> None:
        threads = [threading.Thread(target=self._until_lost, args=(server, work)) for work in self._works()]
        for thread in threads:
            thread.start()
        time.sleep(self._chance.uniform(0, _LONGEST_LIFE_S))
        server.process.kill()
        server.process.wait()
        for thread in threads:
            thread.join()

    def _works(self) -> list[Callable[[Client], None]]:
        def write(roi: Roi, chance: random.Random) -> Callable[[Client], None]:
            def step(client: Client) -> None:
                if chance.random() < 0.6:
                    client.fit(roi, chance.choice(self._versions.every))
                else:
                    client.calibrate(roi)

            return step

        def read(client: Client) -> None:
            for roi in self._rois:
                client.infer(roi)

        return [*(write(roi, random.Random(self._chance.random())) for roi in self._rois), read, self._upload]

    def _upload(self, client: Client) -> None:
        names = client.upload(self._rois[0], self._images)
        self._acknowledged.update(zip(names, self._images, strict=True))

    def _until_lost(self, server: Server, work: Callable[[Client], None]) -> None:
        with Client(server, self._versions, self.tally) as client, suppress(Lost):
            while True:
                with suppress(Refused):
                    work(client)

    def _look(self, server: Server) -> None:
        """Hold the first replies and the files against what was acknowledged or under way, and go on from there."""
        if runs := [what for what in self._place.leftovers() if what.startswith(".runs")]:
            self.tally.breaks(f"runs of a dead process are still there after a start: {runs}")
        with Client(server, self._versions, self.tally) as client:
            for roi in self._rois:
                try:
                    insist(partial(self._look_at, client, roi))
                except (Broken, Refused, Lost) as exc:
                    self.tally.breaks(f"after a restart, {roi.name}: {exc!r}")
            self._look_at_images()
            with server.client() as http:
                if len(self._acknowledged) > _MOST_STORED:
                    http.delete("/datasets/clear", params={**self._rois[0].ids, "label": "ok"}).raise_for_status()
                    self._acknowledged.clear()
            insist(partial(self._upload, client))
        if left := self._place.leftovers():
            self.tally.breaks(f"still there after the next write: {left}")

    def _look_at(self, client: Client, roi: Roi) -> None:
        answer = client.infer(roi)
        found = stored(self._place.files(), roi.ids, self._versions)
        applied = found.threshold if found.calibrated == found.version else None
        if (answer.version, answer.threshold) != (found.version, applied):
            self.tally.breaks(f"/infer of {roi.name} tells of another model than its files")
        roi.history.seed(found.version, found.threshold, found.calibrated)
        self.tally.count("models found whole")
        client.fit(roi, self._chance.choice(self._versions.every))
        client.calibrate(roi)
        client.infer(roi)

    def _look_at_images(self) -> None:
        try:
            images = stored_images(self._place.files(), self._rois[0].ids)
        except Broken as exc:
            self.tally.breaks(str(exc))
            return
        if lost := [name for name, content in self._acknowledged.items() if images.get(name) != content]:
            self.tally.breaks(f"{len(lost)} acknowledged images are not there")
        sent = set(self._images)
        if any(content not in sent for content in images.values()):
            self.tally.breaks("a stored image is none that was sent")
        self.tally.counts["stored images compared"] += len(images)


def _kind_of(leftover: str) -> str:
    for part in (".runs", ".tmp-", "recipe.json"):
        if part in leftover:
            return part
    return "metadata without image"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m soak.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="number of kills (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments and the load (%(default)s)")
    add_store(parser)
    chosen = parser.parse_args(arguments)
    start = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="roi-anomaly-soak-") as folder,
        opened(chosen.store, Path(folder), chosen.ministack, fails=chosen.fails) as place,
    ):
        crashes = Crashes(place, known_versions(_VERSIONS), random.Random(chosen.seed))
        crashes.run(chosen.rounds)
    tally = crashes.tally
    title = f"{chosen.rounds} kills in {time.monotonic() - start:.0f} s, seed {chosen.seed}, milliseconds"
    print_table(title, ("request", "answered", "median", "p95"), tally.rows(_KINDS))
    others = sorted(what for what in tally.counts if what not in _KINDS)
    rows = [[what, tally.counts[what]] for what in others]
    print_table("What the kills met and left", ("", "count"), [*rows, ["promises broken", len(tally.broken)]])
    return tally.exit_code()


if __name__ == "__main__":
    sys.exit(main())
