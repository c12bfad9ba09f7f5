"""What the comparison of two checkouts blanks, what it keeps, and what it says about a difference."""

import doctest
import io
import json
import re
from datetime import datetime, timezone
from types import ModuleType

import numpy as np
import pytest

from harness import compare
from harness.contract import access, client, commands, generations, mistakes, models, questions, recipes, sentences
from harness.contract import blanks as blanking
from harness.contract.blanks import Blanks, parse, pretty
from harness.contract.checkout import Outcome, Server
from harness.contract.client import Exchange, broken_promises, metrics_text, text_of
from harness.contract.collecting import OPEN, Shown
from harness.contract.files import texts_of_files
from harness.contract.logs import texts_of_log
from harness.contract.sentences import help_without_sentences
from harness.gui import Reply

MADE_ID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def blanks() -> Blanks:
    return Blanks({"/tmp/work": "<work>"})


@pytest.fixture
def wordless() -> Blanks:
    return Blanks({}, sentences=True)


def blanked(blanks: Blanks, value: object) -> str:
    return pretty(blanks.json(parse(json.dumps(value))))


def exchange(body: object, target: str = "/infer", status: int = 400, **headers: str) -> Exchange:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = Reply(status, {"content-type": "application/json", **named}, json.dumps(body).encode())
    return Exchange("POST", target, reply)


@pytest.mark.parametrize("module", [compare, blanking, client, sentences])
def test_the_examples_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_time_of_the_run_keeps_its_form_and_another_its_digits(blanks: Blanks) -> None:
    now = datetime.now(timezone.utc)
    assert blanks.text(now.isoformat(timespec="microseconds")) == "0000-00-00T00:00:00.000000+00:00"
    assert blanks.text(f"{now:%Y-%m-%d %H:%M} UTC") == "0000-00-00 00:00 UTC"
    assert blanks.text("2026-01-07T10:11:12.1234567Z") == "2026-01-07T10:11:12.1234567Z"
    assert blanked(blanks, [now.timestamp(), 1.5]) == '[\n  "<time>",\n  1.5\n]'


def test_names_that_the_run_made_are_numbered_as_they_are_met(blanks: Blanks) -> None:
    now = datetime.now(timezone.utc)
    first, second = (f"{now:%Y%m%d-%H%M%S}-00000{digit}-1a2b3c4d.png" for digit in "21")
    assert blanks.text(f"{first} {second}") == "<image 1>.png <image 2>.png"
    assert blanked(blanks, {second: True}) == '{\n  "<image 2>.png": true\n}'
    assert blanks.text("20201122-210455-123456-1a2b3c4d.png") == "20201122-210455-123456-1a2b3c4d.png"


def test_numbers_keep_every_digit_as_it_was_written(blanks: Blanks) -> None:
    text = '{"a":[1.0,1,1E-05,0.30000000000000004],"b":-0.0,"c":123456789012345678901234567890}'
    written = pretty(blanks.json(parse(text)))
    assert re.findall(r"[\d.E-]{2,}|\b1\b", written) == re.findall(r"[\d.E-]{2,}|\b1\b", text)


def test_durations_drawn_lots_and_folders_are_blanked(blanks: Blanks) -> None:
    values = {"ms": 12.5, "ms_per_image": 3, "evidence": 7.1, "wealth": {"higher": [1.0]}, "path": "/tmp/work/a.png"}
    assert json.loads(blanked(blanks, values)) == {
        "ms": "<measured>",
        "ms_per_image": "<measured>",
        "evidence": "<drawn>",
        "wealth": {"higher": "<drawn>"},
        "path": "<work>/a.png",
    }


def test_of_a_trace_it_is_kept_whether_there_is_one(blanks: Blanks) -> None:
    assert json.loads(blanked(blanks, {"trace": "File …"})) == {"trace": "<trace>"}
    assert json.loads(blanked(blanks, {"trace": ""})) == {"trace": ""}


def test_a_heatmap_is_its_bytes(blanks: Blanks) -> None:
    shown = [blanked(blanks, {"heatmap_png_base64": text}) for text in ("aGVhdA==", "aGVhdA==", "bWFw")]
    assert shown[0] == shown[1] != shown[2]
    assert "aGVhdA" not in shown[0]
    assert "4 bytes" in shown[0]


