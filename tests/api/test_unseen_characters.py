"""Ids with characters that nobody sees, which would name another ROI than they seem to."""

import numpy as np
import pytest

from tests.api.sending import IDS, SCORES, check_refusal
from tests.factories import encoded

PNG = encoded(np.full((20, 30, 3), 90, np.uint8))


@pytest.mark.parametrize("name", ["role_id", "roi_id", "recipe_id", "model_key"])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("\ufeffline", "a byte order mark (U+FEFF)"),
        ("li\ufeffne", "a byte order mark (U+FEFF)"),
        ("line\n", "a line break"),
        ("li\r\nne", "a line break"),
        ("li\u2028ne", "a line break"),
    ],
)
def test_an_id_with_what_nobody_sees_is_refused(calling, tmp_path, name, text, what):
    client = calling()
    words = f"{name}: contains {what}; send it without"
    check_refusal(client.get("/state", params={**IDS, name: text}), 422, words)
    check_refusal(client.post("/rollback", json={**IDS, name: text}), 422, words)
    check_refusal(client.post("/calibrate_ng", json={**SCORES, name: text}), 422, words)
    upload = client.post("/datasets/ok/upload", data={**IDS, name: text}, files={"images": ("a.png", PNG)})
    check_refusal(upload, 422, words)
    assert not (tmp_path / "models").exists()


def test_the_header_of_the_recipe_is_held_to_the_same(calling):
    client = calling()
    header = {"X-Recipe-Id": "\ufeffline 1".encode()}
    check_refusal(client.get("/state", params=IDS, headers=header), 422, "recipe_id: contains a byte order mark")
    client.app.state.lifecycle.service = None
    assert client.get("/health", headers=header).status_code == 200


def test_blanks_and_any_script_stay_allowed_in_ids(calling):
    client = calling()
    for text in ("A B", " x ", "é", "日本", "tab\t", "🙂", "a\u200bb"):
        assert client.get("/state", params={**IDS, "role_id": text}).status_code == 200, ascii(text)
