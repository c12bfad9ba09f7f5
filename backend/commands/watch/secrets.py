"""Secrets of `watch`, which are not on the command line, because others could read them in the list of processes."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from backend.common.errors import InvalidRequest

KEY, TOKEN = "WATCH_API_KEY", "WATCH_WEBHOOK_TOKEN"
USERNAME, PASSWORD = "WATCH_MQTT_USERNAME", "WATCH_MQTT_PASSWORD"


class Secrets(BaseSettings):
    """Environment variables of the same names in capitals; nothing prints them."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    watch_api_key: SecretStr | None = Field(default=None, description="key of the service at --url")
    watch_webhook_token: SecretStr | None = Field(
        default=None, description="of --webhook, sent as Authorization: Bearer"
    )
    watch_mqtt_username: str | None = Field(default=None, description="of the broker of --mqtt")
    watch_mqtt_password: SecretStr | None = Field(default=None, description="of the broker of --mqtt")


def in_header(secret: SecretStr | None, variable: str) -> str | None:
    """A secret for an HTTP header.

    Args:
        secret: the secret.
        variable: its environment variable.

    Raises:
        InvalidRequest: it is not allowed in a header.
    """
    if secret is None:
        return None
    value = secret.get_secret_value()
    if not (value.isascii() and value.isprintable() and value == value.strip()):
        raise InvalidRequest(
            f"{variable} has a character that is not allowed in a header, such as an umlaut, or begins or ends with "
            "a space or line break"
        )
    return value