def test_an_id_of_the_service_is_blanked_and_one_of_a_client_is_not(blanks: Blanks) -> None:
    made = text_of(exchange({"request_id": MADE_ID}, x_request_id=MADE_ID), blanks)
    assert "x-request-id: <made id>" in made
    assert '"request_id": "<made id>"' in made
    other = text_of(exchange({"request_id": "another"}, x_request_id=MADE_ID), blanks)
    assert '"request_id": "another"' in other
    assert '"request_id": "mine"' in text_of(exchange({"request_id": "mine"}, x_request_id="mine"), blanks)


def test_headers_are_sorted_without_the_servers_own(blanks: Blanks) -> None:
    shown = text_of(exchange({}, retry_after="5", date="today", server="uvicorn", content_length="2"), blanks)
    lines = ["POST /infer", "400", "content-length: <length>", "content-type: application/json", "retry-after: 5"]
    assert shown.splitlines()[:5] == lines


def test_blanks_and_order_in_json_are_compared_too(blanks: Blanks) -> None:
    tight, loose = (Reply(200, {"content-type": "application/json"}, text) for text in (b'{"a":1}', b'{"a": 1}'))
    assert text_of(Exchange("GET", "/a", tight), blanks) != text_of(Exchange("GET", "/a", loose), blanks)
    assert blanked(blanks, {"a": 1, "b": 2}) != blanked(blanks, {"b": 2, "a": 1})


@pytest.mark.parametrize("phrase", ["Already trained", "already exists", "YA ENTRENADO", "memoria existente"])
def test_fit_error_that_clients_take_for_success_is_reported(phrase: str) -> None:
    for body in ({"error": phrase, "trace": ""}, {"error": "", "trace": f"x {phrase} y"}):
        assert broken_promises(exchange(body, "/fit_ok"), not_fitted=False)
        assert not broken_promises(exchange(body, "/fit_ok", status=200), not_fitted=False)
        assert not broken_promises(exchange(body, "/infer"), not_fitted=False)


def test_a_missing_memory_says_so_in_both_languages() -> None:
    assert broken_promises(exchange({"error": "memory not found"}), not_fitted=True)
    assert not broken_promises(exchange({"error": "memory not found (Memoria no encontrada)"}), not_fitted=True)


def test_metrics_keep_their_counts_and_names() -> None:
    text = 'requests_total{endpoint="/infer"} 3.0\nrequests_total{endpoint="/health"} 9.0\nrequests_created{} 1.7e9'
    kept, polled, created = metrics_text(text).splitlines()
    assert kept == 'requests_total{endpoint="/infer"} 3.0'
    assert polled == 'requests_total{endpoint="/health"} <measured>'
    assert created == "requests_created{} <measured>"


def test_progress_bars_are_what_they_are_about(blanks: Blanks) -> None:
    bars = "\rfit:   0%|   | 0/2 [00:00<?]\rfit:  50%|# | 1/2\r      \rone is broken\n\rfit: 100%|##| 2/2\n"
    stderr = f"{bars}score: 100%|##|\n"
    shown = commands.text_of(Outcome(1, '{"ms": 3}\n', stderr), blanks, blanks.prose)
    assert "--- progress\nfit, score\n" in shown
    assert shown.endswith("--- stderr\none is broken\n")
    assert '"ms": "<measured>"' in shown


def test_without_sentences_names_numbers_and_statuses_are_kept(wordless: Blanks) -> None:
    reply = {"error": "role_id: it is missing", "n_ok": 3, "status": "ok", "role_id": "A B"}
    assert json.loads(blanked(wordless, reply)) == {**reply, "error": "<sentence>"}
    assert wordless.prose("2 other files are ignored in /a/b") == "<sentence> 2 /a/b"
    assert wordless.prose("error: '0' must be more than 0, at most 100") == "<sentence> error: '0' 0 100"
    assert wordless.prose("error: '0' is not above 0 and up to 100") == "<sentence> error: '0' 0 100"


def test_help_without_sentences_ignores_wording_and_sees_new_options() -> None:
    start = "usage: x [-h] [--all]\n\n"
    text = f"{start}All about x.\nAnd more.\n\noptions:\n  -h, --help  show\n  --all       keep\n              all\n"
    worded = f"{start}What x is.\n\noptions:\n  -h, --help  show this\n  --all       keep every one\n"
    assert help_without_sentences(text) == help_without_sentences(worded)
    assert help_without_sentences(text) != help_without_sentences(text.replace("  --all ", "  --any "))


