"""What `watch` makes of the replies of a service; tests/integration has the service itself."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.commands.watch.judges import Away, Learnt, Refused
from backend.commands.watch.layouts import read_layout
from backend.commands.watch.pictures import Crop
from backend.commands.watch.service_judge import ServiceJudge
from backend.common.errors import InvalidRequest, LayoutNotFound
from harness.server import free_port
from tests.commands.watch.lines import layout_of, picture

DRAWN, RING = read_layout(layout_of(), "line 1", "the layout", lambda *_: b"").rois
CROP = Crop(picture(), None)
IDS = {"role_id": "Inspection", "roi_id": "inspection-1", "recipe_id": "line 1", "model_key": "inspection-1"}
MODEL = {
    "role_id": "Inspection",
    "recipe_id": "line 1",
    "model_key": "inspection-1",
    "layout": "current",
    "memory_id": "b",
}
REPLY = IDS | {
    "request_id": "1",
    "score": 0.61,
    "threshold": 0.5,
    "decision": "ng",
    "calibration": "applied",
    "regions": [
        {"bbox": [1, 2, 3, 4], "x": 1, "y": 2, "w": 3, "h": 4, "area_px": 9, "area_mm2": 2.25, "contour": [[1, 2]]}
    ]
    * 2,
    "token_shape": [32, 32],
    "why": "It reaches it.",
    "model": MODEL,
    "of_a_newer_service": True,
}


class Service(ThreadingHTTPServer):
    """Answers each path as it is told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = {}
        self.got = []


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = urlsplit(self.path)
        self.server.got.append((address.path, parse_qs(address.query), self.headers, body))
        status, headers, reply = self.server.replies.get(address.path, (404, {}, {"error": "no such path"}))
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def judge(service):
    judge = ServiceJudge(f"http://127.0.0.1:{service.server_port}/plant/", "a key")
    yield judge
    judge.close()


def test_a_crop_is_asked_about_as_the_console_asks(service, judge):
    service.replies["/plant/infer"] = (200, {}, REPLY)
    answer = judge.infer(RING, Crop(picture(), RING.roi.shape), "part.png", 0.25, "part-7")
    assert (answer.score, answer.threshold, answer.decision, answer.calibration) == (0.61, 0.5, "ng", "applied")
    assert (answer.recipe_id, answer.memory_id, answer.n_regions, answer.largest_area_mm2) == ("line 1", "b", 2, 2.25)
    ((_, _, headers, body),) = service.got
    assert headers["X-API-Key"] == "a key"
    for name, value in (
        IDS | {"roi_id": "inspection-2", "model_key": "inspection-2", "mm_per_px": "0.25", "part_id": "part-7"}
    ).items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in body
    assert b'name="shape"\r\n\r\n{"kind": "annulus", "cx": 8.0, "cy": 8.0, "r": 8.0, "r_inner": 2.0}' in body
    assert b'name="image"; filename="part.png"' in body
    assert picture() in body
    assert b'name="trial"' not in body  # it counts as a part


def test_what_is_known_of_a_model_comes_from_its_bank_and_its_samples(service, judge):
    stored = "20261122-210455-123456-1a2b3c4d.png"
    cut = json.dumps(DRAWN.roi.cut)
    service.replies |= {
        "/plant/bank": (200, {}, {"images": [{"filename": stored}], "model": MODEL}),
        "/plant/rois": (
            200,
            {},
            {"rois": [IDS | {"roi_id": "another", "mm_per_px": 9}, IDS | {"mm_per_px": 0.25, "threshold": 0.5}]},
        ),
        "/plant/datasets/meta": (200, {}, {"console_cut": cut}),
    }
    assert judge.learn(DRAWN) == Learnt("b", 0.25, "same", 0.5)
    assert service.got[-1][1] == {name: [value] for name, value in IDS.items()} | {
        "label": ["ok"],
        "filename": [stored],
    }
    service.replies["/plant/datasets/meta"] = (200, {}, {"console_cut": cut.replace("10", "11")})
    assert judge.learn(DRAWN).place == "other"
    del service.replies["/plant/datasets/meta"]
    assert judge.learn(DRAWN).place == "other"
    service.replies["/plant/rois"] = (200, {}, {"rois": []})
    assert judge.learn(DRAWN).mm_per_px is None


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_service_that_asks_to_wait_is_asked_again(service, judge, status):
    service.replies["/plant/infer"] = (status, {"Retry-After": "7"}, {"error": "busy"})
    with pytest.raises(Away, match="busy") as exc:
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")
    assert (exc.value.retry_after_s, exc.value.is_key) == (7, False)


