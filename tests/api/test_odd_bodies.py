"""Bodies of another kind than is expected, and forms that are written oddly: what is accepted, and what is told."""

import gzip

import numpy as np
import pytest

from tests.api.sending import IDS, SCORES, check_refusal, client_without_network
from tests.factories import encoded

PNG = encoded(np.full((20, 30, 3), 90, np.uint8))
FORMS = ["/fit_ok", "/infer", "/explain", "/datasets/ok/upload", "/datasets/ng/upload"]
JSONS = ["/calibrate_ng", "/calibrate_dataset", "/infer_dataset", "/rollback", "/drift/reset"]
FORM = "multipart/form-data; boundary=b"


def in_short(value):
    """The name of a case, however long or odd it is."""
    return ascii(value)[:40]


def part(name, content, rest=""):
    head = f"--b\r\nContent-Disposition: form-data; name={name}{rest}\r\n\r\n"
    return head.encode() + content + b"\r\n"


IMAGE = part("images", PNG, "; filename=a.png")
TEXTS = part("role_id", b"a") + part("roi_id", b"c")
END = b"--b--\r\n"
UPLOAD = TEXTS + IMAGE + END


def send(client, content, content_type=FORM, path="/datasets/ok/upload", **headers):
    kind = {"Content-Type": content_type} if content_type else {}
    return client.post(path, content=content, headers={**kind, **headers})


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    return client_without_network(tmp_path_factory.mktemp("odd") / "models")


@pytest.fixture
def stored(client):
    """Tells which images are stored, and begins with none."""
    ids = {"role_id": "a", "roi_id": "c"}
    assert client.delete("/datasets/clear", params={**ids, "label": "ok"}).status_code == 200
    return lambda: client.get("/datasets/list", params=ids).json()["classes"]["ok"]["files"]


# --- another kind of body


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        (b'{"role_id":"a"}', "application/json; charset=utf-8", "a body of application/json was received"),
        (PNG, "image/png", "a body of image/png was received"),
        (PNG, None, "a body without Content-Type was received"),
        (UPLOAD, "multipart/mixed; boundary=b", "a body of multipart/mixed was received"),
        (b"role_id=a&roi_id=b&mm_per_px=1", "application/x-www-form-urlencoded", "which contains no files"),
        (b"", FORM, "no body was received"),
        (b"", None, "no body was received"),
        (b"x", "x" * 5000, "a body of " + "x" * 100 + " was received"),
        (b"x", "tëxt/plain".encode(), r"a body of t\xc3\xabxt/plain was received"),
    ],
    ids=in_short,
)
def test_a_form_endpoint_names_the_body_it_got_and_wants(client, path, content, content_type, words):
    reply = send(client, content, content_type, path)
    check_refusal(reply, 422, words)
    assert "; send multipart/form-data with role_id, roi_id" in reply.json()["error"]
    assert reply.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize("path", JSONS)
@pytest.mark.parametrize(
    ("content", "content_type", "words"),
    [
        (UPLOAD, FORM, "a body of multipart/form-data was received"),
        (b"role_id=a&roi_id=b", "application/x-www-form-urlencoded", "a body of application/x-www-form-urlencoded was"),
        (b'{"role_id":"a"}', "text/plain", "a body of text/plain was received"),
        (b'{"role_id":"a"}', None, "a body without Content-Type was received"),
        (b"", "application/json", "no body was received"),
        (b"", None, "no body was received"),
    ],
    ids=in_short,
)
def test_a_json_endpoint_names_the_body_it_got_and_wants(client, path, content, content_type, words):
    reply = send(client, content, content_type, path)
    check_refusal(reply, 422, words)
    assert reply.json()["error"].endswith(
        "; send a JSON object in UTF-8, not compressed, with Content-Type: application/json"
    )
    assert reply.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize("path", JSONS)
@pytest.mark.parametrize("content", [b"[0.1]", b'"a"', b"1", b'{"role_id":', b"", b"{role_id:1}"], ids=str)
def test_what_is_no_json_object_is_told_so(client, path, content):
    reply = send(client, iter([content]), "application/json", path)  # in chunks, so that an empty one is a body
    check_refusal(reply, 422, "send a JSON object in UTF-8")
    assert reply.json()["code"] == "invalid_request"
    assert not reply.json()["error"][0].isdigit(), "no position stands for a field"


def test_an_urlencoded_form_may_ask_for_a_fit_of_stored_images(client):
    reply = client.post("/fit_ok", data={**IDS, "mm_per_px": 0.2, "use_dataset": "true"})
    check_refusal(reply, 422, "0 OK images are stored")


# --- compressed bodies


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip", "GZIP"])
@pytest.mark.parametrize("path", [*FORMS, *JSONS])
def test_a_compressed_body_is_refused_with_415(client, path, coding):
    kind, body = (FORM, UPLOAD) if path in FORMS else ("application/json", b"{}")
    reply = send(client, gzip.compress(body), kind, path, **{"Content-Encoding": coding})
    check_refusal(reply, 415, f"the body is compressed (Content-Encoding: {coding}); send it uncompressed")
    assert reply.json()["code"] == "unsupported_media_type"


