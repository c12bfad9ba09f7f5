"""Requests with a mistake, each of which gets an error and changes nothing."""

import gzip
import json

import numpy as np

from harness.contract.client import Client, Step, texts_of
from harness.contract.generations import ROI, image
from harness.contract.pictures import crop, encoded, part
from harness.gui import Gui, Part, Reply, multipart_body

_SCORES = '{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":['


def _infer(**changed: str) -> Step:
    """An inference of a fitted ROI with other texts."""

    def send(client: Client) -> Reply:
        gui = client.gui()
        parts = {one.name: one for one in [*gui.roi("Book", "Pattern"), *texts_of(**changed)]}
        return gui.multipart("/infer", [*parts.values(), image(crop(0))])

    return send


def _shape(shape: str) -> Step:
    return _infer(shape=shape)


def _image(content: bytes, filename: str = "part7.png", kind: str = "image/png") -> Step:
    return lambda client: client.gui().multipart(
        "/infer", [*client.gui().roi("Book", "Pattern"), image(content, "image", kind, filename)]
    )


def _scores(scores: str, rest: str = "") -> Step:
    return lambda client: client.gui().chunked_json("/calibrate_ng", f"{_SCORES}{scores}]{rest}}}")


def _body(path: str, body: bytes, content_type: str = "application/json") -> Step:
    return lambda client: client.gui().send("POST", path, body, {"Content-Type": content_type} if content_type else {})


def _fit(*images: bytes, **texts: str) -> Step:
    return lambda client: client.gui().fit("Book", "Pattern", list(images), **texts)


def _cut(n_bytes: int) -> Step:
    def send(client: Client) -> Reply:
        body, headers = multipart_body([*client.gui().roi("Book", "Pattern"), image(crop(0), "images")])
        return client.gui().send("POST", "/fit_ok", body[:-n_bytes], headers)

    return send


def _form(*parts: Part) -> Step:
    return lambda client: client.gui().multipart("/infer", [*client.gui().roi("Book", "Pattern"), *parts])


def _named(gui: Gui, name: str) -> Reply:
    return gui.multipart("/fit_ok", [*gui.roi("Book", "Pattern"), image(crop(0)[:400], "images", filename=name)])


def _query(path: str, **query: str) -> Step:
    return lambda client: client.gui().ask(path, **query)


_LONG = "x" * 300
# What is refused while it arrives is much larger than allowed. Of less, the rest may be there by then or not, and with
# it the header `Connection: close`.
_MIB = 1 << 20
_GREY = np.asarray(part(0)[..., 0], np.uint8)

