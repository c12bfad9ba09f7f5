"""Feedback from several clients to several workers: none is lost, and every reader finds a pair that belonged."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend.network.weights import Weights
from harness.gui import Gui, Part, Reply
from harness.server import gunicorn_command
from tests.factories import encoded, smooth_parts
from tests.integration.conftest import running

ROI = ("Feedback", "Pattern")
N_GOOD, N_BAD = 4, 4
MOST_TRIES = 60


def pictures() -> list[bytes]:
    """Four parts that are alike, four that are less so, and four defective ones."""
    every = smooth_parts(13)
    alike = [cv2.addWeighted(every[0], 0.8, other, 0.2, 0) for other in every[1:5]]
    unusual = [cv2.addWeighted(every[0], 0.5, other, 0.5, 0) for other in every[5:9]]
    return [encoded(np.asarray(picture, np.uint8)) for picture in (*alike, *unusual, *every[9:13])]


def send(gui: Gui, verdict: str, image: bytes, name: str) -> Reply:
    parts = [*gui.roi(*ROI), Part("verdict", verdict.encode()), Part("image", image, "image/png", name)]
    return gui.multipart("/feedback", parts)


def sent_until_it_counts(gui: Gui, verdict: str, image: bytes, name: str) -> dict[str, Any]:
    """Who is told that somebody else was faster sends it again."""
    for _ in range(MOST_TRIES):
        reply = send(gui, verdict, image, name)
        if reply.status == 200:
            told: dict[str, Any] = reply.json
            return told
        assert (reply.status, reply.json["code"]) in [(409, "stale_model"), (503, "busy")], reply.content
    raise AssertionError(f"{name} never counted")


def test_feedback_to_two_workers_at_once_is_never_lost_nor_mixed(tmp_path: Path, weights: Weights) -> None:
    """Eight verdicts at once: all count, and each inference meanwhile is by a bank and the threshold made for it."""
    with running(gunicorn_command, tmp_path, weights, INPUT_SIZE="56") as server:
        gui, every = server.gui, pictures()
        ok_scores = gui.fit(*ROI, every[:4]).json["ok_scores"]
        assert gui.calibrate(*ROI, ok_scores, [1.5]).status == 200
        first = gui.infer(*ROI, every[4]).json
        served = {(first["model"]["memory_id"], first["threshold"])}
        done, seen = threading.Event(), set()

        def read() -> None:
            while not done.is_set():
                reply = gui.infer(*ROI, every[4]).json
                seen.add((reply["model"]["memory_id"], reply.get("threshold")))

        verdicts = [("good", image, f"good{n}.png") for n, image in enumerate(every[4:8])]
        verdicts += [("bad", image, f"bad{n}.png") for n, image in enumerate(every[8:12])]
        reader = threading.Thread(target=read)
        reader.start()
        try:
            with ThreadPoolExecutor(len(verdicts)) as clients:
                replies = list(clients.map(lambda sent: sent_until_it_counts(gui, *sent), verdicts))
        finally:
            done.set()
            reader.join()

        assert all(reply["changed"] for reply in replies)
        served |= {(reply["memory_id"], reply["after"]["threshold"]) for reply in replies}
        assert seen <= served
        last = max(replies, key=lambda reply: reply["after"]["n_ok"] + reply["after"]["n_ng"])
        assert (last["after"]["n_ok"], last["after"]["n_ng"]) == (4 + N_GOOD, 1 + N_BAD)
        again = send(gui, *verdicts[0]).json
        assert (again["changed"], again["after"]) == (False, last["after"])
        pids = {line["pid"] for line in server.log() if line.get("endpoint") == "/feedback"}
        assert len(pids) == 2, "one worker never answered"
        images = gui.ask("/bank", role_id=ROI[0], roi_id=ROI[1]).json["images"]
        assert {image["filename"] for image in images} >= {name for verdict, _, name in verdicts if verdict == "good"}
