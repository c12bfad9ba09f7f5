"""The workflow of the newest GUI generation, byte for byte as it writes it: from stored images to decisions."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.network.weights import Weights
from harness.gui import (
    CALIBRATION,
    DATASET_CALIBRATION,
    DATASET_INFERENCE,
    FIT,
    HEAD_INFERENCE,
    HEALTH,
    SEED_INFERENCE,
    STATE,
    Gui,
    Head,
    Part,
    Reply,
    meta,
)
from harness.server import Server, gunicorn_command, serve_command
from tests.integration.conftest import HALF, PICKS_OF_TEN, SIDE, TOKENS, running

SHAPES = {
    "rect": '{"kind":"rect","x":0,"y":0,"w":300,"h":240}',
    "circle": '{"kind":"circle","cx":150,"cy":120,"r":120}',
    "annulus": '{"kind":"annulus","cx":150,"cy":120,"r":119.5,"r_inner":40.5}',
}
MISREAD = ("already trained", "already exists", "ya entrenad", "memoria existente")
NOT_FITTED = ("memory not found", "run /fit_ok first", "not fitted")


def head_of(server: Server, layout: str) -> Head:
    return Head(server.gui.host, server.gui.port, layout=layout)


def variants(crop: bytes, count: int) -> list[bytes]:
    """Crops of one part that differ a little, as one after the other on a line: BGRA PNG."""
    image = cv2.imdecode(np.frombuffer(crop, np.uint8), cv2.IMREAD_UNCHANGED)
    shifted = [np.roll(image, number, axis=1) for number in range(count)]
    return [cv2.imencode(".png", variant)[1].tobytes() for variant in shifted]


def list_of(head: Head, role: str, roi: str) -> dict:
    classes = head.ask("/datasets/list", role_id=role, roi_id=roi).json["classes"]
    for label in ("ok", "ng"):
        assert type(classes[label]["count"]) is int
        assert classes[label]["count"] == len(classes[label]["files"]) == len(classes[label]["meta"])
    return classes


def only_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ok_crops(crops: list[bytes]) -> list[bytes]:
    return variants(crops[0], 10)


def test_from_the_first_upload_to_a_decision(server: Server, crops: list[bytes], ok_crops: list[bytes]) -> None:
    head = head_of(server, "My Layout 1")
    role, roi = "Master1", "Pattern"
    assert [head.send("OPTIONS", path).status for path in ("/fit_ok", "/calibrate_ng", "/infer")] == [204] * 3
    assert head.send("OPTIONS", "/nowhere").status == 404
    health = head.get("/health").read(HEALTH)
    assert (health["status"], health["recipe_id"]) == ("ok", "my layout 1")

    before = head.infer(role, roi, crops[2])
    assert before.status == 400
    assert any(phrase in before.json["error"].lower() for phrase in NOT_FITTED)
    assert b"Memoria no encontrada" in before.content
    state = head.ask("/state", role_id=role, roi_id=roi, model_key=roi).read(STATE)
    assert (state["memory_fitted"], state["calib_present"], state["recipe_id"]) == (False, False, "my layout 1")

    ok_metas = [meta(role, roi, "ok", f"shot_{n}.png", shape=SHAPES["circle"]) for n in range(10)]
    uploaded = head.upload(role, roi, "ok", ok_crops, ok_metas)
    assert uploaded.status == 200, uploaded.content
    names = uploaded.json["files"]
    ng = head.upload(role, roi, "ng", crops[1:4], [meta(role, roi, "ng", f"bad_{n}.png") for n in range(3)])
    assert ng.status == 200, ng.content
    classes = list_of(head, role, roi)
    assert classes["ok"]["files"] == names
    assert classes["ok"]["meta"] == dict.fromkeys(names, True)
    assert classes["ng"]["count"] == 3
    for name, crop, sent in zip(names, ok_crops, ok_metas, strict=True):
        file = head.ask("/datasets/file", role_id=role, roi_id=roi, label="ok", filename=name)
        assert (file.content, file.headers["content-type"]) == (crop, "image/png")
        read = head.ask("/datasets/meta", role_id=role, roi_id=roi, label="ok", filename=name)
        assert read.json == json.loads(sent)

    # The GUI asks for the health every 2 s, also while a fit runs.
    waits: list[float] = []
    fitting = threading.Event()

    def poll() -> None:
        while not fitting.is_set():
            start = time.monotonic()
            assert head.get("/health").read(HEALTH)["status"] == "ok"
            waits.append(time.monotonic() - start)
            fitting.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(poll)
        fit = head.fit_dataset(role, roi)
        fitting.set()
        polling.result()
    assert fit.status == 200, fit.content
    assert fit.read(FIT) == {"n_embeddings": 10 * TOKENS, "coreset_size": PICKS_OF_TEN, "token_shape": [SIDE, SIDE]}
    assert len(waits) > 1
    assert max(waits) < 2, "answered before the next question comes"

    uncalibrated = head.infer(role, roi, crops[2]).read(HEAD_INFERENCE)
    assert (uncalibrated["threshold"], uncalibrated["decision"], uncalibrated["regions"]) == (None, None, [])
    assert uncalibrated["recipe_id"] == "my layout 1"
    body = f'{{"role_id":"{role}","roi_id":"{roi}","default_mm_per_px":0.2,"score_percentile":99,"area_mm2_thr":1}}'
    reply = head.chunked_json("/calibrate_dataset", body)
    assert reply.status == 200, reply.content
    calibration = reply.read(DATASET_CALIBRATION)
    assert (calibration["n_ok"], calibration["n_ng"], calibration["score_percentile"]) == (10, 3, 99)
    assert "not in the fit" not in reply.json.get("warning", ""), "their scores are those by the other images"
    state = head.ask("/state", role_id=role, roi_id=roi, model_key=roi).read(STATE)
    assert (state["memory_fitted"], state["calib_present"], state["status"]) == (True, True, "ok")
    manifest = head.ask("/manifest", role_id=role, roi_id=roi).json
    assert (manifest["memory"], manifest["datasets"]["classes"]["ok"]["count"]) == (True, 10)
    assert manifest["calib"]["threshold"] == calibration["threshold"]

    for shape in SHAPES.values():
        for crop, expected in ((ok_crops[3], "ok"), (crops[2], "ng")):
            judged = head.infer(role, roi, crop, shape).read(HEAD_INFERENCE)
            assert judged["threshold"] == calibration["threshold"]
            assert judged["decision"] == expected
            assert (judged["score"] >= judged["threshold"]) == (expected == "ng")
    sent = json.dumps({"role_id": role, "roi_id": roi, "labels": ["ng", "ok"], "include_heatmap": True})
    run = head.chunked_json("/infer_dataset", sent[:-1] + ',"default_mm_per_px":1E-05}')
    assert run.status == 200, run.content
    judgements = run.read(DATASET_INFERENCE)
    assert (judgements["n_total"], judgements["n_errors"], judgements["status"]) == (13, 0, "ok")
    assert [item["label"] for item in judgements["items"]] == ["ng"] * 3 + ["ok"] * 10
    single = head.infer(role, roi, ok_crops[0], SHAPES["circle"])
    first_ok = run.json["items"][3]
    for name in ("score", "threshold", "decision", "regions", "heatmap_png_base64"):
        assert first_ok[name] == single.json[name], name
    assert {item["mm_per_px"] for item in judgements["items"]} == {0.2}


def test_the_default_recipe_serves_the_oldest_clients_beside_the_newest(server: Server, crops: list[bytes]) -> None:
    seed, head = server.gui, head_of(server, "Line 7")
    fitted = seed.fit("Master1", "Both", crops[:1], field="images[{}]")
    assert fitted.status == 200, fitted.content
    folder = server.models / "Master1" / "Both"
    stored = only_files(folder)
    fallback = head.infer("Master1", "Both", crops[2])
    assert fallback.json["model"] == {
        "role_id": "Master1",
        "recipe_id": "default",
        "model_key": "Both",
        "layout": "current",
        "memory_id": fitted.json["memory_id"],
    }
    own = head.fit("Master1", "Both", crops[1:2], model_key="Both")
    assert own.status == 200, own.content
    assert head.infer("Master1", "Both", crops[2]).json["model"]["recipe_id"] == "line 7"
    assert only_files(folder) == stored
    reply = seed.infer("Master1", "Both", crops[2])
    assert reply.read(SEED_INFERENCE)["threshold"] == 0
    assert reply.json["score"] == fallback.json["score"]
    assert head.calibrate("Master1", "Both", [0.1], None, score_percentile=99).read(CALIBRATION)["ng_mean"] == 0
    assert "threshold" not in seed.infer("Master1", "Both", crops[2]).json


def test_a_recipe_keeps_its_scale_and_calls_without_one_do_not(server: Server, crops: list[bytes]) -> None:
    head, twin, seed = head_of(server, "Scale A"), head_of(server, "scale a "), server.gui
    first = head.upload("Master1", "Scaled", "ok", crops[:1], [meta("Master1", "Scaled", "ok", "a.png", 1e-05)])
    assert first.status == 200, first.content
    before = only_files(server.models / "@recipes")
    refused = [
        head.fit("Master1", "Scaled", crops[:1]),
        twin.infer("Master1", "Scaled", crops[0]),
        twin.upload("Master1", "Scaled", "ng", crops[:1], [meta("Master1", "Scaled", "ng", "a.png", 0.3)]),
        head.calibrate("Master1", "Scaled", [0.1], None),
    ]
    for reply in refused:
        assert reply.status == 409
        assert "mm_per_px" in reply.json["error"]
    assert only_files(server.models / "@recipes") == before
    assert seed.fit("Master1", "Scaled", crops[:1]).status == 200
    assert seed.infer("Master1", "Scaled", crops[0], mm_per_px=0.7).status == 200
    assert head.infer("Master1", "Scaled", crops[0], mm_per_px=1e-05).status == 200
    mixed = [meta("Master1", "Scaled", "ok", f"{scale}.png", scale) for scale in (1e-05, 0.5)]
    assert head.upload("Master1", "Scaled", "ok", crops[:2], mixed).status == 409


EVERY_CALL = {
    "state": lambda head, _: head.ask("/state", role_id="A", roi_id="B"),
    "manifest": lambda head, _: head.ask("/manifest", role_id="A", roi_id="B"),
    "list": lambda head, _: head.ask("/datasets/list", role_id="A", roi_id="B"),
    "clear": lambda head, _: head.ask("/datasets/clear", "DELETE", role_id="A", roi_id="B", label="ok"),
    "file": lambda head, _: head.ask("/datasets/file", role_id="A", roi_id="B", label="ok", filename="x"),
    "meta": lambda head, _: head.ask("/datasets/meta", role_id="A", roi_id="B", label="ok", filename="x"),
    "delete": lambda head, _: head.ask("/datasets/file", "DELETE", role_id="A", roi_id="B", label="ok", filename="x"),
    "upload": lambda head, crop: head.upload("A", "B", "ok", [crop]),
    "infer": lambda head, crop: head.infer("A", "B", crop),
    "fit from the data set": lambda head, _: head.fit_dataset("A", "B"),
    "calibrate": lambda head, _: head.calibrate("A", "B", [0.1], None),
    "calibrate_dataset": lambda head, _: head.chunked_json("/calibrate_dataset", '{"role_id":"A","roi_id":"B"}'),
    "infer_dataset": lambda head, _: head.chunked_json("/infer_dataset", '{"role_id":"A","roi_id":"B"}'),
}
AS_EXPECTED_OF_AN_UNKNOWN_ROI = {
    **dict.fromkeys(("state", "manifest", "list", "clear", "upload", "calibrate"), 200),
    **dict.fromkeys(("file", "meta", "delete"), 404),
    **dict.fromkeys(("infer", "calibrate_dataset", "infer_dataset"), 400),
    "fit from the data set": 422,
}


@pytest.mark.parametrize("layout", ["My Layout 1", "../../etc", "a/b\\c:d", "CON", "x" * 300, "50% @ {}", ".", '"q"'])
def test_any_layout_name_in_the_header_is_served_by_every_endpoint(
    server: Server, crops: list[bytes], layout: str
) -> None:
    head = head_of(server, layout)
    assert head.get("/health").read(HEALTH)["status"] == "ok"
    assert head.get("/runs").status == head.get("/metrics").status == 200
    got = {name: call(head, crops[0]).status for name, call in EVERY_CALL.items()}
    assert got == AS_EXPECTED_OF_AN_UNKNOWN_ROI
    assert list_of(head, "A", "B")["ok"]["count"] == 1
    assert {path.name for path in server.models.parent.iterdir()} == {"models", "server.log"}


def test_a_layout_name_in_another_script_is_served_as_utf_8_or_latin_1(server: Server) -> None:
    for raw in ("línea 4", "日本"):
        head = Head(server.gui.host, server.gui.port, layout=raw.encode().decode("latin-1"))
        assert head.get("/health").json["recipe_id"] == raw
    assert head_of(server, "línea 5").get("/health").json["recipe_id"] == "línea 5"


@pytest.mark.parametrize("layout", ["last", "LAST", " Last "])
def test_the_recipe_last_is_reserved_but_for_questions_about_the_service(
    server: Server, crops: list[bytes], layout: str
) -> None:
    head = head_of(server, layout)
    assert head.get("/health").json["recipe_id"] == "last"
    for name, call in EVERY_CALL.items():
        reply = call(head, crops[0])
        assert reply.status == 400, name
        assert "reserved" in reply.json["error"]
    assert not (server.models / "@recipes" / "last").exists()


def test_the_recipe_of_a_request_goes_before_the_headers(server: Server, crops: list[bytes]) -> None:
    head = head_of(server, "last")
    parts = [*head.roi("Master1", "Payload"), Part("recipe_id", b"Own"), Part("images", crops[0], "image/png", "a.png")]
    assert head.multipart("/datasets/ok/upload", parts).json["recipe_id"] == "own"
    listed = head.ask("/datasets/list", role_id="Master1", roi_id="Payload", recipe_id="OWN")
    assert listed.json["classes"]["ok"]["count"] == 1
    text = '{"role_id":"Master1","roi_id":"Payload","recipe_id":"own","mm_per_px":0.2,"ok_scores":[0.5]}'
    assert head.chunked_json("/calibrate_ng", text).json["recipe_id"] == "own"


def test_image_is_deleted_by_stored_name_or_by_name_in_its_metadata(server: Server, crops: list[bytes]) -> None:
    """A name that two images have is refused with 409; other names, labels and paths outside delete nothing."""
    head = head_of(server, "Deleting")
    metas = [meta("R", "D", "ok", name) for name in ("one.png", "two.png", "twice.png", "twice.png")]
    names = head.upload("R", "D", "ok", variants(crops[0], 4), metas).json["files"]

    def delete(filename: str, label: str = "ok") -> Reply:
        return head.ask("/datasets/file", "DELETE", role_id="R", roi_id="D", label=label, filename=filename)

    assert delete(names[0]).json["filename"] == names[0]
    assert delete("two.png").json["filename"] == names[1]
    ambiguous = delete("twice.png")
    assert ambiguous.status == 409
    assert names[2] in ambiguous.json["error"]
    for outside in ("../ok/" + names[2], "/etc/passwd", names[2] + ".json", "nothing.png"):
        assert delete(outside).status == 404
    assert delete(names[2], "ng").status == 404
    assert delete(names[2], "worst").status == 422
    assert list_of(head, "R", "D")["ok"]["files"] == names[2:]
    folder = server.models / "@recipes" / "deleting" / "datasets" / "R" / "D" / "ok"
    assert {path.name for path in folder.iterdir()} == {*names[2:], *(f"{name}.json" for name in names[2:]), ".lock"}
    cleared = head.ask("/datasets/clear", "DELETE", role_id="R", roi_id="D", label="ok")
    assert cleared.json["n_deleted"] == 2
    assert list_of(head, "R", "D")["ok"]["count"] == 0
    assert {path.name for path in folder.iterdir()} == {".lock"}


def test_one_broken_image_is_an_item_with_an_error_and_the_run_goes_on(
    server: Server, crops: list[bytes], ok_crops: list[bytes]
) -> None:
    """Inference and calibration of a data set count the broken image as an error and judge all the others."""
    head = head_of(server, "Broken")
    names = head.upload("R", "B", "ok", ok_crops).json["files"]
    folder = server.models / "@recipes" / "broken" / "datasets" / "R" / "B" / "ok"
    fit = head.fit_dataset("R", "B")
    assert fit.status == 200
    (folder / names[4]).write_bytes(ok_crops[4][:500])
    run = head.chunked_json("/infer_dataset", '{"role_id":"R","roi_id":"B","labels":["ok"],"default_mm_per_px":0.2}')
    judgements = run.read(DATASET_INFERENCE)
    assert (judgements["n_total"], judgements["n_errors"]) == (10, 1)
    broken = judgements["items"][4]
    assert (broken["filename"], broken["score"]) == (names[4], 0)
    assert names[4] in broken["error"]
    assert all(item["error"] is None and item["score"] > 0 for item in judgements["items"] if item is not broken)
    calibrated = head.chunked_json("/calibrate_dataset", '{"role_id":"R","roi_id":"B","require_ng":false}')
    assert calibrated.status == 200, calibrated.content
    assert (calibrated.json["n_ok"], calibrated.json["n_errors"]) == (9, 1)
    assert calibrated.json["errors"][0]["filename"] == names[4]
    scores = [score for number, score in enumerate(fit.json["ok_scores"]) if number != 4]
    assert calibrated.json["threshold"] == pytest.approx(float(np.percentile(scores, 99)))
    refused = head.chunked_json("/calibrate_dataset", '{"role_id":"R","roi_id":"B"}')
    assert refused.status == 422
    assert "NG" in refused.json["error"]


def test_a_file_name_that_is_not_ascii_is_kept_as_dotnet_writes_it(server: Server, crops: list[bytes]) -> None:
    head = head_of(server, "Names")
    encoded = "=?utf-8?B?" + base64.b64encode("Prüfung/ä 7.png".encode()).decode() + "?="
    part = Part("images", crops[0], "image/png", f'"{encoded}"')
    ids = [Part("role_id", b"R"), Part("roi_id", b"N")]
    (name,) = head.multipart("/datasets/ok/upload", [*ids, part]).json["files"]
    assert head.ask("/datasets/meta", role_id="R", roi_id="N", label="ok", filename=name).json["filename"] == "ä 7.png"
    assert head.ask("/datasets/file", role_id="R", roi_id="N", label="ok", filename="ä 7.png").content == crops[0]


def test_image_of_another_scale_than_its_recipe_is_an_item_with_an_error(server: Server, crops: list[bytes]) -> None:
    """The inference of a data set reports the scale to which the recipe is locked, and the calibration is refused."""
    named, unnamed = head_of(server, "default"), server.gui
    part = Part("metas", meta("R", "S", "ok", "a.png", 0.1).encode(), "application/json")
    ids = [Part("role_id", b"R"), Part("roi_id", b"S")]
    files = [Part("images", crops[0], "image/png", "a.png")]
    assert unnamed.multipart("/datasets/ok/upload", [*ids, *files, part]).status == 200
    assert named.fit("R", "S", crops[:1]).status == 200
    text = '{"role_id":"R","roi_id":"S","default_mm_per_px":0,"require_ng":false,"labels":[]}'
    (item,) = named.chunked_json("/infer_dataset", text).json["items"]
    assert "mm_per_px is 0.1, but the recipe is locked to 0.2" in item["error"]
    refused = named.chunked_json("/calibrate_dataset", text)
    assert refused.status == 422
    assert "locked to 0.2" in refused.json["error"]


def test_no_calibration_replaces_that_of_a_memory_which_it_cannot_be_for(server: Server) -> None:
    folder = server.models / "Foreign" / "Roi"
    folder.mkdir(parents=True)
    emb = np.eye(20, 1152, dtype=np.float32)
    np.savez(folder / "memory.npz", emb=emb, token_h=32, token_w=32)
    (folder / "calib.json").write_text('{"threshold": 20.0}')
    before = only_files(folder)
    refused = server.gui.calibrate("Foreign", "Roi", [0.1], None)
    assert refused.status == 409
    assert "refit" in refused.json["error"]
    assert only_files(folder) == before
    (folder / "memory.npz").write_bytes(b"damaged")
    state = server.gui.get("/state?role_id=Foreign&roi_id=Roi").json
    assert (state["status"], state["memory_fitted"]) == ("refit_needed", False)


def test_a_bad_upload_stores_nothing(server: Server, crops: list[bytes]) -> None:
    head = head_of(server, "Refused")
    good = meta("R", "U", "ok", "a.png")
    requests = [
        (head.upload("R", "U", "ok", []), 422, "no images"),
        (head.upload("R", "U", "ok", [crops[0], crops[1][:900]]), 400, "truncated or damaged"),
        (head.upload("R", "U", "ok", [crops[0], b"MZ\x90"]), 415, "not an accepted image"),
        (head.upload("R", "U", "ok", crops[:2], [good]), 422, "1 metas for 2 images"),
        (head.upload("R", "U", "ok", crops[:1], [f"[{good},{good}]"]), 422, "2 metas for 1 images"),
        (head.upload("R", "U", "ok", crops[:1], ["{no json"]), 422, "not JSON"),
        (head.upload("R", "U", "ok", crops[:1], ['{"a":NaN}']), 422, "not JSON"),
        (head.upload("R", "U", "ok", crops[:1], ['{"a":1e999}']), 422, "not JSON"),
        (head.upload("R", "U", "ok", crops[:1], ['{"a":"\\ud800"}']), 422, "not JSON"),
        (head.upload("R", "U", "ok", crops[:1], ["[" * 30000 + "]" * 30000]), 422, "not JSON"),
        (head.upload("R", "U", "ok", crops[:1], ["7"]), 422, "JSON object"),
        (head.upload("R", "U", "ok", crops[:1], ['{"mm_per_px":-1}']), 422, "mm_per_px"),
        (head.upload("R", "U", "ok", crops[:1], ['{"mm_per_px":"0,2"}']), 422, "mm_per_px"),
        (head.upload("R", "x" * 129, "ok", crops[:1]), 422, "roi_id"),
    ]
    for reply, status, words in requests:
        assert reply.status == status, reply.content
        assert words in reply.json["error"]
    assert not (server.models / "@recipes" / "refused").exists()
    deep = '{"a":' * 900 + "1" + "}" * 900
    kept = head.upload("R", "U", "ok", crops[:1], [deep]).json["files"][0]
    assert head.ask("/datasets/meta", role_id="R", roi_id="U", label="ok", filename=kept).json["a"]
    array = head.upload("R", "U", "ok", crops[:2], [f"[{good},{good}]"])
    assert array.status == 200, "one part with an array does as well"


def test_a_fit_from_too_few_images_says_so_and_never_reads_as_a_success(server: Server, crops: list[bytes]) -> None:
    head = head_of(server, "Already trained")
    head.upload("already exists", "ya entrenado", "ok", crops[:3])
    reply = head.fit_dataset("already exists", "ya entrenado")
    assert reply.status == 422
    assert "3 OK images are stored" in reply.json["error"]
    assert "MIN_OK_SAMPLES" in reply.json["error"]
    assert not any(phrase.encode() in reply.content.lower() for phrase in MISREAD)
    both = head.fit("already exists", "ya entrenado", crops[:1], use_dataset="true")
    assert both.status == 422


def test_a_roi_called_inspection_is_one_roi_whatever_role_a_call_gives_it(
    server: Server, ok_crops: list[bytes], crops: list[bytes]
) -> None:
    head = head_of(server, "Turned")
    roi = "inspection_3"
    assert head.upload("Master2", roi, "ok", ok_crops).status == 200
    assert head.upload("Master2", roi, "ng", crops[1:3]).status == 200
    assert head.fit_dataset("Inspection", roi).status == 200
    assert head.ask("/state", role_id="Master2", roi_id=roi).read(STATE)["memory_fitted"] is True
    text = f'{{"role_id":"Master2","roi_id":"{roi}","default_mm_per_px":0.2}}'
    assert head.chunked_json("/calibrate_dataset", text).status == 200
    assert head.infer("Inspection", roi, crops[1]).read(HEAD_INFERENCE)["decision"] == "ng"
    assert head.ask("/state", role_id="Inspection", roi_id=roi).read(STATE)["calib_present"] is True


def test_calibration_without_model_key_applies_to_the_model_with_a_key(server: Server, ok_crops: list[bytes]) -> None:
    """A calibration request that names no model key calibrates the model that was fitted under a model key."""
    head = head_of(server, "Keys")
    assert head.upload("R", "K", "ok", ok_crops).status == 200
    parts = [*head.roi("R", "K"), Part("use_dataset", b"true"), Part("model_key", b"Other Key")]
    assert head.multipart("/fit_ok", parts).json["model_key"] == "Other Key"
    text = '{"role_id":"R","roi_id":"K","require_ng":false}'
    assert head.chunked_json("/calibrate_dataset", text).status == 200
    image = [*head.roi("R", "K"), Part("image", ok_crops[0], "image/png", "a.png")]
    judged = head.multipart("/infer", [*image, Part("model_key", b"Other Key")]).json
    assert (judged["calibration"], judged["model"]["model_key"]) == ("applied", "Other Key")


def test_a_model_of_other_features_is_never_compared_and_says_refit(server: Server, crops: list[bytes]) -> None:
    stem = "__".join(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in ("Old", "Roi"))
    folder = server.models / "recipes" / "OLD Layout" / "Roi"
    folder.mkdir(parents=True)
    emb = np.random.default_rng(0).normal(size=(20, 1152)).astype(np.float32)
    np.savez(folder / f"{stem}.npz", emb=emb, token_h=32, token_w=32)
    (folder / f"{stem}_calib.json").write_text('{"threshold": 20.0, "p99_ok": NaN}')
    head = head_of(server, "Old layout")
    for normalised in (False, True):
        if normalised:
            unit = emb / np.linalg.norm(emb, axis=1, keepdims=True)
            np.savez(folder / f"{stem}.npz", emb=unit, token_h=32, token_w=32)
        state = head.ask("/state", role_id="Old", roi_id="Roi")
        values = state.read(STATE)
        assert (values["memory_fitted"], values["calib_present"]) == (False, False)
        assert values["status"] == "refit_needed"
        assert "refit" in state.json["reason"]
        reply = head.infer("Old", "Roi", crops[0])
        assert reply.status == 409
        assert "refit needed" in reply.json["error"]
    assert head.fit("Old", "Roi", crops[:1]).status == 200
    judged = head.infer("Old", "Roi", crops[2]).json
    assert (judged["model"]["layout"], judged["calibration"]) == ("current", "none")


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory, weights: Weights) -> Iterator[Server]:
    with running(gunicorn_command, tmp_path_factory.mktemp("head"), weights, INPUT_SIZE=HALF) as server:
        yield server


def test_many_who_upload_at_once_to_two_processes_lose_nothing(two_workers: Server, crops: list[bytes]) -> None:
    different = variants(crops[0], 40)

    def upload(number: int) -> str:
        head = head_of(two_workers, "Many")
        reply = head.upload("R", "M", "ok", [different[number]], [meta("R", "M", "ok", f"{number}.png")])
        assert reply.status == 200, reply.content
        return reply.json["files"][0]

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(upload, range(40)))
    head = head_of(two_workers, "Many")
    assert len(set(names)) == 40
    assert sorted(names) == list_of(head, "R", "M")["ok"]["files"]
    for number, name in enumerate(names):
        file = head.ask("/datasets/file", role_id="R", roi_id="M", label="ok", filename=name)
        told = head.ask("/datasets/meta", role_id="R", roi_id="M", label="ok", filename=name)
        assert (file.content, told.json["filename"]) == (different[number], f"{number}.png")


def test_the_progress_of_long_work_is_seen_from_every_process(two_workers: Server, ok_crops: list[bytes]) -> None:
    head = head_of(two_workers, "Progress")
    assert head.upload("R", "P", "ok", ok_crops).status == 200
    others = variants(ok_crops[0], 20)[10:]  # images of the fit need no work in a calibration
    assert head.upload("R", "P", "ng", others).status == 200
    seen: dict[str, list[dict]] = {"fit": [], "calibrate_dataset": [], "infer_dataset": []}
    work = {
        "fit": lambda: head.fit_dataset("R", "P"),
        "calibrate_dataset": lambda: head.chunked_json(
            "/calibrate_dataset", '{"role_id":"R","roi_id":"P","require_ng":false}'
        ),
        "infer_dataset": lambda: head.chunked_json(
            "/infer_dataset", '{"role_id":"R","roi_id":"P","default_mm_per_px":0.2}'
        ),
    }
    with ThreadPoolExecutor(1) as pool:
        for kind, start in work.items():
            running_work = pool.submit(start)
            while not running_work.done():
                seen[kind] += Gui(head.host, head.port).get("/runs").json["runs"]
                time.sleep(0.05)
            assert running_work.result().status == 200, running_work.result().content
    for kind, records in seen.items():
        assert {record["kind"] for record in records} == {kind}
        assert {(record["role_id"], record["recipe_id"], record["n_images"]) for record in records} == {
            ("R", "progress", 10 if kind == "fit" else 20)
        }
        done = [(record["step"], record["done"], record["total"]) for record in records]
        assert any(step != "wait" and 0 < count <= total for step, count, total in done), done
    assert Gui(head.host, head.port).get("/runs").json["runs"] == []


def test_a_fit_takes_fewer_images_where_the_setting_says_so(
    tmp_path: Path, weights: Weights, ok_crops: list[bytes]
) -> None:
    with running(serve_command, tmp_path, weights, MIN_OK_SAMPLES="2") as server:
        head = head_of(server, "Few")
        assert head.upload("R", "F", "ok", ok_crops[:2]).status == 200
        assert head.fit_dataset("R", "F").status == 200
