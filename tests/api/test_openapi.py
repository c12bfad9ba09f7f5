"""The document that describes the bodies of requests."""

import pytest


@pytest.mark.slow
def test_the_document_says_what_scores_look_like(client):
    body = client.get("/openapi.json").json()["paths"]["/calibrate_ng"]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert body["required"]
    assert set(schema["required"]) == {"role_id", "roi_id", "mm_per_px", "ok_scores"}