FIELDS: dict[str, Step] = {
    "no ids": lambda client: client.gui().multipart("/infer", [image(crop(0))]),
    "no mm_per_px": lambda client: client.gui().multipart("/infer", [*client.gui().roi("a", "b")[:2], image(crop(0))]),
    "no form": _body("/infer", b"", ""),
    "a form in a line": _body("/fit_ok", b"role_id=a&roi_id=b&mm_per_px=1", "application/x-www-form-urlencoded"),
    "a form that is JSON": _body("/fit_ok", b'{"role_id":"a"}'),
    "a form without boundary": _body("/fit_ok", b"x", "multipart/form-data"),
    "a form of another charset": _body("/infer", b"--x--", "multipart/form-data; boundary=x; charset=utf-7"),
    "a form with garbage": _body("/infer", b"--x\r\nno header\r\n\r\n--x--", "multipart/form-data; boundary=x"),
    "an empty role": _infer(role_id=""),
    "a long roi": _infer(roi_id=_LONG),
    "an id that is long once encoded": _infer(role_id="é" * 120),
    "traversal in the role": _infer(role_id="../..", roi_id="../../etc/passwd"),
    "a NUL in the role": _infer(role_id="a\0b"),
    "a long model_key": _infer(recipe_id="r", model_key=_LONG),
    "a long recipe": _infer(recipe_id="r" * 1001),
    **{
        f"mm_per_px {text}": _infer(mm_per_px=text)
        for text in ("0", "-1", "NaN", "Infinity", "0,2", "fine", "1e-300", "")
    },
    "no JSON for a shape": _shape("{kind:rect"),
    "an unknown shape": _shape('{"kind":"star"}'),
    "a list for a shape": _shape("[1]"),
    "a shape with NaN": _shape('{"kind":"circle","cx":NaN,"cy":1,"r":2}'),
    "a shape of infinite size": _shape('{"kind":"rect","x":0,"y":0,"w":1e999,"h":5}'),
    "a shape of negative size": _shape('{"kind":"rect","x":0,"y":0,"w":-5,"h":5}'),
    "a ring inside out": _shape('{"kind":"annulus","cx":75,"cy":60,"r":20,"r_inner":40}'),
    "a shape beside the image": _shape('{"kind":"rect","x":900,"y":0,"w":5,"h":5}'),
    "a shape that lacks a number": _shape('{"kind":"circle","cx":75,"cy":60}'),
    "a shape of a long kind": _shape(json.dumps({"kind": "k" * 5000})),
    "bad memory_fit": _fit(crop(0), memory_fit="perhaps"),
    "bad shape of a fit": _fit(crop(0), shape="{}"),
    "too many texts": _form(*texts_of(**{f"x{n}": "y" for n in range(70)})),
    "a text of 1 MB": _form(Part("shape", b"x" * _MIB)),
    "no query": _query("/state"),
    "half a query": _query("/manifest", role_id="a"),
    "a long id in a query": _query("/bank", role_id=_LONG, roi_id="b"),
    "no label": _query("/datasets/file", role_id="a", roi_id="b", filename="c.png"),
    "traversal in a query": _query("/versions", role_id="../..", roi_id="%2e%2e/etc"),
}

