"""Which form fields hold images: all known ones together, in the order sent; files in others are named."""

import io

import pytest
from starlette.datastructures import FormData, UploadFile

from backend.api.forms import images_of, only_image_of
from backend.common.errors import InvalidRequest
from tests.api.sending import IDS

FIELDS = ("images", "image", "images[]", "images[0]", "images[17]", "file", "file[1]", "files", "files[]", "image[0]")


def send(client, path, files, **fields):
    """Files as (field, name, content)."""
    named = [(field, (name, content, "image/png")) for field, name, content in files]
    return client.post(path, data={**IDS, "mm_per_px": "0.2", **fields}, files=named)


def bank_names(client):
    return [image["filename"] for image in client.get("/bank", params=IDS).json()["images"]]


def form_of(*parts):
    """A form with files, or texts, as (field, name or text)."""
    items = [
        (field, UploadFile(io.BytesIO(b"x"), size=1, filename=name) if name.endswith(".png") else name)
        for field, name in parts
    ]
    return FormData(items)


def test_a_fit_takes_the_images_of_all_fields_in_the_order_sent(client, crop):
    files = [(field, f"{number}.png", crop) for number, field in enumerate(FIELDS)]
    reply = send(client, "/fit_ok", files)
    assert reply.status_code == 200, reply.text
    assert "not used" not in reply.json().get("warning", "")
    assert bank_names(client) == [f"{number}.png" for number in range(len(FIELDS))]


def test_an_upload_takes_the_images_of_all_fields_in_the_order_sent(client, crop):
    reply = send(client, "/datasets/ok/upload", [("file", "b.png", crop), ("images[0]", "a.png", crop)])
    files = reply.json()["files"]
    metas = [client.get("/datasets/meta", params={**IDS, "label": "ok", "filename": name}).json() for name in files]
    assert [meta["filename"] for meta in metas] == ["b.png", "a.png"]


@pytest.mark.parametrize("field", FIELDS)
def test_one_image_may_come_in_any_field_and_no_second_in_another(field):
    assert only_image_of(form_of((field, "a.png"))).name == "a.png"
    with pytest.raises(InvalidRequest, match="exactly one image in the file field 'image', not 2"):
        only_image_of(form_of((field, "a.png"), ("image", "b.png")))


@pytest.mark.parametrize("field", ["images2", "image_1", "images[a]", "imagess", "my file", "profile", "filename"])
def test_other_fields_hold_no_images(field):
    assert images_of(form_of((field, "a.png"))) == []


def test_an_image_as_text_is_refused_in_every_field():
    for field in FIELDS:
        with pytest.raises(InvalidRequest, match="the image arrived as text"):
            images_of(form_of(("images", "a.png"), (field, "iVBORw0KGgo")))


def test_files_in_unknown_fields_are_counted_and_named(client, crop):
    others = [("pictures", "1.png", crop), ("pictures", "2.png", crop), ("imagesx", "3.png", crop)]
    said = (
        "3 files are not used: 2 in the field 'pictures', 1 in the field 'imagesx'; send images in the field 'images'"
    )
    fitted = send(client, "/fit_ok", [("images", "a.png", crop), *others])
    judged = send(client, "/infer", [("image", "a.png", crop), *others])
    stored = client.post(
        "/datasets/ok/upload", data=IDS, files=[(f, (n, c)) for f, n, c in [("images", "a.png", crop), *others]]
    )
    for reply in (fitted, judged, stored):
        assert reply.status_code == 200, reply.text
        assert said in reply.json()["warning"]
    assert bank_names(client) == ["a.png"]
    one = send(client, "/infer", [("image", "a.png", crop), others[0]])
    assert "1 file is not used: 1 in the field 'pictures'" in one.json()["warning"]


def test_an_upload_names_unknown_texts_and_else_has_no_warning(client, crop):
    files = [("images", ("a.png", crop, "image/png"))]
    assert "warning" not in client.post("/datasets/ok/upload", data={**IDS, "label": "ok"}, files=files).json()
    named = client.post("/datasets/ok/upload", data={**IDS, "recipe": "line 1"}, files=files).json()
    assert named["warning"] == "unknown and without effect: 'recipe' (did you mean recipe_id?)"


def test_a_file_input_that_nobody_filled_is_no_image(client, crop):
    blank = (
        '--b\r\nContent-Disposition: form-data; name="{}"; filename=""\r\n'
        "Content-Type: application/octet-stream\r\n\r\n\r\n"
    )
    texts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in {**IDS, "mm_per_px": "0.2"}.items()
    )
    image = '--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    form = (texts + blank.format("image") + blank.format("pictures") + image).encode() + crop + b"\r\n--b--\r\n"
    reply = client.post("/fit_ok", content=form, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.status_code == 200, reply.text
    assert "not used" not in reply.json().get("warning", "")
    assert bank_names(client) == ["a.png"]
