"""One name with two values, in JSON and in a query: nobody can tell which one is meant."""

import json

import pytest

from backend.common.errors import InvalidRequest
from backend.common.json_members import refuse_repeated
from tests.api.sending import IDS, SCORES, check_refusal, send_raw


def twice(members, name, value):
    """JSON of members, then one of them again."""
    return (json.dumps(members)[:-1] + f', "{name}": {json.dumps(value)}}}').encode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/calibrate_ng", twice(SCORES, "ok_scores", [0.7])),
        ("/calibrate_ng", twice(SCORES, "mm_per_px", 0.3)),
        ("/calibrate_ng", twice(SCORES, "\\u0072oi_id", "Other").replace(b"\\\\", b"\\")),
        ("/calibrate_dataset", twice({**IDS, "default_mm_per_px": 0.2}, "default_mm_per_px", 0.3)),
        ("/infer_dataset", twice({**IDS, "labels": ["ok"]}, "labels", ["ng"])),
        ("/rollback", twice({**IDS, "version": 1}, "version", 2)),
        ("/drift/reset", twice(IDS, "role_id", "Master2")),
    ],
)
def test_a_member_with_two_values_is_refused_and_changes_nothing(client, path, body, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    check_refusal(send_raw(client, body, path=path), 422, "was sent several times with different values")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_is_sent_twice_with_one_value_is_that_value(client):
    assert send_raw(client, twice(SCORES, "ok_scores", [0.5])).status_code == 200
    assert send_raw(client, twice({**SCORES, "other": "\\"}, "mm_per_px", 0.20)).status_code == 200


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain", None])
@pytest.mark.parametrize("path", ["/calibrate_ng", "/infer_dataset"])
def test_what_is_no_json_is_refused_as_before(client, content, content_type, path):
    assert send_raw(client, content, content_type, path).status_code in (400, 422)


@pytest.mark.parametrize("method", ["get", "delete"])
def test_a_query_with_two_values_is_refused(client, method):
    path = {"get": "/datasets/list", "delete": "/datasets/clear"}[method]
    query = f"{path}?role_id=a&roi_id=b&label=ok"
    check_refusal(getattr(client, method)(f"{query}&role_id=c"), 422, "role_id was sent several times with different")
    assert getattr(client, method)(f"{query}&role_id=a&other=1&other=2").status_code == 200
    assert client.get("/health?role_id=a&role_id=b").status_code == 200


def test_every_parameter_of_every_query_is_refused_with_two_values(calling):
    client = calling()
    queries = [
        (method, path, parameter["name"])
        for path, operations in client.get("/openapi.json").json()["paths"].items()
        for method, operation in operations.items()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query"
    ]
    assert {("get", "/datasets/file", "size"), ("get", "/history", "since_utc"), ("put", "/layout", "recipe_id")} <= {
        *queries
    }
    for method, path, name in queries:
        reply = client.request(method, f"{path}?{name}=1&{name}=2")
        check_refusal(reply, 422, f"{name} was sent several times")


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1.0}', '{"a": {"b": 1}, "c": {"b": 2}}', '{"a": [{"b": 1}, {"b": 2}]}', "no JSON", "7"]
)
def test_objects_without_contradictions_pass(text):
    refuse_repeated(text)


def test_a_contradiction_is_told_in_short():
    with pytest.raises(InvalidRequest) as caught:
        refuse_repeated(json.dumps({"x": [0.5] * 1000})[:-1] + ', "x": "' + "y" * 1000 + '"}')
    assert str(caught.value).startswith("'x' was sent several times with different values, '[0.5, ")
    assert len(str(caught.value)) < 200
