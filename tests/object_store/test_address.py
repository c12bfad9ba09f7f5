"""Where the store is, and with which credentials: from the usual places, and never in a message."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from backend.common.errors import ConfigError
from backend.object_store.address import Address, read_address
from backend.object_store.bucket import Bucket

SECRET = "wJalrXUtnFEMI"
TLS = {"AWS_ENDPOINT_URL": "https://store.example"}


def read(url="s3://factory/models", insecure=False, **environment):
    return read_address(url, insecure=insecure, environment=environment)


def test_bucket_prefix_endpoint_and_region_are_read(tmp_path):
    found = read("s3://factory/a/b/", HOME=str(tmp_path), AWS_REGION="eu-west-1", **TLS)
    assert (found.bucket, found.prefix, found.endpoint) == ("factory", "a/b", "https://store.example")
    assert (found.region, found.is_plain, str(found)) == ("eu-west-1", False, "s3://factory/a/b")
    assert read("s3://factory", HOME=str(tmp_path)).endpoint is None


NO_PLACES = """
factory http://factory/x s3:// s3:///x s3://F_A/x s3://factory/../x s3://factory/a//b s3://factory/x?versioning
s3://factory/x#y s3://factory/a%20b s3://[factory/x
"""


@pytest.mark.parametrize("url", ["", "s3://factory/a b", *NO_PLACES.split()])
def test_url_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="must be s3://BUCKET"):
        read(url)


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        (f"s3://AKIA:{SECRET}@factory/x", {}),
        ("s3://factory/x", {"AWS_ENDPOINT_URL": f"https://AKIA:{SECRET}@store.example"}),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url, environment):
    with pytest.raises(ConfigError, match="credentials") as refused:
        read(url, **environment)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:9000", "localhost", "[::1]:9000"])
def test_without_tls_only_this_machine_is_reached(host, tmp_path):
    assert read(HOME=str(tmp_path), AWS_ENDPOINT_URL=f"http://{host}").is_plain


def test_another_machine_without_tls_is_refused_unless_that_is_meant(tmp_path):
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        there = {"HOME": str(tmp_path), name: "http://10.0.0.7:9000"}
        with pytest.raises(ConfigError, match="MODELS_URL_INSECURE=1"):
            read(**there)
        assert read(insecure=True, **there).is_plain


def test_credentials_of_a_profile_are_read_and_not_shown(tmp_path):
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(f"[line]\naws_access_key_id = AKIA\naws_secret_access_key = {SECRET}\n")
    (folder / "config").write_text("[profile line]\nregion = eu-central-1\nendpoint_url = https://store.example\n")
    found = read(HOME=str(tmp_path), AWS_PROFILE="line")
    assert found.credentials == {"access_key_id": "AKIA", "secret_access_key": SECRET}
    assert (found.region, found.endpoint) == ("eu-central-1", "https://store.example")
    assert SECRET not in f"{found} {found!r}"
    assert read(HOME=str(tmp_path)).credentials == {}
    with pytest.raises(ConfigError, match="AWS_PROFILE=other"):
        read(HOME=str(tmp_path), AWS_PROFILE="other")


def test_environment_goes_before_the_default_profile(tmp_path):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = AKIA\naws_secret_access_key = x\n")
    files = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "HOME": str(tmp_path)}
    assert read(**files).credentials["access_key_id"] == "AKIA"
    own = {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "y", "AWS_SESSION_TOKEN": "z"}
    assert read(**own, **files).credentials == {"access_key_id": "other", "secret_access_key": "y", "token": "z"}


def test_file_of_profiles_that_is_none_is_named(tmp_path):
    (tmp_path / "credentials").write_text("aws_access_key_id = AKIA\n")
    with pytest.raises(ConfigError, match="credentials cannot be read") as refused:
        read(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"), HOME=str(tmp_path))
    assert "AKIA" not in str(refused.value)


def test_session_token_is_not_sent_with_the_keys_of_a_profile(monkeypatch):
    """No store would take the two together."""
    sent = []

    class Store(BaseHTTPRequestHandler):
        def do_GET(self):
            sent.append((self.headers["Authorization"].partition("/")[0], self.headers["x-amz-security-token"]))
            self.send_error(404)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("AWS_SESSION_TOKEN", "of the environment")
    with HTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for token in ({}, {"token": "its own"}):
            keys = {"access_key_id": "profile", "secret_access_key": "secret", **token}
            Bucket(Address("b", "p", f"http://127.0.0.1:{server.server_port}", "r", keys)).get("key")
        server.shutdown()
    assert sent == [("AWS4-HMAC-SHA256 Credential=profile", token) for token in (None, "its own")]
