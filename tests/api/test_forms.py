"""Multipart forms whose parts are odd, or have no room."""

import json
import tempfile

import pytest

from tests.api.sending import IDS, SCORES, check_refusal, send_raw


@pytest.mark.parametrize("name", ["=?é?q?a?=", "=?utf-9?q?a?=", "=?utf-8?b?a?="])
def test_a_file_name_that_cannot_be_decoded_is_taken_as_it_is(client, crop, name):
    form = (
        "--b\r\nContent-Disposition: form-data; name=role_id\r\n\r\na\r\n"
        "--b\r\nContent-Disposition: form-data; name=roi_id\r\n\r\nb\r\n"
        f'--b\r\nContent-Disposition: form-data; name=images; filename="{name}"\r\n\r\n'
    ).encode()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    stored = client.post("/datasets/ok/upload", content=form + crop + b"\r\n--b--\r\n", headers=headers)
    assert stored.status_code == 200, stored.text
    meta = client.get("/datasets/meta", params={"role_id": "a", "roi_id": "b", "label": "ok", "filename": name})
    assert meta.json()["filename"] == name


def test_no_room_for_what_arrives_is_told(client, crop, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    form = client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2}, files=[("images", ("a.png", crop * 40))])
    scores = send_raw(client, json.dumps({**SCORES, "new": "x" * (2 << 20)}).encode())
    for reply in (form, scores):
        check_refusal(reply, 500, "(No such file or directory); check the folder for temporary files")
        assert "gone" not in reply.text
