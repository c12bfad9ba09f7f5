"""A request about a part that is sent again, because its reply was lost, counts once and is listed once."""

import pytest

from tests.api.sending import IDS, check_refusal, infer, listed


@pytest.mark.parametrize(
    ("ids", "n"),
    [
        ([None, None], 2),
        (["", ""], 2),
        (["part-7", "part-7"], 1),
        (["part-7", "part-8"], 2),
        (["part-7", "part-8", "part-7", None], 3),
    ],
)
def test_requests_with_the_same_part_id_count_once(inspecting, ids, n):
    client, service = inspecting(history=10)
    scores = {infer(client, **({} if part_id is None else {"part_id": part_id}))["score"] for part_id in ids}
    assert len(scores) == 1
    service.drift.flush()
    service.history.flush()
    assert client.get("/drift", params=IDS).json()["n_parts"] == n
    assert len(listed(client)["judgements"]) == n


def test_a_part_id_that_is_too_long_is_refused(inspecting):
    client, _ = inspecting()
    form = {**IDS, "mm_per_px": 0.2, "part_id": "x" * 129}
    reply = client.post("/infer", data=form, files={"image": ("a.png", b"")})
    check_refusal(reply, 422, "part_id: must have at most 128 characters")
