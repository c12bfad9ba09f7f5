"""JSON bodies of scores and ids: every spelling that is taken, and what is refused before it is parsed."""

import json

import pytest

from tests.api.sending import IDS, SCORES, check_refusal, send_raw


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["", "with a byte order mark"])
def test_scores_arrive_in_any_spelling_of_json(client, content_type, mark):
    text = json.dumps({**SCORES, "role_id": "Línea", "ng_scores": None, "new": [{"a": [1]}]}, ensure_ascii=False)
    reply = send_raw(client, (mark + text).encode(), content_type)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["role_id"], reply.json()["n_ok"]) == ("Línea", 1)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"", 422, "send a JSON object"),
        (b"[0.1]", 422, "send a JSON object"),
        (b'{"role_id":', 422, "send a JSON object"),
        (b'{"role_id":"\xff"}', 400, "in UTF-8"),
        ("{}".encode("utf-16"), 400, "in UTF-8"),
        (b'{"x":' * 5000 + b"1" + b"}" * 5000, 400, "send a JSON object"),
        (b'{"role_id":"a"}', 422, "roi_id: it is missing; mm_per_px: it is missing; ok_scores: it is missing"),
        (
            json.dumps({**SCORES, "ok_scores": [0.1, float("nan")]}).encode(),
            422,
            "ok_scores.1: must be a number, and neither",
        ),
        (json.dumps({**SCORES, "ok_scores": [True]}).encode(), 422, "ok_scores.0: must be a number"),
        (json.dumps({**SCORES, "mm_per_px": "0.2"}).encode(), 422, "mm_per_px: must be a number"),
    ],
)
def test_scores_that_are_no_json_are_refused_with_what_to_send(client, content, status, words):
    """Bodies that are no JSON object and values that are no scores are refused with 400 or 422."""
    check_refusal(send_raw(client, content), status, words)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/jsonx", "application/octet-stream"])
def test_scores_of_another_content_type_are_refused(client, content_type):
    check_refusal(send_raw(client, json.dumps(SCORES).encode(), content_type), 422, "Content-Type: application/json")


@pytest.mark.parametrize("piece", [b"{},", b"[],", b'"",', b"1,", b'{"a":['])
def test_json_of_too_many_values_is_refused_before_it_is_parsed(client, piece):
    body = json.dumps(SCORES).encode()[:-1] + b',"x":['
    check_refusal(send_raw(client, body + piece * 2_001_000), 413, "more than 2001000 values")


@pytest.mark.slow
def test_as_many_scores_as_are_promised_are_taken(client):
    scores = b"[" + b"0.5," * 999_999 + b"0.25]"
    body = b'{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":%b,"ng_scores":%b}' % (scores, scores)
    reply = send_raw(client, body)
    assert reply.status_code == 200, reply.text
    assert (reply.json()["n_ok"], reply.json()["n_ng"]) == (1_000_000, 1_000_000)
    check_refusal(send_raw(client, body.replace(b"0.25", b"0.25,0.5", 1)), 422, "at most 1000000 items")


@pytest.mark.parametrize("path", ["/calibrate_dataset", "/infer_dataset", "/rollback", "/drift/reset"])
def test_a_body_of_ids_is_small(client, path):
    body = json.dumps({**IDS, "new": "x" * (1 << 20)}).encode()
    check_refusal(send_raw(client, body, path=path), 413, "larger than 1048576 bytes")
