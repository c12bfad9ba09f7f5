"""Every error says what it is to programs, too: one of a closed set of codes, whichever layer replies."""

import inspect
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from starlette.exceptions import HTTPException

from backend.api.schemas.common import ErrorReply
from backend.common import errors
from backend.common.errors import CODE_OF_STATUS, BackendError, ErrorCode
from backend.service.inspection import InspectionService
from tests.api.sending import IDS
from tests.factories import encoded

CODES = set(get_args(ErrorCode))
PNG = encoded(np.zeros((20, 30, 3), np.uint8))
ALL = [error for error in vars(errors).values() if inspect.isclass(error) and issubclass(error, BackendError)]
KEYS = {"api_keys": "full-key-of-the-line", "infer_keys": "infer-key-of-the-line"}
RAISED = [
    errors.Busy("32 inferences", 2) if error is errors.Busy else
    errors.NotReady("the service is starting; retry", 5) if error is errors.NotReady else
    errors.TooManyRequests(2, 1) if error is errors.TooManyRequests else error("why")
    for error in ALL
]  # fmt: skip


def check(reply, status, code):
    assert reply.status_code == status, reply.text
    body = reply.json()
    assert body.keys() == {"error", "trace", "code"}
    assert body["code"] == code
    assert ErrorReply(**body).error


def infer(client, files=None, **texts):
    return client.post("/infer", data={**IDS, "mm_per_px": 0.2, **texts}, files=files or {"image": ("a.png", PNG)})


def test_every_error_of_the_tree_has_a_code_of_the_closed_set():
    by_code = {}
    for error in ALL:
        assert error.code in CODES, error
        by_code.setdefault(error.code, []).append(error)
    shared = {code: found for code, found in by_code.items() if len(found) > 1}
    assert shared == {"internal_error": [BackendError, errors.ConfigError, errors.WeightsError]}
    of_http = set(CODE_OF_STATUS.values()) | {"wrong_host"}
    assert set(by_code) | of_http == CODES, "no code without an error"


