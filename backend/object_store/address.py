"""The address of the store and the credentials: ``MODELS_URL``, and the environment and files of the AWS tools.

Credentials are passed only to the client. No message repeats an address that may contain credentials.
"""

import configparser
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from backend.common.errors import ConfigError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")
_DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True)
class Address:
    """A place in an object store.

    Attributes:
        bucket: its name.
        prefix: of all keys, without slashes at the ends; may be empty.
        endpoint: of the store; None is that of AWS.
        region: of the bucket.
        credentials: by their names in the client; empty if the client gets them from the machine.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_plain(self) -> bool:
        """Whether the connection has no TLS."""
        return self.endpoint is not None and urlsplit(self.endpoint).scheme == "http"

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def read_address(url: str, *, insecure: bool, environment: Mapping[str, str] = os.environ) -> Address:
    """The address that a URL and the environment give.

    Args:
        url: ``s3://bucket/prefix``.
        insecure: allow an endpoint without TLS that is not on this machine.
        environment: with ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_PROFILE`` and so on.

    Raises:
        ConfigError: it is not such a URL, or the connection would not be encrypted.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.username or parts.password or "@" in url:
        raise ConfigError(
            "the URL of the object store must not hold credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    prefix = parts.path.strip("/")
    is_plain_path = _PREFIX.fullmatch(prefix) and not {"", ".", ".."} & set(prefix.split("/") if prefix else ["x"])
    if (
        parts.scheme != "s3"
        or parts.query
        or parts.fragment
        or not _BUCKET.fullmatch(parts.netloc)
        or not is_plain_path
    ):
        raise ConfigError(
            "the URL of the object store must be s3://BUCKET or s3://BUCKET/PREFIX, with a prefix of letters, digits, "
            "'-', '_', '.' and '/'"
        )
    profile = _profile(environment)
    endpoint = next(
        (
            found
            for found in (
                environment.get("AWS_ENDPOINT_URL_S3"),
                environment.get("AWS_ENDPOINT_URL"),
                environment.get("AWS_ENDPOINT"),  # which the client would read by itself
                profile.get("endpoint_url"),
            )
            if found
        ),
        None,
    )
    if endpoint is not None:
        _check_endpoint(endpoint, insecure)
    region = (
        environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or profile.get("region")
        or _DEFAULT_REGION
    )
    return Address(parts.netloc, prefix, endpoint, region, _credentials(profile, environment))


def _check_endpoint(endpoint: str, insecure: bool) -> None:
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.username or parts.password or parts.scheme not in ("http", "https") or not host:
        raise ConfigError("AWS_ENDPOINT_URL must be https://HOST or https://HOST:PORT, without credentials")
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"AWS_ENDPOINT_URL has no TLS, and {host} is another machine, so models and images would be sent "
            "unencrypted; use https://, or set MODELS_URL_INSECURE=1 if the network between them is trusted"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _profile(environment: Mapping[str, str]) -> dict[str, str]:
    """The values of the profile in the AWS files; credentials take precedence over settings."""
    home = Path(environment.get("HOME") or environment.get("USERPROFILE") or "/nonexistent")
    name = environment.get("AWS_PROFILE") or "default"
    settings = Path(environment.get("AWS_CONFIG_FILE") or home / ".aws" / "config")
    credentials = Path(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws" / "credentials")
    found: dict[str, str] = {}
    for path, section in ((settings, name if name == "default" else f"profile {name}"), (credentials, name)):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{path} cannot be read as a file of AWS profiles ({type(exc).__name__})") from None
        if parser.has_section(section):
            found |= {key: value for key, value in parser.items(section) if value}
    if environment.get("AWS_PROFILE") and not found:
        raise ConfigError(f"AWS_PROFILE={name}: neither {credentials} nor {settings} has this profile")
    return found


def _credentials(profile: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The credentials of the environment, or of the profile if the environment names one."""
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "token",
    }
    in_environment = {key: environment[key.upper()] for key in names if environment.get(key.upper())}
    found = in_environment if in_environment and not environment.get("AWS_PROFILE") else profile
    return {name: found[key] for key, name in names.items() if key in found}
