"""Moving a stored image to the other class, over HTTP."""

import json

import numpy as np
import pytest

from tests.api.sending import IDS, check_refusal
from tests.factories import encoded, snapshot

PNG = encoded(np.zeros((20, 30, 3), np.uint8))
FULL, INFER = "full-key-of-the-line", "infer-key-of-the-line"


def upload(client, label="ok", name="part7.png", **meta):
    data = {**IDS, "metas": json.dumps({"filename": name, "mm_per_px": 0.2, **meta})}
    reply = client.post(f"/datasets/{label}/upload", data=data, files=[("images", (name, PNG))])
    assert reply.status_code == 200, reply.text
    return reply.json()["files"][0]


def move(client, filename, label="ok", to="ng", headers=None, **more):
    return client.post("/datasets/move", json={**IDS, "label": label, "to": to, "filename": filename, **more},
                       headers=headers or {})  # fmt: skip


def files(client):
    classes = client.get("/datasets/list", params=IDS).json()["classes"]
    return classes["ok"]["files"], classes["ng"]["files"]


def test_an_image_moves_with_its_metadata_and_back(calling):
    client = calling()
    name = upload(client, operator="A", shape_json='{"kind":"rect","x":0,"y":0,"w":9,"h":9}')
    metas = client.get("/datasets/meta", params={**IDS, "label": "ok", "filename": name}).json()
    body = move(client, name).json()
    assert (body["status"], body["label"], body["filename"], body["uploaded_as"]) == ("ok", "ng", name, "part7.png")
    assert "warning" not in body
    assert files(client) == ([], [name])
    there = {**IDS, "label": "ng", "filename": name}
    assert client.get("/datasets/meta", params=there).json() == {**metas, "label": "ng"}
    assert client.get("/datasets/file", params=there).content == PNG
    assert move(client, "part7.png", "ng", "ok").json()["label"] == "ok", "the name in its metadata will do"
    assert files(client) == ([name], [])
    assert client.get("/datasets/meta", params={**there, "label": "ok"}).json() == metas


def test_a_moved_image_is_still_known_by_its_pixels(calling):
    client = calling()
    name = upload(client)
    move(client, name)
    again = client.post("/datasets/ng/upload", data=IDS, files=[("images", ("b.png", PNG))]).json()
    assert again["images"][0]["duplicate_of"] == name


def test_a_move_to_its_own_class_moves_nothing_and_says_so(calling, tmp_path):
    client = calling()
    name = upload(client)
    before = snapshot(tmp_path)
    reply = move(client, name, "ok", "ok")
    assert reply.status_code == 200
    assert "nothing was moved" in reply.json()["warning"]
    assert snapshot(tmp_path) == before


def test_an_image_that_is_not_there_is_not_found(calling):
    client = calling()
    name = upload(client)
    check_refusal(move(client, name, "ng", "ok"), 404, "/datasets/list")
    check_refusal(move(client, "../" + name), 404, "/datasets/list")
    assert files(client) == ([name], [])


def test_name_that_the_other_class_has_is_a_conflict_and_nothing_moves(calling, tmp_path):
    client = calling()
    name = upload(client)
    (own,) = (tmp_path / "models").rglob(name)
    other = own.parent.parent / "ng"
    other.mkdir()
    (other / name).write_bytes(b"somebody's own")
    before = snapshot(tmp_path / "models")
    check_refusal(move(client, name), 409, "nothing was moved")
    after = snapshot(tmp_path / "models")
    assert {file: content for file, content in after.items() if not file.endswith(".lock")} == {
        file: content for file, content in before.items() if not file.endswith(".lock")
    }


@pytest.mark.parametrize("missing", ["label", "to", "filename", "role_id"])
def test_a_move_says_what_and_where_to(calling, missing):
    client = calling()
    body = {**IDS, "label": "ok", "to": "ng", "filename": "a.png"}
    del body[missing]
    check_refusal(client.post("/datasets/move", json=body), 422, missing)
    check_refusal(client.post("/datasets/move", json={**IDS, "label": "ok", "to": "bad", "filename": "a"}), 422, "to")


def test_a_move_needs_a_key_that_may_do_everything(calling):
    client = calling(api_keys=FULL, infer_keys=INFER)
    assert move(client, "a.png", headers={"X-API-Key": INFER}).status_code == 403
    assert move(client, "a.png", headers={"X-API-Key": FULL}).status_code == 404


def test_a_member_that_is_misspelt_is_refused(calling):
    client = calling()
    name = upload(client)
    check_refusal(move(client, name, file_name="x"), 422, "did you mean filename?")
    assert "unknown" in move(client, name, comment="x").json()["warning"]
