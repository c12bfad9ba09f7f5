"""A webhook: each verdict is posted as JSON to an address."""

import logging

import httpx2

from backend.commands.watch.delivery import Undelivered
from backend.commands.watch.journal import Message
from backend.commands.watch.service_judge import address_of, retry_after_s

_PATIENCE_S = 30.0


class Webhook:
    """Posts messages.

    Args:
        url: where to.
        token: sent as ``Authorization: Bearer``; None sends none.

    Raises:
        InvalidRequest: the address cannot be used.
    """

    name = "webhook"

    def __init__(self, url: str, token: str | None) -> None:
        self._address = address_of(url, "--webhook")
        # At level info it writes down every address with its path, which may hold a secret.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        self._client = httpx2.Client(headers=headers, timeout=_PATIENCE_S)

    def send(self, message: Message) -> None:
        """As of `Channel`. What is not answered with 2xx has not arrived."""
        try:
            reply = self._client.post(
                self._address, content=message.body.encode(), headers={"Idempotency-Key": message.id}
            )
        except httpx2.RequestError as exc:  # a reply that cannot be decoded, too
            raise Undelivered(f"{self._address.host} does not answer ({type(exc).__name__})") from exc
        if not reply.is_success:
            # Without its path for the same reason.
            raise Undelivered(f"{self._address.host} answered with status {reply.status_code}", retry_after_s(reply))

    def close(self) -> None:
        """As of `Channel`."""
        self._client.close()
