"""Rolling back as a client sees it: what was served before a change is served again, to the last digit."""

import json
from pathlib import Path
from typing import Any

import pytest

from backend.network.weights import Weights
from harness.gui import Gui, Head, Reply
from harness.server import Server, gunicorn_command
from tests.integration.conftest import PICKS_OF_TWO, SIDE, TOKENS, running


def versions(gui: Gui, role: str, roi: str, **more: str) -> list[dict[str, Any]]:
    reply = gui.ask("/versions", role_id=role, roi_id=roi, **more)
    assert reply.status == 200, reply.content
    listed: list[dict[str, Any]] = reply.json["versions"]
    return listed


def roll_back(gui: Gui, role: str, roi: str, **more: Any) -> Reply:
    return gui.chunked_json("/rollback", json.dumps({"role_id": role, "roi_id": roi, **more}))


def judged(gui: Gui, roi: tuple[str, str], crop: bytes) -> dict[str, Any]:
    reply = gui.infer(*roi, crop, '{"kind":"circle","cx":150,"cy":120,"r":110}')
    assert reply.status == 200, reply.content
    return {name: value for name, value in reply.json.items() if name != "request_id"}


def test_roll_back_serves_the_earlier_model_to_the_last_digit(server: Server, crops: list[bytes]) -> None:
    """The model before a fit is served with its own calibration; a second roll-back goes forward again."""
    gui, roi = server.gui, ("Versions", "Whole")
    assert gui.fit(*roi, crops[:2]).status == 200
    uncalibrated = judged(gui, roi, crops[4])
    threshold = uncalibrated["score"] * 0.9
    assert gui.calibrate(*roi, [threshold], None, area_mm2_thr=0.1).status == 200
    before = judged(gui, roi, crops[4])
    assert (before["decision"], before["calibration"]) == ("ng", "applied")
    assert before["regions"]

    assert gui.fit(*roi, crops[2:4], memory_fit="true").status == 200
    assert gui.calibrate(*roi, [0.9], None).status == 200
    changed = judged(gui, roi, crops[4])
    assert changed["score"] != before["score"]

    listed = versions(gui, *roi)
    assert [(item["version"], item["replaced_by"], item["calibrated"]) for item in listed] == [
        (3, "calibrate", False),
        (2, "fit", True),
        (1, "calibrate", False),
    ]
    assert listed[1]["threshold"] == threshold
    assert [(item["n_images"], item["n_embeddings"], item["coreset_size"]) for item in listed[:2]] == [
        (2, 2 * TOKENS, 2 * TOKENS),
        (2, 2 * TOKENS, PICKS_OF_TWO),
    ]

    reply = roll_back(gui, *roi, version=2)
    assert reply.status == 200, reply.content
    assert reply.json["model"] == {
        "role_id": "Versions",
        "recipe_id": "default",
        "model_key": "Whole",
        "layout": "current",
        "memory_id": listed[1]["memory_id"],
    }
    said = {name: reply.json[name] for name in ("version", "memory_id", "calibration", "coreset_size", "token_shape")}
    assert said == {
        "version": 2,
        "memory_id": listed[1]["memory_id"],
        "calibration": "applied",
        "coreset_size": PICKS_OF_TWO,
        "token_shape": [SIDE, SIDE],
    }
    assert reply.json["threshold"] == threshold
    assert judged(gui, roi, crops[4]) == before

    assert roll_back(gui, *roi).status == 200, "forward again: null and left out are the newest"
    assert judged(gui, roi, crops[4]) == changed
    reply = roll_back(gui, *roi, version=1, recipe_id=None)
    assert (reply.json["calibration"], "threshold" in reply.json) == ("none", False)
    assert judged(gui, roi, crops[4]) == uncalibrated
    state = gui.ask("/state", role_id=roi[0], roi_id=roi[1]).json
    assert (state["memory_fitted"], state["calib_present"], state["calibration"]) == (True, False, "none")

    lines = [line for line in server.log() if line["event"] == "model.rolled_back" and line["role_id"] == "Versions"]
    assert [line["version"] for line in lines] == [2, 4, 1]
    assert (lines[0]["memory_id"], lines[0]["memory_id_before"]) == (listed[1]["memory_id"], listed[0]["memory_id"])
    requests = [line for line in server.log() if line.get("endpoint") == "/rollback"]
    assert all({"role_id", "roi_id", "version", "memory_id"} <= line.keys() for line in requests[-3:])