IMAGES: dict[str, Step] = {
    "an empty image": _image(b""),
    "a text for an image": _image(b"hello, this is no image"),
    "a program for an image": _image(b"MZ\x90\x00" + bytes(400), "setup.png"),
    "a GIF": _image(b"GIF89a" + bytes(99), "part7.gif"),
    "a TIFF": _image(encoded(part(0), ".tiff"), "part7.tiff"),
    "a truncated PNG": _image(crop(0)[: len(crop(0)) // 2]),
    "a PNG without its end": _image(crop(0)[:-50]),
    "a truncated JPEG": _image(encoded(part(0), ".jpg")[:900], "part7.jpg", "image/jpeg"),
    "a PNG of a type that is none": _image(crop(0), "a.exe", "application/x-msdownload"),
    "a PNG as a page": _image(crop(0), "a.html", "text/html"),
    "a grey PNG": _image(encoded(_GREY)),
    "a PNG of 16 bits": _image(encoded(_GREY.astype(np.uint16) * 257)),
    "a PNG of another size": _image(encoded(np.asarray(part(0)[:50, :33], np.uint8))),
    "a name in another script": _image(b"no image", "=?utf-8?B?0L7QsdGA0LDQt9C10YYucG5n?="),
    "two images": _form(image(crop(0)), image(crop(1))),
    "an image and a file": _form(image(crop(0)), image(crop(1), "file")),
    "thirty images": _form(*[image(crop(0))] * 30),
    "no image": _form(),
    "an image as a text": _form(Part("image", b"abc")),
    "a fit without images": _fit(),
    "a fit with a broken image": _fit(crop(0), crop(1)[:-200], crop(2)),
    "a fit with a text": _fit(crop(0), b"no image"),
    "a fit with an empty image": _fit(b""),
    "a fit whose broken image has a name that says success": lambda client: _named(client.gui(), "already exists.png"),
    "a fit whose broken image has another such name": lambda client: _named(client.gui(), "YA ENTRENADA.png"),
    **{f"a fit that is cut by {n_bytes} bytes": _cut(n_bytes) for n_bytes in (2000, 70, 3)},
}

JSON: dict[str, Step] = {
    "no scores": _scores(""),
    "scores missing": _body("/calibrate_ng", b'{"role_id":"a","roi_id":"b","mm_per_px":1}'),
    **{
        f"a score that is {text[:20]}": _scores(text)
        for text in ("NaN", "-Infinity", "1e308", "1e999", "true", '"0.5"', "null", "1" * 5000, "[]")
    },
    "many bad scores": _scores(",".join(["null"] * 1000), ',"ng_scores":["0.5"],"mm_per_px":true'),
    "a percentile of 0": _scores("1", ',"score_percentile":0'),
    "a percentile of 101": _scores("1", ',"score_percentile":101'),
    "a negative area": _scores("1", ',"area_mm2_thr":-1'),
    "a rate of 1": _scores("1", ',"target_false_reject_rate":1'),
    "half a character": _scores("0.1", ',"model_key":"\\ud800"'),
    "scores without a content type": _body("/calibrate_ng", b'{"role_id":"a"}', ""),
    "scores as a form": _body("/calibrate_ng", b"--x--", "multipart/form-data; boundary=x"),
    "compressed scores": _body("/calibrate_ng", gzip.compress(b"{}")),
    "scores in a list": _body("/calibrate_ng", b"[0.1, 0.2]"),
    "scores in UTF-16": _body("/calibrate_ng", "{}".encode("utf-16")),
    "scores behind a byte order mark": _body("/calibrate_ng", b"\xef\xbb\xbf" + f"{_SCORES}0.5]}}".encode()),
    "broken JSON": _body("/calibrate_ng", b'{"role_id":'),
    "no JSON": _body("/calibrate_ng", b""),
    "deep JSON": _body("/calibrate_ng", f"{_SCORES}{'[' * 50_000}{']' * 50_000}]}}".encode()),
    "three million values": _body("/calibrate_ng", f"{_SCORES}{'1,' * 3_000_000}1]}}".encode()),
    "broken JSON for a dataset": _body("/calibrate_dataset", b'{"role_id":'),
    "a dataset without a content type": _body("/infer_dataset", b"{}", ""),
    "a bad percentile for a dataset": lambda client: client.json(
        "/calibrate_dataset", {**ROI, "score_percentile": 99.5}
    ),
    "bad require_ng": lambda client: client.json("/calibrate_dataset", {**ROI, "require_ng": "yes"}),
    "bad labels": lambda client: client.json("/infer_dataset", {**ROI, "labels": ["ok", "worst"]}),
    "bad default_mm_per_px": lambda client: client.json("/infer_dataset", {**ROI, "default_mm_per_px": "0.2"}),
    "no ids in JSON": lambda client: client.json("/rollback", {}),
    "2 MB of JSON": _body("/rollback", json.dumps({"x": "y" * 2 * _MIB}).encode()),
    "deep JSON for a version": _body("/rollback", b"[" * 50_000 + b"]" * 50_000),
    "traversal in JSON": lambda client: client.json("/rollback", {"role_id": "../..", "roi_id": ".."}),
}


def _raw(request: bytes) -> Step:
    return lambda client: client.raw(request)


RAW: dict[str, Step] = {
    "no HTTP": _raw(b"GET / HTTP/1.1\r\nX-API-Key secret\r\n\x00\r\n\r\n"),
    "a head without end": _raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000),
    "a target that is no path": _raw(b"GET nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a length that is none": _raw(b"POST /calibrate_ng HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n"),
    "a huge length": _raw(
        b"POST /rollback HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\nConnection: close\r\n\r\n{}"
    ),
    "a wish for another protocol": _raw(
        b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
        b"Upgrade: h2c\r\nX-Request-Id: up\r\n\r\n"
    ),
}
