"""Every error is {"error", "trace", "code"} with a fitting status, tells what to do, and changes nothing on disk."""

import base64
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.api.schemas.inspection import InferReply
from backend.network.weights import Weights
from harness.gui import Gui, Part, Reply, image_parts, multipart_body
from harness.server import Server, uvicorn_command
from tests.integration.conftest import running

Send = Callable[[Gui, bytes], Reply]


def png(width: int, height: int) -> bytes:
    return cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))[1].tobytes()


def calibrate_raw(text: str) -> Send:
    return lambda gui, _: gui.chunked_json("/calibrate_ng", text)


def roi_with(**changed: str) -> Send:
    def send(gui: Gui, crop: bytes) -> Reply:
        parts = {part.name: part for part in gui.roi("Shared", "Fitted")}
        parts |= {name: Part(name, text.encode()) for name, text in changed.items()}
        return gui.multipart("/infer", [*parts.values(), Part("image", crop, "image/png", "crop.png")])

    return send


def image_of(content: bytes, filename: str = "part7.png", content_type: str = "image/png") -> Send:
    def send(gui: Gui, _: bytes) -> Reply:
        return gui.multipart("/infer", [*gui.roi("Shared", "Fitted"), Part("image", content, content_type, filename)])

    return send


ERRORS: dict[str, tuple[Send, int, str]] = {
    "an unknown path": (lambda gui, _: gui.get("/nowhere"), 404, "unknown path"),
    "an unknown path of several parts": (lambda gui, _: gui.get("/datasets/ok/list"), 404, "path /datasets/ok/list;"),
    "a path with a slash too many": (lambda gui, _: gui.get("/health/"), 404, "unknown path"),
    "a wrong method": (lambda gui, _: gui.get("/infer"), 405, "GET is not allowed on /infer; use POST"),
    "a missing field": (
        lambda gui, crop: gui.multipart("/infer", [Part("image", crop, "image/png", "a.png")]),
        422,
        "role_id: it is missing",
    ),
    "no form at all": (lambda gui, _: gui.send("POST", "/infer", b"", {}), 422, "role_id"),
    "a form without boundary": (
        lambda gui, _: gui.send("POST", "/fit_ok", b"x", {"Content-Type": "multipart/form-data"}),
        400,
        "boundary",
    ),
    "an empty role": (roi_with(role_id=""), 422, "role_id"),
    "a long roi": (roi_with(roi_id="x" * 300), 422, "roi_id"),
    "mm_per_px whose square is no number": (roi_with(mm_per_px="1e-300"), 422, "mm_per_px"),
    "zero mm_per_px": (roi_with(mm_per_px="0"), 422, "mm_per_px"),
    "negative mm_per_px": (roi_with(mm_per_px="-1"), 422, "mm_per_px"),
    "NaN mm_per_px": (roi_with(mm_per_px="NaN"), 422, "mm_per_px"),
    "infinite mm_per_px": (roi_with(mm_per_px="Infinity"), 422, "mm_per_px"),
    "a comma in mm_per_px": (roi_with(mm_per_px="0,2"), 422, "mm_per_px"),
    "words for mm_per_px": (roi_with(mm_per_px="fine"), 422, "mm_per_px"),
    "a shape that is no JSON": (roi_with(shape="{kind:rect"), 422, "shape"),
    "an unknown shape": (roi_with(shape='{"kind":"star"}'), 422, "star"),
    "a shape with NaN": (roi_with(shape='{"kind":"circle","cx":NaN,"cy":1,"r":2}'), 422, "shape"),
    "a shape beside the image": (
        roi_with(shape='{"kind":"rect","x":900,"y":0,"w":5,"h":5}'),
        422,
        "selects no pixel",
    ),
    "a ROI never fitted": (roi_with(roi_id="Nobody"), 400, "Memoria no encontrada"),
    "an empty file": (image_of(b""), 400, "part7.png: the file is empty"),
    "a text file": (image_of(b"hello, I am no image"), 415, "part7.png"),
    "an executable": (image_of(b"MZ\x90\x00" + bytes(400), "setup.png"), 415, "setup.png"),
    "an executable by type": (image_of(png(9, 9), "a.exe", "application/x-msdownload"), 415, "a.exe"),
    "a page by type": (image_of(png(9, 9), "a.html", "text/html"), 415, "text/html"),
    "a truncated image": (lambda gui, crop: image_of(crop[: len(crop) // 2])(gui, crop), 400, "truncated or damaged"),
    "two images": (
        lambda gui, crop: gui.multipart(
            "/infer", [*gui.roi("Shared", "Fitted"), *[Part("image", crop, "image/png", "a.png")] * 2]
        ),
        422,
        "exactly one image",
    ),
    "an image sent as text": (
        lambda gui, crop: gui.multipart("/infer", [*gui.roi("Shared", "Fitted"), Part("image", b"abc")]),
        422,
        "file name",
    ),
    "a fit without images": (lambda gui, _: gui.fit("Shared", "Empty", []), 422, "no images"),
    "a bad memory_fit": (lambda gui, crop: gui.fit("Shared", "Empty", [crop], memory_fit="perhaps"), 422, "memory_fit"),
    "no scores": (
        calibrate_raw('{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":[]}'),
        422,
        "ok_scores",
    ),
    "scores missing": (calibrate_raw('{"role_id":"a","roi_id":"b","mm_per_px":1}'), 422, "ok_scores: it is missing"),
    "NaN among the scores": (
        calibrate_raw('{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":[NaN]}'),
        422,
        "ok_scores.0",
    ),
    "a percentile of 0": (
        calibrate_raw('{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":[1],"score_percentile":0}'),
        422,
        "score_percentile",
    ),
    "a negative area": (
        calibrate_raw('{"role_id":"a","roi_id":"b","mm_per_px":1,"ok_scores":[1],"area_mm2_thr":-1}'),
        422,
        "area_mm2_thr",
    ),
    "scores without a content type": (
        lambda gui, _: gui.send("POST", "/calibrate_ng", b'{"role_id":"a"}', {}),
        422,
        "Content-Type: application/json",
    ),
    "compressed scores": (
        lambda gui, _: gui.send("POST", "/calibrate_ng", gzip.compress(b"{}"), {"Content-Type": "application/json"}),
        400,
        "not compressed",
    ),
    "scores in a list": (calibrate_raw("[0.1, 0.2]"), 422, "send a JSON object"),
    "broken JSON": (calibrate_raw('{"role_id":'), 422, "JSON"),
}


def test_every_error_says_what_to_send(gui: Gui) -> None:
    garbage = {"Content-Type": 'multipart/form-data; boundary="x"'}
    reply = gui.send("POST", "/infer", b"--x\r\nno header\r\n\r\n--x--", garbage)
    assert reply.status == 400
    assert "multipart/form-data with role_id, roi_id, mm_per_px and one image" in reply.json["error"]


def test_a_wrong_method_names_all_that_the_path_is_served_with(gui: Gui) -> None:
    for method, status in (("POST", 405), ("OPTIONS", 204)):
        reply = gui.send(method, "/datasets/file")
        assert (reply.status, reply.headers["allow"]) == (status, "DELETE, GET")
    assert gui.send("POST", "/openapi.json").headers["allow"] == "GET, HEAD"


def test_many_problems_are_a_short_answer(gui: Gui) -> None:
    scores = ",".join(["null"] * 100_000)
    reply = gui.send(
        "POST",
        "/calibrate_ng",
        f'{{"role_id":"","roi_id":"b","mm_per_px":true,"ok_scores":[{scores}],"ng_scores":["0.5"]}}'.encode(),
        {"Content-Type": "application/json"},
    )
    assert reply.status == 422
    assert reply.json["error"].count("ok_scores.") == 1
    assert all(f"{field}: " in reply.json["error"] for field in ("role_id", "mm_per_px", "ng_scores.0"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_shape(reply: Reply, status: int, phrase: str) -> None:
    assert reply.status == status, reply.content
    body = reply.json
    assert set(body) == {"error", "trace", "code"}
    assert phrase in body["error"]
    assert body["trace"]
    assert not any(folder in reply.content.decode() for folder in (str(Path(__file__).parents[2]), sys.prefix))
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_the_contracts_error_and_changes_nothing(
    server: Server, fitted: tuple[str, str], crops: list[bytes], name: str
) -> None:
    send, status, phrase = ERRORS[name]
    before = files_below(server.models)
    check_shape(send(server.gui, crops[0]), status, phrase)
    assert files_below(server.models) == before


@pytest.mark.parametrize("broken", [b"", b"not an image", None], ids=["empty", "text", "truncated"])
def test_one_broken_image_fails_the_fit_by_name_and_keeps_the_old_model(
    server: Server, crops: list[bytes], broken: bytes | None
) -> None:
    """The whole fit is refused, the error names the broken image, and no file of the old model changes."""
    gui = server.gui
    assert gui.fit("Shared", "Kept", crops[:1]).status == 200
    before = files_below(server.models)
    reply = gui.fit("Shared", "Kept", [crops[1], crops[2][:-200] if broken is None else broken, crops[0]])
    check_shape(reply, 415 if broken == b"not an image" else 400, "ok_1.png")
    assert files_below(server.models) == before


@pytest.mark.parametrize(
    "cut", [2000, 70, 6, 3], ids=["in an image", "in the end of an image", "the end", "its dashes"]
)
def test_an_upload_that_was_cut_short_is_refused_and_leaves_the_old_model(
    server: Server, crops: list[bytes], cut: int
) -> None:
    assert server.gui.fit("Shared", "Cut", crops[:1]).status == 200
    before = files_below(server.models)
    body, headers = multipart_body([*server.gui.roi("Shared", "Cut"), *image_parts(crops[1:3])])
    check_shape(server.gui.send("POST", "/fit_ok", body[:-cut], headers), 400, "upload is incomplete")
    assert files_below(server.models) == before
    assert server.gui.send("POST", "/fit_ok", body, headers).status == 200


def test_a_damaged_calibration_is_replaced_by_the_next_one(server: Server, crops: list[bytes]) -> None:
    gui = server.gui
    assert gui.fit("Shared", "Calibration", crops[:1]).status == 200
    (server.models / "Shared" / "Calibration" / "calib.json").write_text('{"thresh')
    check_shape(gui.infer("Shared", "Calibration", crops[1]), 500, "calibrate this ROI again")
    assert gui.calibrate("Shared", "Calibration", [0.3], None).status == 200
    assert gui.infer("Shared", "Calibration", crops[1]).json["threshold"] == 0.3


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    """A shared deployment: tight limits, no traces, one origin for browsers."""
    limits = {
        "MAX_FILE_MB": "0.05",
        "MAX_REQUEST_MB": "0.2",
        "MAX_JSON_MB": "0.1",
        "MAX_PIXELS": "90000",
        "MAX_FILES": "2",
    }
    shared = {
        "TRACE": "false",
        "CORS_ORIGINS": "https://gui.example",
        "INPUT_SIZE": "100",
        "CORESET_RATE": "0.5",
        "BLOCK": "10",
    }
    with running(uvicorn_command, tmp_path_factory.mktemp("strict"), weights, **limits, **shared) as server:
        yield server


def test_limits_are_413_or_422_with_an_empty_trace(strict: Server) -> None:
    gui, small = strict.gui, png(60, 60)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    large_file = cv2.imencode(".bmp", noise)[1].tobytes()
    replies = {
        "bytes": (gui.fit("A", "B", [large_file]), 413, "ok_0.png: at most 52428 bytes"),
        "pixels": (gui.fit("A", "B", [png(301, 300)]), 413, "301x300 pixels"),
        "body": (gui.fit("A", "B", [large_file, large_file]), 413, "MAX_REQUEST_MB"),
        "chunked body": (gui.chunked_json("/calibrate_ng", '{"a":"' + "x" * 110_000 + '"}'), 413, "MAX_JSON_MB"),
    }
    for reply, status, phrase in replies.values():
        assert reply.status == status, reply.content
        assert set(reply.json) == {"error", "trace", "code"}
        assert phrase in reply.json["error"]
        assert reply.json["trace"] == ""
    too_many = gui.fit("A", "B", [small] * 3)
    assert too_many.status == 400, too_many.content
    assert "Too many files" in too_many.json["error"]
    assert not strict.models.exists()


def test_settings_reach_the_service(strict: Server) -> None:
    health = strict.gui.get("/health").json
    assert (health["input_size"], health["token_shape"], health["block"]) == (98, [7, 7], 10)
    reply = strict.gui.fit("A", "B", [png(60, 60)])
    assert (reply.json["n_embeddings"], reply.json["coreset_size"]) == (49, 25)
    allowed = strict.gui.send("GET", "/health", headers={"Origin": "https://gui.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://gui.example"
    refused = strict.gui.send("GET", "/health", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in refused.headers


def test_browsers_are_told_who_may_call(strict: Server) -> None:
    def preflight(origin: str) -> Reply:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return strict.gui.send("OPTIONS", "/infer", headers=asked)

    allowed, refused = preflight("https://gui.example"), preflight("https://other.example")
    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, "https://gui.example")
    assert refused.status == 400
    assert "CORS_ORIGINS" in refused.json["error"]
    assert refused.headers["x-request-id"]
    assert "access-control-allow-origin" not in refused.headers


def test_openapi_errors_have_examples_in_the_shape_of_the_contract(gui: Gui) -> None:
    """All errors that the OpenAPI document lists have such examples, and those of inference are valid replies."""
    paths = gui.get("/openapi.json").json["paths"]
    assert {"/health", "/fit_ok", "/calibrate_ng", "/infer", "/metrics"} <= set(paths)
    for path in ("/fit_ok", "/calibrate_ng", "/infer"):
        responses = paths[path]["post"]["responses"]
        errors = {status: reply for status, reply in responses.items() if status[0] in "45"}
        assert {"413", "422", "500"} <= set(errors)
        for reply in errors.values():
            examples = reply["content"]["application/json"]["examples"]
            assert examples
            assert all(set(example["value"]) == {"error", "trace", "code"} for example in examples.values())
    shown = paths["/infer"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
    for example in shown.values():
        reply = InferReply.model_validate(example["value"])
        assert cv2.imdecode(np.frombuffer(base64.b64decode(reply.heatmap_png_base64), np.uint8), 0) is not None


def test_the_examples_of_errors_are_what_the_service_says(
    gui: Gui, fitted: tuple[str, str], crops: list[bytes]
) -> None:
    responses = gui.get("/openapi.json").json["paths"]["/infer"]["post"]["responses"]
    examples = {
        (int(status), example["value"]["error"])
        for status, response in responses.items()
        for example in response["content"]["application/json"]["examples"].values()
        if status != "200"
    }
    image = Part("image", crops[0], "image/png", "part7.png")
    provoked = [
        roi_with(mm_per_px="0")(gui, crops[0]),
        gui.multipart("/infer", [*gui.roi("", "")[1:], image]),
        gui.infer("Master1", "Pattern", crops[0]),
        image_of(b"")(gui, crops[0]),
        image_of(crops[0][:-50])(gui, crops[0]),
        image_of(b"GIF89a" + bytes(99), "part7.gif")(gui, crops[0]),
        roi_with(shape='{"kind":"circle","cx":-900,"cy":0,"r":1}')(
            gui, cv2.imencode(".png", np.zeros((256, 256, 3), np.uint8))[1].tobytes()
        ),
    ]
    for reply in provoked:
        first = reply.json["error"].split("; roi_id")[0]
        assert (reply.status, first) in examples, reply.json["error"]


def test_the_docs_page_needs_no_other_server(gui: Gui) -> None:
    page = gui.get("/docs")
    assert page.status == 200
    assert b"https://" not in page.content
    assert gui.get("/static-offline-docs/swagger-ui-bundle.js").status == 200


def test_fit_errors_hold_no_phrase_that_clients_take_for_success(gui: Gui) -> None:
    """A file name with such a phrase is quoted with the phrase replaced."""
    parts = [*gui.roi("A", "B"), Part("images", b"no", "image/png", "already_exists.png")]
    parts[-1].filename = '"memory already exists.png"'
    reply = gui.multipart("/fit_ok", parts)
    assert reply.status == 415
    assert b"already exists" not in reply.content
    assert "memory is there before.png" in json.loads(reply.content)["error"]