def test_recipe_served_by_the_default_model_is_not_rolled_back(server: Server, crops: list[bytes]) -> None:
    """A recipe without a model of its own is refused with 409. One that has a model is rolled back alone."""
    gui, roi = server.gui, ("Versions", "Recipe")
    head = Head(gui.host, gui.port)
    for count in (1, 2):
        assert gui.fit(*roi, crops[:count]).status == 200
    before = {path: path.read_bytes() for path in server.models.rglob("*") if path.is_file()}
    assert versions(head, *roi) == []
    reply = head.chunked_json("/rollback", json.dumps({"role_id": roi[0], "roi_id": roi[1]}))
    assert reply.status == 409
    assert "recipe 'my layout 1' has no model of its own" in reply.json["error"]
    assert {path: path.read_bytes() for path in server.models.rglob("*") if path.is_file()} == before

    for count in (1, 2):
        assert head.fit(*roi, crops[2 : 2 + count]).status == 200
    served = judged(gui, roi, crops[4])
    reply = head.chunked_json("/rollback", json.dumps({"role_id": roi[0], "roi_id": roi[1]}))
    assert (reply.status, reply.json["recipe_id"], reply.json["model"]["recipe_id"]) == (200, *["my layout 1"] * 2)
    assert judged(gui, roi, crops[4]) == served, "the default recipe's is another model"
    assert len(versions(gui, *roi)) == 1


@pytest.mark.parametrize(
    ("body", "status", "phrase"),
    [
        ('{"role_id":"Versions","roi_id":"None"}', 404, "no earlier model of role 'Versions', roi 'None' is kept"),
        ('{"role_id":"Versions","roi_id":"None","version":0}', 422, "version: must be at least 1"),
        ('{"role_id":"Versions","roi_id":"None","version":"1"}', 422, "version: must be a number"),
        ('{"role_id":"Versions","roi_id":"None","version":1.5}', 422, "version"),
        ('{"role_id":"Versions","roi_id":"None","recipe_id":"last"}', 400, "reserved"),
        ('{"roi_id":"None"}', 422, "role_id: it is missing"),
        ("{", 422, "JSON"),
        ('{"role_id":"%s","roi_id":"b"}' % ("ñ" * 100), 422, "240 bytes"),
    ],
)
def test_invalid_roll_back_gets_a_contract_error_and_leaves_nothing(
    server: Server, body: str, status: int, phrase: str
) -> None:
    """What cannot be rolled back is answered with `error` and `trace`, and no file or folder appears."""
    before = _files_of_models(server)
    reply = server.gui.chunked_json("/rollback", body)
    assert reply.status == status, reply.content
    assert set(reply.json) == {"error", "trace", "code"}
    assert phrase in reply.json["error"]
    assert _files_of_models(server) == before


def _files_of_models(server: Server) -> set[Path]:
    """All files and folders but statistics, which are written some time after an inference."""
    return {path for path in server.models.rglob("*") if ".drift" not in path.parts}


def test_the_examples_of_the_document_are_what_the_service_says(server: Server, crops: list[bytes]) -> None:
    gui, roi = server.gui, ("Master1", "Rolled")
    assert [gui.fit(*roi, crops[:count]).status for count in (1, 2, 3, 4)] == [200] * 4
    head = Head(gui.host, gui.port, layout="Line 1")
    provoked = [
        roll_back(gui, *roi, version=7),
        roll_back(gui, "Master1", "Unknown"),
        roll_back(head, *roi),
        roll_back(gui, *roi, version=0),
    ]
    responses = gui.get("/openapi.json").json["paths"]["/rollback"]["post"]["responses"]
    for reply in provoked:
        examples = responses[str(reply.status)]["content"]["application/json"]["examples"].values()
        said = reply.json["error"].replace("'Rolled'", "'Pattern'").replace("'Unknown'", "'Pattern'")
        assert said in {example["value"]["error"] for example in examples}


def test_roll_back_by_one_worker_is_served_by_both_and_needs_a_full_key(
    tmp_path: Path, weights: Weights, crops: list[bytes]
) -> None:
    """A key for inference may list versions but not roll back."""
    full, line = "full-0123456789abcdef", "line-0123456789abcdef"
    settings = {"INPUT_SIZE": "56", "API_KEYS": full, "INFER_KEYS": line, "KEEP_VERSIONS": "2"}
    with running(gunicorn_command, tmp_path, weights, **settings) as server:
        gui = Gui(server.gui.host, server.gui.port, {"X-API-Key": full})
        may_infer = Gui(server.gui.host, server.gui.port, {"X-API-Key": line})
        roi, thresholds = ("Two", "Workers"), [0.4, 0.5, 0.6, 0.7]
        assert gui.fit(*roi, crops[:2], memory_fit="true").status == 200
        for threshold in thresholds:
            assert gui.calibrate(*roi, [threshold], None).status == 200
        assert roll_back(may_infer, *roi).status == 403
        assert [item["threshold"] for item in versions(may_infer, *roi)] == [0.6, 0.5]
        for _ in range(3):
            expected, mark = versions(gui, *roi)[0]["threshold"], len(server.log())
            assert roll_back(gui, *roi).status == 200
            for _ in range(60):
                assert judged(gui, roi, crops[2])["threshold"] == expected
                pids = {line["pid"] for line in server.log()[mark:] if line.get("endpoint") == "/infer"}
                if len(pids) == 2:
                    break
            assert len(pids) == 2, "one worker never answered"
