"""What the pages of the documentation may load."""

import pytest


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_show_images_that_they_fetched_and_none_from_elsewhere(client, path):
    headers = client.get(path).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["img-src"].split() == ["'self'", "data:", "blob:"]
    assert policy["default-src"] == "'none'"


def test_replies_may_load_nothing(client):
    policy = client.get("/health").headers["content-security-policy"]
    assert policy == "default-src 'none'; frame-ancestors 'none'"
