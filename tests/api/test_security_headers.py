"""What pages may load."""

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


@pytest.mark.parametrize(("path", "accept"), [("/", "text/html"), ("/console/main.js", "*/*")])
def test_the_console_loads_its_own_files_and_makes_no_text_into_html(client, path, accept):
    headers = client.get(path, headers={"Accept": accept}).headers
    policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert (policy["require-trusted-types-for"], policy["trusted-types"]) == ("'script'", "console-worker")
    assert headers["x-content-type-options"] == "nosniff"


def test_the_policy_of_the_console_is_for_nothing_else(client):
    assert "trusted-types" not in client.get("/", follow_redirects=False).headers["content-security-policy"]
    assert "trusted-types" not in client.get("/docs").headers["content-security-policy"]
