"""Requests to services with other settings: with keys, with tight limits, and without a network."""

import base64

import numpy as np

from harness.contract.client import Client, Step
from harness.contract.pictures import crop, crops, encoded, part
from harness.gui import Gui, Reply, image_parts

FULL, INFER, FILED, WRONG = (f"{name}-key-of-the-line" for name in ("full", "infer", "filed", "wrong"))
_IDS = {"role_id": "Book", "roi_id": "Pattern"}
_PAGES = (
    "/health",
    "/ready",
    "/runs",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/nowhere",
    "/datasets/file",
    "/drift/rois",
)
_ORIGIN = {"Origin": "https://gui.example"}


def _get(path: str, key: str = "", **headers: str) -> Step:
    keyed = {"X_API_Key": key} if key else {}
    return lambda client: client.gui(**keyed, **headers).get(path)


def _changes(gui: Gui) -> None:
    """What no key but a full one may do."""
    gui.fit("Keyed", "Pattern", crops(0))
    gui.calibrate("Keyed", "Pattern", [0.1], None)
    gui.multipart("/datasets/ok/upload", image_parts(crops(0)))
    gui.chunked_json("/calibrate_dataset", "{}")
    gui.chunked_json("/rollback", "{}")
    gui.chunked_json("/runs/cancel", "{}")
    gui.chunked_json("/drift/reset", "{}")
    gui.send("DELETE", "/datasets/clear?role_id=a&roi_id=b&label=ok")
    gui.send("POST", "/nowhere", b"")


def _works(client: Client, **headers: str) -> None:
    gui = client.gui(**headers)
    gui.fit("Keyed", "Pattern", crops(0, 1))
    gui.infer("Keyed", "Pattern", crop(2))


KEYS: dict[str, Step] = {
    **{f"no key: {path}": _get(path) for path in _PAGES},
    **{f"wrong key: {path}": _get(path, WRONG) for path in ("/health", "/runs")},
    **{f"infer key: {path}": _get(path, INFER) for path in ("/health", "/runs", "/drift/rois", "/docs", "/nowhere")},
    "no key changes anything": lambda client: _changes(client.gui()),
    "an infer key changes nothing": lambda client: _changes(client.gui(X_API_Key=INFER)),
    "an infer key infers": lambda client: client.gui(X_API_Key=INFER).infer("Book", "Pattern", crop(0)),
    "an infer key asks": lambda client: client.gui(Authorization=f"Bearer {INFER}").ask("/state", **_IDS),
    "a full key": lambda client: _works(client, X_API_Key=FULL),
    "a full key as a bearer": lambda client: _works(client, Authorization=f"bearer {FULL}"),
    "a key of the file": _get("/health", FILED),
    "a wrong key as a bearer": _get("/runs", Authorization=f"Bearer {WRONG}"),
    "a key as a password of a page": _get(
        "/docs", Authorization="Basic " + base64.b64encode(f"me:{FULL}".encode()).decode()
    ),
    "a key as a password of anything else": _get(
        "/runs", Authorization="Basic " + base64.b64encode(f"me:{FULL}".encode()).decode()
    ),
    "HEAD without a key": lambda client: client.gui().send("HEAD", "/runs"),
    "OPTIONS without a key": lambda client: client.gui().send("OPTIONS", "/fit_ok"),
    "an origin that may call": _get("/health", **_ORIGIN),
    "an origin that may not": _get("/health", Origin="https://other.example"),
    "a refusal for an origin that may call": _get("/runs", **_ORIGIN),
    "a preflight": lambda client: client.gui(
        **_ORIGIN, Access_Control_Request_Method="POST", Access_Control_Request_Headers="x-api-key,x-recipe-id"
    ).send("OPTIONS", "/infer"),
    "a preflight of another origin": lambda client: client.gui(
        Origin="https://other.example", Access_Control_Request_Method="POST"
    ).send("OPTIONS", "/infer"),
    "another host": _get("/health", Host="other.example"),
    "the document of a service with keys": _get("/openapi.json", INFER),
    "an error without a trace": _get("/state", FULL),
    "not fitted, without a trace": lambda client: client.gui(X_API_Key=FULL).infer("Nobody", "B", crop(0)),
}

# Larger than allowed by far, see `mistakes`.
_LARGE = encoded(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8), ".bmp")
_SMALL = [encoded(np.asarray(part(number)[:60, :60], np.uint8)) for number in range(2)]
_MANY = _SMALL * 60


def _chunked(client: Client) -> Reply:
    pieces = iter([b'{"a":"', *[b"x" * 65_536] * 16, b'"}'])
    return client.gui().send("POST", "/calibrate_ng", pieces, {"Content-Type": "application/json"})


LIMITS: dict[str, Step] = {
    "health within limits": _get("/health"),
    "a file that is too large": lambda client: client.gui().fit("A", "B", [_LARGE]),
    "an image of too many pixels": lambda client: client.gui().fit(
        "A", "B", [encoded(np.zeros((301, 300, 3), np.uint8))]
    ),
    "a form that is too large": lambda client: client.gui().fit("A", "B", [_LARGE, _LARGE]),
    "JSON that is too large": _chunked,
    "too many files": lambda client: client.gui().fit("A", "B", _MANY),
    "too many files to store": lambda client: client.head().upload("A", "B", "ok", _MANY),
    "a fit within limits": lambda client: client.gui().fit("A", "B", _SMALL),
    "an inference within limits": lambda client: client.gui().infer("A", "B", _SMALL[0]),
    "no version is kept": lambda client: client.gui().ask("/versions", role_id="A", roi_id="B"),
}

WITHOUT_NETWORK: dict[str, Step] = {
    "health without a network": _get("/health"),
    "ready without a network": _get("/ready"),
    "runs without a network": _get("/runs"),
    "429": lambda client: client.gui().infer("A", "B", crop(0)),
    "429 again": _get("/metrics"),
    "health at any rate": _get("/health"),
}
