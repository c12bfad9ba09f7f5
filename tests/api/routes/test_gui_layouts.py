"""What a GUI keeps of a recipe: nobody's layout is lost to another's, and nothing but bounded bytes is kept."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.disk import gui_layouts
from tests.api.sending import check_refusal
from tests.factories import encoded, refusing, snapshot

FULL, INFER = "full-key-of-the-line", "infer-key-of-the-line"
FIRST = {"If-None-Match": "*"}
PNG = encoded(np.zeros((20, 30, 3), np.uint8))
JPEG = cv2.imencode(".jpg", np.full((20, 30, 3), 7, np.uint8))[1].tobytes()


def put(client, layout, headers=FIRST, recipe=None, **options):
    params = {"recipe_id": recipe} if recipe else {}
    content = layout if isinstance(layout, bytes) else json.dumps(layout).encode()
    headers = {"Content-Type": "application/json", **headers}
    return client.put("/layout", params=params, content=content, headers=headers, **options)


def put_picture(client, name="anchor 1", content=PNG, content_type="image/png", **params):
    headers = {"Content-Type": content_type} if content_type else {}
    return client.put("/layout/picture", params={"name": name, **params}, content=content, headers=headers)


def test_a_layout_comes_back_byte_for_byte_with_its_tag(calling):
    client = calling()
    sent = b'{ "b": 1.0,\r\n "a": [null, "\xc3\xa4"], "x": {} }'
    reply = put(client, sent)
    assert reply.status_code == 200, reply.text
    read = client.get("/layout")
    assert (read.status_code, read.content, read.headers["content-type"]) == (200, sent, "application/json")
    assert read.headers["etag"] == reply.headers["etag"] == f'"{reply.json()["etag"]}"'
    assert (reply.json()["status"], reply.json()["recipe_id"]) == ("ok", "default")
    assert client.get("/layout", headers={"If-None-Match": read.headers["etag"]}).status_code == 304
    assert client.get("/layout", headers={"If-None-Match": '"0"'}).content == sent


def test_recipes_have_layouts_of_their_own(calling):
    client = calling()
    put(client, {"of": "default"})
    put(client, {"of": "line 1"}, recipe="Line 1")
    assert client.get("/layout").json() == client.get("/layout?recipe_id=default").json() == {"of": "default"}
    assert client.get("/layout", headers={"X-Recipe-Id": "LINE 1"}).json() == {"of": "line 1"}
    assert put(client, {}, recipe="last").json()["code"] == "reserved_recipe"
    assert client.get("/rois").json()["recipes"] == ["default", "line 1"]


def test_a_layout_that_is_not_there_is_not_found(calling):
    reply = calling().get("/layout", params={"recipe_id": "line 1"})
    check_refusal(reply, 404, "If-None-Match: *")
    assert reply.json()["code"] == "layout_not_found"


def test_a_put_without_a_condition_is_refused_and_changes_nothing(calling, tmp_path):
    client = calling()
    for headers in ({}, {"If-None-Match": '"0"'}):
        reply = put(client, {"a": 1}, headers)
        check_refusal(reply, 428, "If-Match")
        assert reply.json()["code"] == "condition_missing"
    assert not (tmp_path / "models").exists()


def test_who_read_an_older_layout_does_not_overwrite_a_newer_one(calling):
    client = calling()
    first = put(client, {"by": "a"}).headers["etag"]
    second = put(client, {"by": "b"}, {"If-Match": first}).headers["etag"]
    assert second != first
    lost = put(client, {"by": "a again"}, {"If-Match": first})
    check_refusal(lost, 412, "GET it again")
    assert (lost.headers["etag"], lost.json()["code"]) == (second, "layout_changed")
    again = put(client, {"by": "c"})
    check_refusal(again, 412, "has a layout")
    assert again.headers["etag"] == second
    assert client.get("/layout").json() == {"by": "b"}


def test_any_of_several_tags_a_weak_one_and_a_star_match(calling):
    client = calling()
    tag = put(client, {"n": 1}).headers["etag"]
    assert put(client, {"n": 1}, {"If-Match": f'"0", W/{tag}'}).status_code == 200, "proxies make tags weak"
    assert put(client, {"n": 2}, {"If-Match": "*"}).status_code == 200
    assert put(client, {"n": 3}, {"If-Match": tag.strip('"')}).status_code == 412, "a tag has quotes"


def test_a_tag_matches_no_layout_where_none_is_stored(calling, tmp_path):
    reply = put(calling(), {}, {"If-Match": "*"})
    check_refusal(reply, 412, "If-None-Match: *")
    assert "etag" not in reply.headers
    assert not list((tmp_path / "models").rglob("layout.json"))


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "unsupported_media_type"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b"{", 400, "malformed_request"),
        (b'{"a": NaN}', 400, "malformed_request"),
        (b'{"a": "\xff"}', 400, "malformed_request"),
        (b'{"a": 1, "a": 2}', 422, "invalid_request"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "malformed_request"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', 413, "too_large"),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else None,
)
def test_what_is_no_object_of_json_is_refused_and_changes_nothing(calling, tmp_path, content, status, code):
    client = calling()
    tag = put(client, {"kept": True}).headers["etag"]
    before = snapshot(tmp_path)
    reply = put(client, content, {"If-Match": tag})
    assert (reply.status_code, reply.json()["code"]) == (status, code), reply.text
    assert snapshot(tmp_path) == before


def test_a_layout_of_a_mebibyte_is_stored_and_a_byte_more_is_not(calling):
    client = calling()
    largest = b'{"a":"' + b"x" * (gui_layouts.MAX_LAYOUT_BYTES - 8) + b'"}'
    assert len(largest) == 1 << 20
    tag = put(client, largest).headers["etag"]
    assert client.get("/layout").content == largest
    assert put(client, b" " + largest, {"If-Match": tag}).status_code == 413


def test_a_full_disk_leaves_the_layout_as_it_was(calling, tmp_path, monkeypatch):
    client = calling()
    tag = put(client, {"kept": True}).headers["etag"]
    with monkeypatch.context() as broken:
        refusing(broken, Path, "replace", 28)
        reply = put(client, {"kept": False}, {"If-Match": tag})
        check_refusal(reply, 500, "No space left")
    assert client.get("/layout").headers["etag"] == tag
    assert not [path for path in (tmp_path / "models").rglob("*") if path.name.startswith(".tmp-")]


def test_only_full_keys_write_and_any_key_reads(calling):
    client = calling(api_keys=FULL, infer_keys=INFER)
    full, infer = {"X-API-Key": FULL}, {"X-API-Key": INFER}
    assert put(client, {}, FIRST).status_code == 401
    assert put(client, {}, {**FIRST, **infer}).status_code == 403
    assert put(client, {}, {**FIRST, **full}).status_code == 200
    assert client.get("/layout", headers=infer).json() == {}
    assert client.get("/layout").status_code == 401
    named = {"params": {"name": "a"}}
    picture = {**named, "content": PNG}
    assert client.put("/layout/picture", **picture, headers={"Content-Type": "image/png", **infer}).status_code == 403
    assert client.put("/layout/picture", **picture, headers={"Content-Type": "image/png", **full}).status_code == 200
    assert client.get("/layout/picture", **named, headers=infer).content == PNG
    assert client.delete("/layout/picture", **named, headers=infer).status_code == 403
    assert client.delete("/layout/picture", **named, headers=full).status_code == 200


def test_pages_of_other_origins_cannot_replace_a_layout(calling):
    reply = put(calling(), {}, {**FIRST, "Origin": "https://other.example"})
    check_refusal(reply, 403, "CORS_ORIGINS")


def test_pictures_come_back_as_they_were_sent_and_are_listed(calling):
    client = calling()
    for name, content, kind in (("anchor 1", PNG, "image/png"), ("../ä.jpg", JPEG, "image/jpeg")):
        assert put_picture(client, name, content, kind).json()["name"] == name
        read = client.get("/layout/picture", params={"name": name})
        assert (read.content, read.headers["content-type"]) == (content, kind)
    listed = client.get("/layout/pictures").json()["pictures"]
    assert listed == [{"name": "../ä.jpg", "bytes": len(JPEG)}, {"name": "anchor 1", "bytes": len(PNG)}]
    put_picture(client, "anchor 1", JPEG, "application/octet-stream")
    assert client.get("/layout/picture", params={"name": "anchor 1"}).content == JPEG
    assert client.delete("/layout/picture", params={"name": "anchor 1"}).json()["name"] == "anchor 1"
    assert [picture["name"] for picture in client.get("/layout/pictures").json()["pictures"]] == ["../ä.jpg"]
    for method in (client.get, client.delete):
        reply = method("/layout/picture", params={"name": "anchor 1"})
        check_refusal(reply, 404, "/layout/pictures")
        assert reply.json()["code"] == "picture_not_found"
    assert client.get("/layout/pictures", params={"recipe_id": "line 1"}).json()["pictures"] == []


@pytest.mark.parametrize(
    ("content", "content_type", "status", "words"),
    [
        (PNG[:50], "image/png", 400, "damaged"),
        (b"", "image/png", 400, "empty"),
        (b"text", "image/png", 415, "not an accepted image"),
        (cv2.imencode(".bmp", np.zeros((4, 4, 3), np.uint8))[1].tobytes(), "image/bmp", 415, "must be a PNG or JPEG"),
        (PNG, "text/html", 422, "image/png"),
        (PNG, "", 422, "image/png"),
        (PNG + bytes(gui_layouts.MAX_PICTURE_BYTES), "image/png", 413, "smaller picture"),
    ],
    ids=["damaged", "empty", "text", "bmp", "declared as html", "not declared", "too large"],
)
def test_what_is_no_small_png_or_jpeg_is_refused(calling, tmp_path, content, content_type, status, words):
    check_refusal(put_picture(calling(), content=content, content_type=content_type), status, words)
    assert not list(tmp_path.rglob("pictures/*"))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(calling):
    check_refusal(put_picture(calling(max_pixels=599)), 413, "30x20 pixels")
    assert put_picture(calling(max_pixels=600)).status_code == 200


def test_a_recipe_has_a_limited_number_of_pictures(calling, monkeypatch):
    monkeypatch.setattr(gui_layouts, "MAX_PICTURES", 2)
    client = calling()
    assert [put_picture(client, name).status_code for name in ("a", "b", "c")] == [200, 200, 413]
    assert put_picture(client, "b", JPEG).status_code == 200, "in place of one"
    assert put_picture(client, "c", recipe_id="line 1").status_code == 200, "of another recipe"
    client.delete("/layout/picture", params={"name": "a"})
    assert put_picture(client, "c").status_code == 200


def test_names_of_pictures_are_bounded_and_never_leave_their_folder(calling, tmp_path):
    client = calling()
    for name in ("..", ".lock", "con", "a/b", "x" * 128):
        assert put_picture(client, name).status_code == 200, name
        assert client.get("/layout/picture", params={"name": name}).content == PNG
    for name in ("", "x" * 129, "ä" * 128, "a\nb"):
        assert put_picture(client, name).status_code == 422, name
    folder = tmp_path / "models" / "@recipes" / "default" / "layout"
    assert {path.name for path in folder.iterdir()} <= {"pictures", ".lock"}
    assert len(client.get("/layout/pictures").json()["pictures"]) == 5
    assert all(re.fullmatch(r"[\w%.~-]+", path.name) for path in (folder / "pictures").iterdir())
