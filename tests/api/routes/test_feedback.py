"""``/feedback`` as clients see it: fields, refusals, and who may send it."""

import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from tests.api.sending import IDS, check_refusal, client_without_network
from tests.factories import encoded, service_with, smooth_parts, snapshot

PICTURES = [encoded(picture) for picture in smooth_parts(6)]
FULL, INFER = "full-key-of-the-line", "infer-key-of-the-line"


def send(client, picture, verdict="good", **fields):
    files = {"image": ("part7.png", picture, "image/png")}
    return client.post("/feedback", data={**IDS, "verdict": verdict, **fields}, files=files)


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def client(small_features, models):
    service = service_with(small_features, models)
    with TestClient(create_app(Settings(models_dir=models), service), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def ok_scores(client):
    files = [("images", (f"{number}.png", picture, "image/png")) for number, picture in enumerate(PICTURES[:4])]
    scores = client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files=files).json()["ok_scores"]
    body = {**IDS, "mm_per_px": 0.2, "ok_scores": scores, "ng_scores": [1.1, 1.2]}
    assert client.post("/calibrate_ng", json=body).status_code == 200
    return scores


def infer(client, picture):
    files = {"image": ("x.png", picture, "image/png")}
    return client.post("/infer", data={**IDS, "mm_per_px": 0.2}, files=files).json()


def test_feedback_after_the_plain_flow_of_the_gui(client, ok_scores):
    """Fit, calibrate with scores, and a good part that was rejected."""
    honest = infer(client, PICTURES[5])["score"]
    reply = send(client, PICTURES[5], mm_per_px="0.2").json()
    expected = (np.percentile([*ok_scores, honest], 99) + np.percentile([1.1, 1.2], 5)) / 2
    assert reply["after"]["threshold"] == pytest.approx(expected, abs=1e-12)
    assert (reply["score"], reply["dry_run"], reply["changed"]) == (honest, False, True)
    assert (reply["before"]["n_ok"], reply["after"]["n_ok"], reply["after"]["n_ng"]) == (4, 5, 2)
    assert (reply["after"]["n_escaped"], reply["after"]["escaped"]) == (0, [])
    after = infer(client, PICTURES[5])
    assert (after["score"], after["threshold"]) == (reply["score_after"], reply["after"]["threshold"])
    assert after["model"] == reply["model"]
    assert None not in reply.values()


def test_a_bad_image_is_named_among_those_that_escape(client, ok_scores):
    body = {**IDS, "mm_per_px": 0.2, "ok_scores": ok_scores, "threshold": 1.9}
    assert client.post("/calibrate_ng", json=body).status_code == 200
    reply = send(client, PICTURES[5], "bad").json()
    (escaped,) = reply["after"]["escaped"]
    assert escaped == {"position": 0, "score": reply["score"], "filename": "part7.png"}
    assert "score_after" not in reply
    assert reply["rule"] == "manual"
    assert "still escape" in reply["warning"]


def test_a_dry_run_leaves_every_file_as_it_is(client, ok_scores, models):
    before = snapshot(models)
    assert send(client, PICTURES[5], dry_run="true").json()["changed"]
    assert send(client, PICTURES[5], "bad", dry_run="true").json()["changed"]
    assert {name: what for name, what in snapshot(models).items() if not name.endswith(".lock")} == {
        name: what for name, what in before.items() if not name.endswith(".lock")
    }


def test_feedback_that_cannot_count_is_refused_and_changes_nothing(client, ok_scores, models):
    before = {name: what for name, what in snapshot(models).items() if not name.endswith(".lock")}
    check_refusal(send(client, PICTURES[5], "perhaps"), 422, "verdict")
    check_refusal(client.post("/feedback", data=IDS, files={"image": ("a.png", PICTURES[0])}), 422, "verdict")
    check_refusal(send(client, PICTURES[5][:200]), 400, "part7.png")
    check_refusal(send(client, PICTURES[5], mm_per_px="0.3"), 409, "was made with 0.2")
    check_refusal(send(client, PICTURES[0], "bad"), 409, "is in the memory bank as a good image, 0.png")
    check_refusal(send(client, PICTURES[5], roi_id="Other"), 400, "memory not found")
    (scores,) = (models / "Master1" / "Pattern").glob("*.scores.json")
    kept = scores.read_bytes()
    scores.unlink()
    reply = send(client, PICTURES[5])
    check_refusal(reply, 409, "are not stored")
    assert reply.json()["code"] == "conflict"
    scores.write_bytes(kept)
    after = {name: what for name, what in snapshot(models).items() if not name.endswith(".lock")}
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_what_has_no_effect_is_told(client, ok_scores):
    reply = send(client, PICTURES[5], dry_run="", verdikt="bad").json()
    assert reply["dry_run"] is False
    assert "verdikt" in reply["warning"]


def test_a_key_that_may_only_infer_gives_no_feedback(models):
    keyed = client_without_network(models, api_keys=FULL, infer_keys=INFER)
    reply = keyed.post("/feedback", headers={"X-API-Key": INFER})
    check_refusal(reply, 403, "POST /feedback needs a full API key")
    assert keyed.post("/feedback", headers={"X-API-Key": FULL}).status_code == 422


def test_the_examples_of_the_document_are_what_the_service_says(client, models):
    """Each refusal that is provoked stands among the examples of its status, word for word."""
    responses = client.get("/openapi.json").json()["paths"]["/feedback"]["post"]["responses"]

    def check_example(reply):
        examples = responses[str(reply.status_code)]["content"]["application/json"]["examples"].values()
        said = reply.json()
        assert (said["error"], said["code"]) in {(each["value"]["error"], each["value"]["code"]) for each in examples}

    check_example(send(client, PICTURES[0]))
    check_example(send(client, PICTURES[0], "perhaps"))
    fit = client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files={"images": ("0.png", PICTURES[0], "image/png")})
    assert fit.status_code == 200
    check_example(send(client, PICTURES[1]))
    assert client.post("/calibrate_ng", json={**IDS, "mm_per_px": 0.2, "ok_scores": [0.4]}).status_code == 200
    (scores,) = (models / "Master1" / "Pattern").glob("*.scores.json")
    scores.unlink()
    check_example(send(client, PICTURES[1]))
