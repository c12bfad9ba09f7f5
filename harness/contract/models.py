"""Requests about one model over time: fits, appended images, explanations, versions, and drift."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from harness.contract.checkout import POLL
from harness.contract.client import Client, Exchange, Step, texts_of
from harness.contract.generations import SHAPES, image
from harness.contract.pictures import crop, crops, scratched
from harness.gui import Gui, Reply

_ROI = {"role_id": "Model", "roi_id": "Pattern"}
_IDS = ("Model", "Pattern")
_LAMP = {"role_id": "Lamp", "roi_id": "Pattern"}
_VARIES = frozenset({"run_id", "step", "done", "total", "left_s"})
_WRITES_WITHIN_S = 4.0  # the statistics of production are written every two seconds


def _rollback(**members: Any) -> Step:
    return lambda client: client.json("/rollback", {**_ROI, **members})


def _roll_back_to_the_oldest(client: Client) -> Reply:
    return client.json("/rollback", {**_ROI, "version": client.notes["versions"][-2]["version"]})


def _fit(name: str, *numbers: int, **texts: str) -> Step:
    """A fit of which a later step needs the reply."""

    def fit(client: Client) -> Reply:
        reply = client.gui().fit(*_IDS, crops(*numbers), **texts)
        client.notes[name] = reply.json if reply.status == 200 else {}
        return reply

    return fit


def _calibrate(memory: str, *scores: float, **members: Any) -> Step:
    def calibrate(client: Client) -> Reply:
        bank = {"memory_id": client.notes[memory]["memory_id"]} if memory else {}
        body = {**_ROI, "mm_per_px": 0.2, "ok_scores": scores, "area_mm2_thr": 0, **bank, **members}
        return client.json("/calibrate_ng", body)

    return calibrate


def _explain(number: int, **texts: str) -> Step:
    return lambda client: client.gui().multipart(
        "/explain", [*client.gui().roi(*_IDS), *texts_of(**texts), image(crop(number, scratched))]
    )


def _produce(client: Client) -> None:
    """Parts that are all rejected, until that is a drift; and the time in which it is written down."""
    for number in range(40, 65):
        client.gui().infer("Lamp", "Pattern", crop(number, scratched))
    time.sleep(_WRITES_WITHIN_S)


def _ask(path: str, **ids: str) -> Step:
    return lambda client: client.gui().ask(path, **ids)


def _get(path: str) -> Step:
    return lambda client: client.gui().get(path)


def _fit_and_calibrate_a_lamp(client: Client) -> None:
    client.gui().fit("Lamp", "Pattern", crops(*range(5)))
    client.gui().calibrate("Lamp", "Pattern", [0.4 + number / 1000 for number in range(120)], [])


MODELS: dict[str, Step] = {
    "not fitted: append": _fit("nothing", 0, append="true"),
    "not fitted: explain": _explain(20),
    "not fitted: bank": _ask("/bank", **_ROI),
    "not fitted: reset": lambda client: client.json("/drift/reset", _ROI),
    "versions of nothing": _ask("/versions", **_ROI),
    "404 roll back nothing": _rollback(),
    "drift of nothing": _ask("/drift", **_ROI),
    "first fit, with thumbnails": _fit("first", 0, 1, 2, 3, thumbnails="true"),
    "the same fit again": _fit("first", 0, 1, 2, 3, thumbnails="true"),
    "drift without a calibration": _ask("/drift", **_ROI),
    "calibrate the first bank": _calibrate("first", 0.4, 0.5, 0.45, score_percentile=99.5),
    "calibrate by a rate": _calibrate("first", 0.4, 0.5, 0.45, ng_scores=[0.6, 0.41], target_false_reject_rate=0.3),
    "calibrate with scores that overlap": _calibrate("", 0.3, 0.5, 0.45, ng_scores=[0.4, 0.9]),
    "drift of nothing yet": _ask("/drift", **_ROI),
    "infer by the first bank": lambda client: client.gui().infer(*_IDS, crop(20, scratched)),
    "explain the worst places": _explain(20),
    "explain a place without pictures": _explain(20, x="40", y="60", pictures="false"),
    "explain within a mask": _explain(20, shape=SHAPES["annulus"]),
    "422 explain half a place": _explain(20, x="40"),
    "422 explain a place outside": _explain(20, x="4000", y="60"),
    "bank": _ask("/bank", **_ROI),
    "append what is known": _fit("first", 1, 2, append="true"),
    "append a new image": _fit("second", 2, 7, append="true"),
    "422 append every embedding": _fit("third", 7, append="true", memory_fit="true"),
    "stale": lambda client: client.gui().infer(*_IDS, crop(21, scratched)),
    "state of a stale calibration": _ask("/state", **_ROI),
    "409 calibrate with the scores of another bank": _calibrate("first", 0.4, 0.5),
    "calibrate the second bank": _calibrate("second", 0.4, 0.5),
    "another fit, within a mask": _fit("third", 4, 5, 6, shape=SHAPES["circle"]),
    "versions": lambda client: client.notes.update(versions=client.gui().ask("/versions", **_ROI).json["versions"]),
    "404 roll back to no version": _rollback(version=99),
    "422 roll back to version 0": _rollback(version=0),
    "422 roll back to a text": _rollback(version="1"),
    "422 roll back to half a version": _rollback(version=1.5),
    "422 roll back to a huge version": _rollback(version=10**20),
    "409 roll back a model of the default recipe": lambda client: client.json("/rollback", _ROI, X_Recipe_Id="Line 7"),
    "roll back to the newest": _rollback(),
    "roll back to the oldest": _roll_back_to_the_oldest,
    "roll back to what is served": _roll_back_to_the_oldest,
    "infer after": lambda client: client.gui().infer(*_IDS, crop(20, scratched)),
    "versions after": _ask("/versions", **_ROI),
    "stale again": _fit("fourth", 8, 9),
    "a fit of one image": lambda client: client.gui().fit("Single", "Pattern", crops(0)),
    "a fit with an image that is unlike the others": lambda client: client.gui().fit(
        "Odd", "Pattern", [*crops(*range(8)), crop(30, scratched)]
    ),
    "a lamp": _fit_and_calibrate_a_lamp,
    "production that is all rejected": _produce,
    "drift": _ask("/drift", **_LAMP),
    "all that drifts": _get("/drift/rois"),
    "422 reset to nothing": lambda client: client.json("/drift/reset", {**_LAMP, "reference": "nothing"}),
    "reset": lambda client: client.json("/drift/reset", _LAMP),
    "reset to production": lambda client: client.json("/drift/reset", {**_LAMP, "reference": "production"}),
    "409 reset to what is not known": lambda client: client.json("/drift/reset", _LAMP),
    "nothing drifts": _get("/drift/rois"),
    "metrics": _get("/metrics"),
}


def _runs_during_a_fit(client: Client) -> None:
    """What `/runs` says while a fit runs, which is asked until there is something; what varies is left out."""
    poll = Gui(client.host, client.port, POLL)
    runs: list[dict[str, Any]] = []
    with ThreadPoolExecutor(1) as pool:
        fit = pool.submit(client.gui().fit, "Running", "Pattern", crops(*range(20)))
        while not (runs or fit.done()):
            reply = poll.get("/runs")
            runs = reply.json["runs"]
    shown = {"runs": [{name: value for name, value in run.items() if name not in _VARIES} for run in runs]}
    client.exchanges.append(Exchange("GET", "/runs", replace(reply, content=json.dumps(shown).encode())))


LONG_WORK: dict[str, Step] = {"runs during a fit": _runs_during_a_fit}