def test_files_are_shown_by_what_they_hold(tmp_path, blanks: Blanks) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, emb=np.ones((2, 3), np.float32), metadata=np.array('{"memory_id": "1f"}'))
    contents = {
        "a/memory.npz": buffer.getvalue(),
        "a/calib.json": b'{"threshold":0.5}',
        "results.csv": b"path,ms\r\na.png,12.3\r\n",
        "results.jsonl": b'{"ms":1}\n{"ms":2}\n',
        "broken.npz": b"PK\x03\x04",
        "index.faiss": b"abc",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "empty").mkdir()
    texts = texts_of_files(tmp_path, blanks)
    assert set(texts) == {*contents, "empty/"}
    assert "emb.npy: f [2, 3]" in texts["a/memory.npz"]
    assert '"memory_id": "1f"' in texts["a/memory.npz"]
    assert '"threshold": 0.5' in texts["a/calib.json"]
    assert texts["results.csv"].splitlines() == ["path,ms", "a.png | <measured>", "lines end with CRLF"]
    assert texts["results.jsonl"].count("<measured>") == 2
    assert texts["broken.npz"].startswith("<damaged> 4 bytes")
    assert texts["index.faiss"].startswith("3 bytes, sha256 ba7816bf")


def test_every_step_has_a_name_of_its_own() -> None:
    suites = [
        *(questions.SERVICE, questions.OLDER, generations.GENERATIONS, recipes.RECIPES, recipes.STORED_IMAGES),
        *(models.MODELS, mistakes.FIELDS, mistakes.IMAGES, mistakes.JSON, mistakes.RAW, models.LONG_WORK),
        *(access.KEYS, access.LIMITS, access.WITHOUT_NETWORK),
    ]
    names = [name for steps in suites for name in steps]
    assert len(names) == len(set(names))
    assert set(OPEN) < set(names)


def test_what_only_one_side_has_differs() -> None:
    assert compare.differences("replies", {"a": "x"}, {"a": "x"}) == {}
    lost = compare.differences("replies", {"a": "x"}, {})
    assert lost["a"][:2] == ["--- before/replies/a", "+++ nothing"]
    new = compare.differences("replies", {}, {"a": "x"})
    assert new["a"][:2] == ["--- nothing", "+++ after/replies/a"]


def test_the_report_ends_with_one_sentence_and_counts_by_part() -> None:
    before = Shown({"help": {"help of fit": "x"}, "replies": {"a": "1", "b": "2"}}, 2)
    text, alike = compare.report(before, before)
    assert alike
    assert text.splitlines()[-1].startswith("Both behave alike: 3 texts are the same, with the replies to 2 requests")
    after = Shown({"help": {"help of fit": "x"}, "replies": {"a": "1", "b": "3"}}, 2)
    text, alike = compare.report(before, after)
    assert not alike
    assert re.search(r"replies +2 compared +1 differ", text)
    assert "-2\n+3" in text


def test_a_broken_promise_is_no_success_where_nothing_differs() -> None:
    shown = Shown({"help": {}}, 1, ["a fit: an error of /fit_ok says 'already exists'"])
    text, alike = compare.report(shown, shown)
    assert not alike
    assert "after: a fit: an error" in text


def test_a_log_is_its_events_and_fields_without_what_comes_by_chance(tmp_path, blanks: Blanks) -> None:
    entries = [
        {"event": "request", "level": "info", "method": "GET", "endpoint": "/b", "status": 200, "request_id": "2"},
        {"event": "request", "level": "info", "method": "GET", "endpoint": "/a", "status": 200, "request_id": "1"},
        {"event": "request", "level": "info", "method": "GET", "endpoint": "/a", "status": 503, "request_id": "poll"},
        {"event": "index.rebuilt", "level": "info", "roi_id": "a"},
        {"event": "index.rebuilt", "level": "info", "roi_id": "b"},
        {"event": "Started server process [4711]", "level": "info"},
        {"event": "fit.progress", "level": "info"},
        {"event": "draining", "level": "info"},
    ]
    log = tmp_path / "server.log"
    log.write_text("\n".join([*map(json.dumps, entries), "Ready at http://127.0.0.1:8123"]))
    texts = texts_of_log(Server("127.0.0.1", 8123, 4711, log), blanks)
    assert [line.split(": ")[0] for line in texts["requests"].splitlines()] == ["GET /a 200", "GET /b 200"]
    assert texts["events"].splitlines() == [
        "info Started server process [<process>] ['event', 'level']",
        "info index.rebuilt ['event', 'level', 'roi_id']",
    ]
    assert texts["other lines"] == "Ready at http://127.0.0.1:<port>\n"
