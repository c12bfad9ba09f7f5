"""The night shift, inspected by two workers and reviewed after a restart; and a layout that two editors share."""

from pathlib import Path

from backend.network.weights import Weights
from harness.server import gunicorn_command
from tests.integration.conftest import running

QUERY = "?role_id=Line&roi_id=Roi"
QUICK = {"INPUT_SIZE": "112", "HISTORY": "8"}


def test_judgements_of_two_workers_outlive_their_end(tmp_path: Path, weights: Weights, crops: list[bytes]) -> None:
    with running(gunicorn_command, tmp_path, weights, **QUICK) as server:
        gui = server.gui
        gui.fit("Line", "Roi", crops[:2])
        said = [gui.infer("Line", "Roi", crops[number % 3]) for number in range(6)]
        assert {reply.status for reply in said} == {200}
    with running(gunicorn_command, tmp_path, weights, **QUICK) as server:
        gui = server.gui
        kept = gui.get(f"/history{QUERY}").json["judgements"]
        assert {one["request_id"] for one in kept} == {reply.json["request_id"] for reply in said}
        assert len(kept) == 6
        scores = {reply.json["request_id"]: reply.json["score"] for reply in said}
        assert all(one["score"] == scores[one["request_id"]] for one in kept)
        picture = gui.get(f"/history/thumbnail{QUERY}&number={kept[0]['number']}")
        assert (picture.headers["content-type"], picture.content[:2]) == ("image/jpeg", b"\xff\xd8")


def test_two_editors_of_a_layout_do_not_overwrite_each_other(tmp_path: Path, weights: Weights) -> None:
    with running(gunicorn_command, tmp_path, weights, **QUICK) as server:
        json_of = {"Content-Type": "application/json"}
        first = server.gui.send("PUT", "/layout?recipe_id=line%201", b'{"by":"a"}', {**json_of, "If-None-Match": "*"})
        tag = {"If-Match": first.headers["etag"]}
        replies = [
            server.gui.send("PUT", "/layout?recipe_id=line%201", b'{"by":"%s"}' % name, {**json_of, **tag})
            for name in (b"b", b"c")
        ]
        assert [reply.status for reply in replies] == [200, 412]
        read = server.gui.get("/layout?recipe_id=line%201")
        assert (read.content, read.headers["etag"]) == (b'{"by":"b"}', replies[1].headers["etag"])