def test_the_reference_explains_every_code_with_its_statuses():
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    table = re.search(r"\| `code` \| status \| is \|\n.*\n((?:\|.*\n)+)", page)[1]
    told = {}
    for row in table.splitlines():
        codes, statuses, _ = (cell.strip() for cell in row.strip("|").split("|"))
        told |= {code: [int(status) for status in statuses.split(",")] for code in re.findall(r"`(\w+)`", codes)}
    assert set(told) == CODES
    for error in ALL:
        assert error.status in told[error.code], error
    for status, code in CODE_OF_STATUS.items():
        assert status in told[code]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_of_the_tree_is_answered_with_its_status_and_code(calling, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(InspectionService, "state", fail)
    client = calling()
    check(client.get("/state", params=IDS), error.status, error.code)


@pytest.mark.parametrize("status", [*CODE_OF_STATUS, 418])
def test_a_refusal_of_http_is_answered_with_the_code_of_its_status(calling, monkeypatch, status):
    def fail(*_):
        raise HTTPException(status, "why")

    monkeypatch.setattr(InspectionService, "state", fail)
    check(calling().get("/state", params=IDS), status, CODE_OF_STATUS.get(status, "internal_error"))


def test_what_is_unexpected_is_an_internal_error_with_and_without_traces(calling, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(InspectionService, "state", fail)
    for trace in (True, False):
        reply = calling(trace=trace).get("/state", params=IDS)
        check(reply, 500, "internal_error")
        assert bool(reply.json()["trace"]) == trace


def test_routes_and_the_reading_of_bodies_answer_with_codes(calling):
    client = calling(max_file_mb=0.01, max_pixels=10_000)
    check(client.get("/nowhere"), 404, "not_found")
    check(client.get("/infer"), 405, "method_not_allowed")
    check(client.get("/state"), 422, "invalid_request")
    check(client.get("/state", params={**IDS, "recipe_id": "last"}), 400, "reserved_recipe")
    check(client.get("/datasets/file", params={**IDS, "label": "ok", "filename": "x"}), 404, "image_not_found")
    check(client.post("/rollback", json=IDS), 404, "version_not_found")
    check(client.post("/calibrate_dataset", json={**IDS}), 400, "not_fitted")
    check(infer(client), 400, "not_fitted")
    check(infer(client, shape='{"kind":"star"}'), 422, "invalid_shape")
    check(infer(client, {"image": ("a.png", bytes(20_000))}), 413, "too_large")
    check(infer(client, {"image": ("a.exe", PNG, "text/html")}), 415, "unsupported_image")
    upload = {"url": "/datasets/ok/upload", "data": IDS}
    check(client.post(**upload, files={"images": ("a.png", b"")}), 400, "bad_image")
    check(client.post(**upload, files={"images": ("a.txt", b"text")}), 415, "unsupported_image")
    broken = {"content": b"--x\r\nno head\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    check(client.post("/fit_ok", **broken), 400, "malformed_request")
    check(client.post("/calibrate_ng", content=b"\xff", headers={"Content-Type": "application/json"}), 400,
          "malformed_request")  # fmt: skip
    check(client.post("/rollback", content=b"x" * (2 << 20)), 413, "too_large")


def test_what_goes_around_a_request_answers_with_codes(calling):
    check(calling(allowed_hosts="line.example").get("/health"), 400, "wrong_host")
    check(calling().post("/fit_ok", headers={"Origin": "null"}), 403, "origin_not_allowed")
    asked = {"Origin": "https://other.example", "Access-Control-Request-Method": "POST"}
    cors = calling(cors_origins="https://gui.example")
    check(cors.options("/infer", headers=asked), 400, "origin_not_allowed")
    keyed = calling(**KEYS)
    check(keyed.get("/runs"), 401, "unauthorized")
    check(keyed.post("/fit_ok", headers={"X-API-Key": KEYS["infer_keys"]}), 403, "forbidden")
    limited = calling(rate_limit_per_s=0.2)
    assert limited.get("/nowhere").status_code == 404
    check(limited.get("/nowhere"), 429, "too_many_requests")
    stopping = calling()
    stopping.app.state.lifecycle.draining = True
    check(stopping.get("/ready"), 503, "not_ready")
    check(stopping.get("/runs"), 503, "not_ready")


@pytest.mark.slow
def test_each_failed_image_of_a_data_set_has_a_code_beside_its_error(client, crop, tmp_path):
    files = [("images", ("1.png", crop)), ("images", ("2.png", PNG))]
    upload = client.post("/datasets/ok/upload", data=IDS, files=files)
    assert upload.status_code == 200, upload.text
    assert client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files=files[:1]).status_code == 200
    damaged = next((tmp_path / "models").rglob(upload.json()["files"][1]))
    damaged.write_bytes(crop[: len(crop) // 2])
    judged = client.post("/infer_dataset", json={**IDS, "default_mm_per_px": 0.2}).json()
    assert [(item.get("code"), "error" in item) for item in judged["items"]] == [(None, False), ("bad_image", True)]
    calibrated = client.post("/calibrate_dataset", json={**IDS, "default_mm_per_px": 0.2, "require_ng": False}).json()
    assert [(item["code"], item["filename"]) for item in calibrated["errors"]] == [("bad_image", damaged.name)]


@pytest.mark.slow
def test_a_conflict_says_in_its_code_what_to_do_about_it(client, crop):
    in_recipe = {**IDS, "recipe_id": "line 1", "mm_per_px": 0.3}
    assert client.post("/fit_ok", data=in_recipe, files={"images": ("1.png", crop)}).status_code == 200
    scores = {**in_recipe, "ok_scores": [0.5]}
    check(client.post("/calibrate_ng", json={**scores, "memory_id": "0" * 32}), 409, "stale_model")
    check(client.post("/calibrate_ng", json={**scores, "mm_per_px": 0.2}), 409, "scale_locked")


def test_every_example_of_the_document_has_a_code_that_its_schema_lists(calling):
    document = calling().get("/openapi.json").json()
    schema = document["components"]["schemas"]["ErrorReply"]
    assert set(schema["properties"]["code"]["enum"]) == CODES
    assert "code" in schema["required"]
    by_status = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            for status, reply in operation["responses"].items():
                examples = reply.get("content", {}).get("application/json", {}).get("examples", {})
                for example in examples.values() if int(status) >= 400 else ():
                    by_status.setdefault(int(status), set()).add(example["value"]["code"])
    assert {"too_large"} == by_status[413]
    assert {"too_slow"} == by_status[408]
    assert by_status[409] == {"conflict", "refit_needed", "run_cancelled", "run_storing", "scale_locked", "stale_model"}
    assert by_status[401] | by_status[429] == {"unauthorized", "too_many_requests"}
    assert by_status[403] == {"forbidden", "origin_not_allowed"}
    assert "internal_error" not in set().union(*(codes for status, codes in by_status.items() if status != 500))
