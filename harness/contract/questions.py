"""Requests about the service, and about files of older backends; none of them changes a file."""

from functools import partial

from harness.contract.client import Client, Step
from harness.contract.pictures import crop
from harness.gui import Part

_PROBED = ("/fit_ok", "/calibrate_ng", "/infer", "/explain", "/datasets/file", "/health", "/docs", "/nowhere")
_WRONG_METHODS = {
    "/infer": "GET",
    "/fit_ok": "PUT",
    "/health": "POST",
    "/datasets/file": "POST",
    "/openapi.json": "POST",
    "/calibrate_ng": "HEAD",
    "/state": "DELETE",
    "/rollback": "PATCH",
    "/runs": "FOO",
}


def _send(method: str, path: str, **headers: str) -> Step:
    return lambda client: client.gui(**headers).send(method, path)


SERVICE: dict[str, Step] = {
    "health": _send("GET", "/health"),
    "health of head": lambda client: client.head().get("/health"),
    "health in another script": lambda client: client.head("línea 4".encode().decode("latin-1")).get("/health"),
    "health of the reserved recipe": lambda client: client.head(" Last ").get("/health"),
    "health of a recipe of 2000 characters": lambda client: client.head("Long " * 400).get("/health"),
    "health by HEAD": _send("HEAD", "/health"),
    "an id that is none": _send("GET", "/health", X_Request_Id="two words"),
    "an id that is too long": _send("GET", "/health", X_Request_Id="x" * 129),
    "no id": _send("GET", "/ready", X_Request_Id=""),
    "ready": _send("GET", "/ready"),
    "ready by HEAD": _send("HEAD", "/ready"),
    "no runs": _send("GET", "/runs"),
    "no drifting rois": _send("GET", "/drift/rois"),
    "documentation": _send("GET", "/docs"),
    "documentation by redoc": _send("GET", "/redoc"),
    "script of the documentation": _send("GET", "/static-offline-docs/swagger-ui.css"),
    "no script of the documentation": _send("GET", "/static-offline-docs/nothing.js"),
    "seed's poll": _send("GET", "/train_status"),
    "unknown path": _send("GET", "/nowhere"),
    "unknown path of several parts": _send("GET", "/datasets/ok/list"),
    "unknown path with a query": _send("POST", "/nowhere?role_id=a"),
    "the root": _send("GET", "/"),
    "slash too many": _send("GET", "/health/"),
    "traversal in the path": _send("GET", "/static-offline-docs/..%2f..%2f..%2fetc/passwd"),
    "preflight of no origin that may call": lambda client: client.gui(
        Origin="https://gui.example", Access_Control_Request_Method="POST"
    ).send("OPTIONS", "/infer"),
    "a page of another origin": _send("GET", "/ready", Origin="https://gui.example"),
    **{f"OPTIONS {path}": _send("OPTIONS", path) for path in _PROBED},
    **{f"{method} {path}": _send(method, path) for path, method in _WRONG_METHODS.items()},
}


def _ask(path: str, role: str, roi: str = "Pattern", layout: str = "") -> Step:
    def ask(client: Client) -> object:
        gui = client.head(layout) if layout else client.gui()
        return gui.ask(path, role_id=role, roi_id=roi)

    return ask


def _infer(role: str, roi: str = "Pattern", layout: str = "", mm_per_px: float = 0.2) -> Step:
    def infer(client: Client) -> object:
        gui = client.head(layout) if layout else client.gui()
        return gui.infer(role, roi, crop(0), mm_per_px=mm_per_px)

    return infer


_state = partial(_ask, "/state")

OLDER: dict[str, Step] = {
    "state of L0": _state("Old L0"),
    "L0 is refused": _infer("Old L0"),
    "L1 is refused": _infer("Old_L1"),
    "state of L1": _state("Old_L1"),
    "L2 is refused": _infer("Old L2"),
    "L3 is refused": _infer("Old L3", layout="LINE 3"),
    "state of L3": _state("Old L3", layout="line 3"),
    "L4 is refused": _infer("Old L4", layout="line-4", mm_per_px=0.5),
    "L4 at another scale": _infer("Old L4", layout="line-4"),
    "manifest of L4": _ask("/manifest", "Old L4", layout="line-4"),
    "an older model that is served": _infer("Old served"),
    "an older model that is served to a recipe": _infer("Old served", layout="Any"),
    "state of an older model that is served": _state("Old served"),
    "manifest of an older model that is served": _ask("/manifest", "Old served"),
    "bank of an older model": _ask("/bank", "Old served"),
    "explanation by an older model": lambda client: client.gui().multipart(
        "/explain", [*client.gui().roi("Old served", "Pattern"), Part("image", crop(0), "image/png", "crop.png")]
    ),
    "versions of an older model": _ask("/versions", "Old served"),
    "drift of an older model": _ask("/drift", "Old L0"),
    "append to an older model": lambda client: client.gui().fit("Old served", "Pattern", [crop(1)], append="true"),
    "roll back an older model": lambda client: client.json("/rollback", {"role_id": "Old served", "roi_id": "Pattern"}),
    "calibrate an older model that is refused": lambda client: client.gui().calibrate("Old L2", "Pattern", [0.1], None),
    "another grid is refused": _infer("Old grid"),
    "embeddings of another length are refused": _infer("Old length"),
    "state of embeddings of another length": _state("Old length"),
    "calibrate embeddings of another length": lambda client: client.gui().calibrate(
        "Old length", "Pattern", [0.1], None
    ),
    "a damaged memory": _infer("Damaged", "Memory"),
    "state of a damaged memory": _state("Damaged", "Memory"),
    "a damaged calibration": _infer("Damaged", "Calibration"),
    "state of a damaged calibration": _state("Damaged", "Calibration"),
}
