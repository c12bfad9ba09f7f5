"""A folder, pictures, a layout and somebody who judges by how bright a crop is: a line without a network."""

import itertools
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from backend.commands.watch.arrivals import Arrivals
from backend.commands.watch.delivery import Delivery
from backend.commands.watch.journal import Journal
from backend.commands.watch.judges import Learnt
from backend.commands.watch.judging import Judging
from backend.commands.watch.layouts import read_layout
from backend.commands.watch.results import Results
from backend.commands.watch.verdicts import Answer
from backend.commands.watch.watching import Places, Watching

SIZE = (40, 30)
RECT = {"kind": "rect", "cx": 10, "cy": 15, "w": 12, "h": 10, "r": 0, "r_inner": 0, "angle_deg": 0}
RING = {"kind": "annulus", "cx": 28, "cy": 15, "w": 0, "h": 0, "r": 8, "r_inner": 2, "angle_deg": 30}
THRESHOLD = 0.5


def drawn(number, roi=RECT, **more):
    """A ROI as the console keeps it."""
    return {
        "role_id": "Inspection",
        "roi_id": f"inspection-{number}",
        "model_key": f"inspection-{number}",
        "name": f"Place {number}",
        "mm_per_px": 0.5,
        "roi": roi,
        "picture": {"width": SIZE[0], "height": SIZE[1]},
        **more,
    }


def layout_of(*rois, **more):
    """A layout as the console keeps it; without ROIs, of two."""
    rois = rois or (drawn(1), drawn(2, RING))
    return json.dumps({"format": "roi-anomaly-console", "version": 1, "rois": rois, **more}).encode()


def picture(left=0.0, right=0.0):
    """A PNG whose halves are so bright, 0..1."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    image[:, : SIZE[0] // 2], image[:, SIZE[0] // 2 :] = round(left * 255), round(right * 255)
    return cv2.imencode(".png", image)[1].tobytes()


class BrightnessJudge:
    """Scores a crop by its mean brightness; a part is NG from `THRESHOLD` on.

    Attributes:
        stored: the layout.
        answers: changes answers, by roi_id.
        learnt: changes what is learnt, by roi_id.
        asked: name and ROI of each question.
        problems: raised one after the other before anything is answered.
        pictures: of the layout, by name.
    """

    def __init__(self, stored=None):
        self.stored = stored or layout_of()
        self.answers = {}
        self.learnt = {}
        self.asked = []
        self.problems = []
        self.pictures = {}

    def layout(self, recipe):
        return self.stored

    def template(self, recipe, name):
        return self.pictures[name]

    def learn(self, drawn):
        return replace(Learnt("bank", None, "same", THRESHOLD), **self.learnt.get(drawn.key.roi_id, {}))

    def infer(self, drawn, crop, name, mm_per_px, part_id):
        if self.problems:
            raise self.problems.pop(0)
        self.asked.append((name, drawn.key.roi_id, mm_per_px))
        image = cv2.imdecode(np.frombuffer(crop.content, np.uint8), cv2.IMREAD_COLOR)
        score = float(image.mean()) / 255
        decision = "ng" if score >= THRESHOLD else "ok"
        answer = Answer(score, THRESHOLD, decision, "applied", drawn.key.recipe, "bank", 0, 0.0)
        return replace(answer, **self.answers.get(drawn.key.roi_id, {}))

    def close(self):
        pass


class Line:
    """A watched folder and all that belongs to it, which can be started anew as after a crash.

    Attributes:
        said: what people were told.
        told: what was reported of parts, by run after run.
    """

    def __init__(self, folder: Path, judge=None, out="results.jsonl", channels=(), places=("ok", "ng", "not_judged")):
        self.root = folder
        self.incoming = folder / "incoming"
        self.incoming.mkdir(exist_ok=True)
        self.judge = judge or BrightnessJudge()
        self.out = folder / out if out else None
        self.channels = channels
        self.places = {word: folder / word for word in places}
        self.said = []
        self.told = []
        self._times = itertools.count(1)

    def put(self, name, content=None):
        """A file in the folder, each a second younger than the one before."""
        path = self.incoming / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture() if content is None else content)
        at = 1_700_000_000 + next(self._times)
        os.utime(path, (at, at))
        return path

    def run(self, *, copy=False, once=True, settle_s=0.0, follows=True, stopping=None, patience_s=2.0):
        """Watch, by default what is there and no more; the tally."""
        journal = Journal(self.root / "state")
        deliveries = [Delivery(journal, channel, self.said.append) for channel in self.channels]
        try:
            layout = read_layout(self.judge.layout("line 1"), "line 1", "the layout", self.judge.template)
            watching = Watching(
                Places(self.incoming, self.places, copy),
                Arrivals(self.incoming, settle_s, list(self.places.values()), journal.is_known),
                Judging(self.judge, layout, follows=follows, say=self.said.append),
                journal,
                None if self.out is None else Results(self.out),
                deliveries,
                report=self.told.append,
                say=self.said.append,
                show=lambda *_: None,
                stopping=stopping or threading.Event(),
                settle_s=settle_s,
                once=once,
            )
            for delivery in deliveries:
                delivery.start()
            watching.run()
            return watching.tally.counts
        finally:
            for delivery in deliveries:
                if delivery.ident is not None:
                    delivery.close(patience_s)
            journal.close()

    def results(self):
        """The lines of the results: what was told of each part."""
        if not self.out.exists():
            return []
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]

    def files(self):
        """The paths of all pictures, wherever they are, with their contents."""
        found = {}
        for folder in (self.incoming, *self.places.values()):
            for path in folder.rglob("*"):
                if path.is_file():
                    found[path.relative_to(self.root).as_posix()] = path.read_bytes()
        return found