def test_a_service_that_asks_to_wait_for_days_is_asked_after_an_hour(service, judge):
    service.replies["/plant/infer"] = (503, {"Retry-After": "9" * 400}, {"error": "busy"})
    with pytest.raises(Away) as exc:
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")
    assert exc.value.retry_after_s == 3600


def test_a_reply_that_cannot_be_decoded_is_asked_for_again(service, judge):
    service.replies["/plant/infer"] = (200, {"Content-Encoding": "gzip"}, b"no gzip")
    with pytest.raises(Away, match=r"does not answer \(DecodingError\)"):
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_named_by_its_variable_and_never_shown(service, judge, status):
    service.replies["/plant/infer"] = (status, {}, {"error": "A key is needed."})
    with pytest.raises(Away, match=r"A key is needed\. Set WATCH_API_KEY") as exc:
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")
    assert exc.value.is_key
    assert "a key" not in str(exc.value)


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422, 500])
def test_what_the_service_refuses_is_not_judged_in_its_own_words(service, judge, status):
    service.replies["/plant/infer"] = (status, {}, {"error": "The ROI was never fitted.", "trace": ""})
    with pytest.raises(Refused, match="The ROI was never fitted"):
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")


@pytest.mark.parametrize("reply", [b"<html>", b"{}", b"[]", {**REPLY, "score": "high"}])
def test_a_reply_that_is_no_judgement_is_none(service, judge, reply):
    service.replies["/plant/infer"] = (200, {}, reply)
    with pytest.raises(Refused, match="not a judgement"):
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")


@pytest.mark.parametrize("reply", [b"<html>", {"images": []}, {"images": [{}], "model": MODEL}, []])
def test_a_model_about_which_nothing_can_be_read_is_not_judged_by(service, judge, reply):
    service.replies |= {"/plant/bank": (200, {}, reply), "/plant/rois": (200, {}, {"rois": []})}
    with pytest.raises(Refused, match="not a reply of this service"):
        judge.learn(DRAWN)


def test_an_error_of_something_else_is_told_by_its_status(service, judge):
    service.replies["/plant/infer"] = (418, {}, b"a teapot")
    with pytest.raises(Refused, match="status 418"):
        judge.infer(DRAWN, CROP, "part.png", 1.0, "part-7")


def test_a_service_that_is_not_there_is_away():
    judge = ServiceJudge(f"http://127.0.0.1:{free_port()}", None)
    with pytest.raises(Away, match=r"does not answer \(ConnectError\)"):
        judge.layout("line 1")
    judge.close()


def test_a_layout_comes_as_it_was_stored_and_one_that_is_missing_is_named(service, judge):
    service.replies["/plant/layout"] = (200, {}, layout_of())
    assert judge.layout("line 1") == layout_of()
    assert service.got[-1][1] == {"recipe_id": ["line 1"]}
    del service.replies["/plant/layout"]
    with pytest.raises(LayoutNotFound, match="'line 1'"):
        judge.layout("line 1")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "file:///x", "http://name:word@host"])
def test_an_address_that_cannot_be_used_is_refused(url):
    with pytest.raises(InvalidRequest, match="--url"):
        ServiceJudge(url, None)
