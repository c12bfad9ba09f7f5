"""Hostile files against a server: the corpus, then mutations of it, to /infer, /fit_ok and /datasets/ok/upload alike.

``python -m soak.files [--uploads 20000]``: every reply is 200 or a 4xx of the contract, in time, within bounded memory.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import local

import httpx

from harness.forms import ROI
from harness.hostile_files import SEED, corpus, mutations
from harness.server import Server, serving
from harness.watch import ENVIRONMENT, Watch

_ENDPOINTS = {"/infer": "image", "/fit_ok": "images", "/datasets/ok/upload": "images"}
_STATUSES = frozenset({200, 400, 413, 415})
_SLOWEST_S = 10.0
# 64 megapixels are the largest that the budget lets in at once: some 1 GB beside the server itself; see soak.large.
_MOST_MB = 2000.0
_CLIENTS = 4
_AT_ONCE = 500  # files that are made in advance


def send(server: Server, uploads: Iterable[tuple[str, bytes]]) -> Watch:
    """Send each of the files to one of the endpoints, in turn."""
    watch = Watch(server, _STATUSES, _SLOWEST_S)
    clients = local()

    def upload(numbered: tuple[int, tuple[str, bytes]]) -> None:
        number, (what, content) = numbered
        if not hasattr(clients, "client"):
            clients.client = server.client()
        client: httpx.Client = clients.client
        endpoint, field = list(_ENDPOINTS.items())[number % len(_ENDPOINTS)]
        # A fit replaces the model that others infer with, so each endpoint has a ROI of its own.
        texts = {**ROI, "roi_id": endpoint}
        files = [(field, ("part.png", content, "image/png"))]
        watch.ask(what, endpoint, lambda: client.post(endpoint, data=texts, files=files))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        numbered = enumerate(uploads)
        while some := list(islice(numbered, _AT_ONCE)):
            list(pool.map(upload, some))
    return watch


def soak(server: Server, uploads: int, seed: int = SEED) -> Watch:
    """Fit what is inferred with, send the corpus to every endpoint and `uploads` mutations to one each, infer again."""
    good = corpus()["PNG"]
    with server.client() as client:
        texts = {**ROI, "roi_id": "/infer"}
        fitted = client.post("/fit_ok", data=texts, files=[("images", ("a.png", good, "image/png"))])
        fitted.raise_for_status()
        before = client.post("/infer", data=texts, files=[("image", ("a.png", good, "image/png"))]).json()
        every = ((what, content) for what, content in corpus().items() for _ in _ENDPOINTS)
        watch = send(server, every)
        after_corpus = watch.memory_mb()
        mutated = send(server, mutations(uploads, seed))
        watch.statuses += mutated.statuses
        watch.broken += mutated.broken
        watch.slowest = max(watch.slowest, mutated.slowest)
        after = client.post("/infer", data=texts, files=[("image", ("a.png", good, "image/png"))]).json()
    watch.expect(before["score"] == after["score"], f"the score of an image moved: {before['score']}, {after['score']}")
    grown = watch.memory_mb() - after_corpus
    print(f"the server grew by {grown:.0f} MB over {uploads} mutated uploads")
    return watch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m soak.files", description=__doc__)
    parser.add_argument("--uploads", type=int, default=20_000, help="number of mutated uploads after the corpus")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the mutations")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    with serving(**ENVIRONMENT) as server:
        watch = soak(server, options.uploads, options.seed)
        minutes = (time.monotonic() - begin) / 60
        title = f"Hostile files: the corpus to each endpoint and {options.uploads} mutations, {minutes:.1f} minutes"
        return watch.finish(title, _MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
