"""What routes are handed of a request."""

from tests.api.sending import SCORES, check_refusal


def test_recipe_of_more_than_1000_characters_is_refused_wherever_named(client, tmp_path):
    long, longest = "R" * 1001, "R" * 1000
    check_refusal(client.post("/calibrate_ng", json={**SCORES, "recipe_id": long}), 422, "recipe_id")
    for name in (long, "R" * 30_000):
        check_refusal(client.post("/calibrate_ng", json=SCORES, headers={"X-Recipe-Id": name}), 422, "recipe_id")
    assert not (tmp_path / "models").exists()
    assert client.post("/calibrate_ng", json=SCORES, headers={"X-Recipe-Id": longest}).status_code == 200
    assert client.get("/health", headers={"X-Recipe-Id": "R" * 30_000}).status_code == 200
