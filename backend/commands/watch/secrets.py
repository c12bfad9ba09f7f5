"""What `watch` keeps out of the command line, where others could read it in the list of processes."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

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