def test_identity_is_no_compression(client):
    assert send(client, UPLOAD, **{"Content-Encoding": "identity"}).status_code == 200
    assert client.post("/calibrate_ng", json=SCORES, headers={"Content-Encoding": "Identity"}).status_code == 200


# --- forms as others write them


@pytest.mark.parametrize(
    "preamble",
    [
        b"This is a multipart message in MIME format.\r\n",
        b"\r\n",
        b"-- \r\n--\r\n--a\r\n--bb\r\n",
        b"--b is mentioned here\r\n",
        b"x" * 60_000 + b"\r\n",
    ],
    ids=in_short,
)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_preamble_is_left_out_however_it_arrives(client, stored, preamble, step):
    body = preamble + UPLOAD
    if step == 1 and len(preamble) > 1000:
        step = 3
    pieces = (body[start : start + step] for start in range(0, len(body), step))
    reply = send(client, pieces)
    assert reply.status_code == 200, reply.text
    (filename,) = stored()
    name = {"role_id": "a", "roi_id": "c", "label": "ok", "filename": filename}
    assert client.get("/datasets/file", params=name).content == PNG


def test_an_epilogue_is_left_out_too(client):
    assert send(client, UPLOAD + b"That was the form.\r\n" + UPLOAD).json()["files"][1:] == []


def test_another_boundary_than_the_header_names_is_told(client):
    for body in (UPLOAD.replace(b"--b", b"--c"), bytes(1 << 20), gzip.compress(UPLOAD)):
        check_refusal(send(client, body), 400, "the boundary 'b' of the Content-Type begins no line of the body")


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        ("multipart/form-data", "names no boundary"),
        ("multipart/form-data; boundary=", "names no boundary"),
        ('multipart/form-data; boundary=""', "names no boundary"),
        (f"multipart/form-data; boundary={'b' * 300}", "names a boundary of more than 256 bytes"),
    ],
)
def test_a_missing_or_overlong_boundary_is_told(client, content_type, words):
    check_refusal(send(client, UPLOAD, content_type), 400, words)


@pytest.mark.parametrize(
    "body",
    [
        UPLOAD.replace(b"\r\n", b"\n"),
        b"A preamble.\n" + UPLOAD.replace(b"\r\n", b"\n"),
        TEXTS.replace(b"role_id\r\n\r\n", b"role_id\n\n") + IMAGE + END,
        (TEXTS + IMAGE)[:-2] + b"\n" + END,
        (TEXTS + IMAGE)[:-2] + b"\n" + END[:-2],
    ],
    ids=["all", "all, after a preamble", "of a head", "before the end", "before the end, without a last line end"],
)
def test_lines_that_end_with_lf_are_told(client, stored, body):
    reply = send(client, body)
    check_refusal(reply, 400, "the lines of the form end with LF; end them with CRLF")
    assert stored() == []


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
@pytest.mark.parametrize("file", [PNG, b"", b"\r\n--", b"ends with CR\r"], ids=["image", "empty", "half", "cr"])
def test_lf_before_a_boundary_hides_no_part(client, stored, step, file):
    """To the parser the part behind it was content of the one before."""
    first = part("images", file, "; filename=a.png\r\nContent-Type: image/png")[:-2]
    body = TEXTS + first + b"\n" + part("metas", b"{}") + END
    pieces = (body[start : start + step] for start in range(0, len(body), step))
    reply = send(client, pieces)
    if file.endswith(b"\r"):  # that is CRLF
        assert reply.status_code == 415, reply.text
    else:
        check_refusal(reply, 400, "the lines of the form end with LF; end them with CRLF")
    assert stored() == []


@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_boundaries_behind_crlf_are_none_behind_lf_however_they_arrive(client, stored, step):
    content = PNG + b"\n--\n--c\r\n\n--bb\r\n\r--b\r\n"
    body = TEXTS + part("images", content, "; filename=a.png\r\nContent-Type: image/png") + END
    pieces = (body[start : start + step] for start in range(0, len(body), step))
    assert send(client, pieces).status_code == 200
    assert len(stored()) == 1


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"hello", b"A preamble.\r\n\xef\xbb\xbf"], ids=ascii)
def test_a_first_boundary_within_a_line_hides_no_part(client, stored, before):
    check_refusal(send(client, before + UPLOAD), 400, "the first boundary of the form does not begin a line")
    assert stored() == []


def test_a_damaged_head_of_a_part_is_told(client):
    for body in (b"--b\r\nno head\r\n\r\n" + END, b"--b\r\n\nx" + UPLOAD, part("x" * 5000, b"") + END):
        check_refusal(send(client, body), 400, "the headers of a part are damaged or too long")


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 9, len(END) + 1, len(END) + 60])
def test_a_missing_final_boundary_is_told(client, cut):
    reply = send(client, UPLOAD[:-cut])
    if cut <= 2:
        assert reply.status_code == 200, "only the end of the last line is missing"
    else:
        check_refusal(reply, 400, "its closing boundary is missing")


@pytest.mark.parametrize(
    "content_type", ["binary/octet-stream", "application/octet-stream", "Binary/Octet-Stream; x=y"]
)
def test_bytes_of_no_declared_kind_may_be_an_image(client, content_type):
    body = TEXTS + part("images", PNG, f"; filename=a.png\r\nContent-Type: {content_type}") + END
    assert send(client, body).status_code == 200
