"""What /docs fills in: requests that work one after the other on a fresh service, in the order in which they stand."""

import json
import re

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.common.config import Settings
from tests.factories import encoded, service_with

ROI = {"role_id": "Master1", "roi_id": "Pattern"}


@pytest.fixture
def client(small_features, tmp_path):
    service = service_with(small_features, tmp_path / "models", history=10)
    with TestClient(create_app(Settings(models_dir=tmp_path / "models"), service)) as client:
        yield client


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def operations(document):
    """Path, method and operation of each, in the order of the page: by group, and then as they stand."""
    every = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    groups = [tag["name"] for tag in document["tags"]]
    return sorted(every, key=lambda entry: groups.index(entry[2]["tags"][0]))


def picture(number):
    """A good part of 96 by 80 pixels: a disc, and noise of its own."""
    image = np.random.default_rng(number).integers(90, 110, (80, 96, 3), np.uint8)
    cv2.circle(image, (48, 40), 25, (200, 180, 160), -1)
    return encoded(image)


def parts_of(schema, number):
    """The files and the texts that the page sends of a form: empty ones too, and "null" for null."""
    files, texts = [], {}
    for name, field in schema["properties"].items():
        if (field.get("items") or field).get("format") == "binary":
            files.append((name, (f"IMG_{number}.png", picture(number), "image/png")))
            continue
        example = field["examples"][0]  # without one the page would send a random text
        texts[name] = json.dumps(example) if example is None or isinstance(example, bool) else example
    return files, texts


def sent(client, path, method, operation, number):
    parameters = [parameter for parameter in operation.get("parameters", []) if "example" in parameter]
    required = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["required"]}
    query, headers = (
        {parameter["name"]: parameter["example"] for parameter in parameters if parameter["in"] == place}
        for place in ("query", "header")
    )
    assert required <= query.keys()
    content = operation.get("requestBody", {"content": {}})["content"]
    if "multipart/form-data" in content:
        files, texts = parts_of(content["multipart/form-data"]["schema"], number)
        return client.request(method, path, params=query, data=texts, files=files)
    if "image/png" in content:
        return client.request(
            method, path, params=query, content=picture(number), headers={"Content-Type": "image/png"}
        )
    body = content["application/json"]["example"] if content else None
    return client.request(method, path, params=query, headers=headers, json=body)


@pytest.mark.slow
def test_the_examples_of_docs_work_one_after_the_other(client, document):
    replies = {}
    for number, (path, method, operation) in enumerate(operations(document)):
        reply = sent(client, path, method, operation, number)
        if path == "/runs/cancel":  # nothing is under way
            assert (reply.status_code, reply.json()["code"]) == (404, "run_not_found")
            continue
        assert reply.is_success, (method, path, reply.text)
        replies[method, path] = reply
        client.app.state.lifecycle.service.history.flush()
        if reply.headers["content-type"] == "application/json" and path != "/datasets/meta":
            body = reply.json()
            if {"role_id", "roi_id"} <= body.keys():
                assert {name: body[name] for name in ROI} == ROI, path
            assert body.get("recipe_id", "default") == "default", path
            assert body.get("warning") is None or "unknown" not in body["warning"], path

    (written,) = (operation for path, method, operation in operations(document) if (method, path) == ("put", "/layout"))
    layout = written["requestBody"]["content"]["application/json"]["example"]
    assert replies["get", "/layout"].json() == layout
    bodies = {
        key: reply.json() for key, reply in replies.items() if reply.headers["content-type"] == "application/json"
    }
    calibrated, inferred = bodies["post", "/calibrate_ng"], bodies["post", "/infer"]
    assert inferred["threshold"] == calibrated["threshold"]
    assert inferred["calibration"] == "applied"
    assert {inferred["decision"], bodies["post", "/explain"]["decision"]} <= {"ok", "ng"}
    assert bodies["post", "/fit_ok"]["memory_id"] == inferred["model"]["memory_id"]
    assert bodies["post", "/calibrate_dataset"]["n_errors"] == bodies["post", "/infer_dataset"]["n_errors"] == 0
    assert bodies["post", "/infer_dataset"]["n_total"] == 2
    assert replies["get", "/datasets/file"].headers["content-type"] == "image/png"
    assert bodies["get", "/datasets/meta"]["filename"] == "part7.png"
    assert bodies["delete", "/datasets/file"]["n_deleted"] == 1
    assert bodies["get", "/state"]["calibration"] == "applied"
    assert bodies["post", "/rollback"]["threshold"] == calibrated["threshold"], "the version before /calibrate_dataset"


@pytest.mark.slow
def test_example_of_calibrate_ng_gives_the_threshold_of_the_others(client, document):
    client.post("/fit_ok", data={**ROI, "mm_per_px": 0.2}, files={"images": ("a.png", picture(1), "image/png")})
    paths = document["paths"]
    body = paths["/calibrate_ng"]["post"]["requestBody"]["content"]["application/json"]["example"]
    threshold = client.post("/calibrate_ng", json=body).json()["threshold"]
    reply = paths["/infer"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]["calibrated"]
    assert reply["value"]["threshold"] == pytest.approx(threshold)


def test_docs_begin_with_fit_calibrate_infer_and_explain(document):
    entries = operations(document)
    assert [path for path, _, _ in entries[:4]] == ["/fit_ok", "/calibrate_ng", "/infer", "/explain"]
    assert list(document["paths"])[:4] == [path for path, _, _ in entries[:4]]
    groups = [tag["name"] for tag in document["tags"]]
    assert groups[:2] == ["inspection", "data sets"]
    assert {operation["tags"][0] for _, _, operation in entries} == set(groups)


def test_summaries_of_operations_are_sentences_of_their_own(document):
    summaries = [operation["summary"] for _, _, operation in operations(document)]
    for summary in summaries:
        assert summary[0].isupper()
        assert summary.endswith(".")
        assert len(summary.split()) >= 4
        assert not summary.istitle()
    assert len(set(summaries)) == len(summaries)


def test_examples_of_requests_name_no_recipe_and_no_model_key(document):
    for path, _, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["name"] not in ("recipe_id", "model_key") or "example" not in parameter, path
        for content in operation.get("requestBody", {"content": {}})["content"].values():
            assert not {"recipe_id", "model_key"} & content.get("example", {}).keys(), path


def test_optional_texts_of_forms_are_shown_empty(document):
    for path, _, operation in operations(document):
        form = operation.get("requestBody", {"content": {}})["content"].get("multipart/form-data")
        for name, field in form["schema"]["properties"].items() if form else ():
            if {"type": "null"} in field.get("anyOf", []):
                assert field["examples"] == [""], (path, name)


def test_patterns_of_ids_are_shown_in_printable_characters(document):
    role = document["paths"]["/fit_ok"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    pattern = role["role_id"]["pattern"]
    assert pattern.isprintable()
    assert pattern.isascii()
    for unseen in "\ufeff\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029":
        assert not re.search(pattern, f"a{unseen}b"), ascii(unseen)
    assert re.search(pattern, "línea 1")
