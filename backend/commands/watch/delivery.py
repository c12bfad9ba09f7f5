"""Sending verdicts: a thread for each channel sends its messages in order, and repeats each until it has arrived."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from backend.commands.watch.journal import Journal, Message

_LOOK_EVERY_S = 0.05
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0


class Undelivered(Exception):
    """A message did not arrive; it will be sent again.

    Attributes:
        retry_after_s: how long the receiver asks to wait, in seconds; None if it does not.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Channel(Protocol):
    """A way to a receiver.

    Attributes:
        name: of its messages in the journal.
    """

    name: str

    def send(self, message: Message) -> None:
        """Send a message; when this returns, it has arrived.

        Raises:
            Undelivered: it may not have arrived.
        """

    def close(self) -> None:
        """End the connection."""


class Delivery(threading.Thread):
    """Sends the messages of a channel until it is closed. Unsent messages wait in the journal.

    Args:
        journal: has the messages.
        channel: sends them.
        say: tells people once that messages do not arrive, with the reason, and once that they arrive again.

    Attributes:
        failure: what ended it; None while it runs, or was closed.
    """

    def __init__(self, journal: Journal, channel: Channel, say: Callable[[str], None]) -> None:
        super().__init__(name=f"delivery-{channel.name}", daemon=True)
        self.channel = channel
        self.failure: Exception | None = None
        self._journal = journal
        self._say = say
        self._more = threading.Event()
        self._closing = threading.Event()

    def wake(self) -> None:
        """Announce new messages."""
        self._more.set()

    def close(self, patience_s: float) -> None:
        """Wait until everything is sent, at most for these seconds, and end."""
        deadline = time.monotonic() + patience_s
        while self.is_alive() and time.monotonic() < deadline and self._journal.next_message(self.channel.name):
            time.sleep(_LOOK_EVERY_S)
        self._closing.set()
        self._more.set()
        self.join()

    def run(self) -> None:
        """As of `Thread`."""
        try:
            while not self._closing.is_set():
                message = self._journal.next_message(self.channel.name)
                if message is None:
                    self._more.wait()
                    self._more.clear()
                elif self._sent(message):
                    self._journal.delivered(message)
        except Exception as exc:
            self.failure = exc  # the loop that judges raises it
        finally:
            self.channel.close()

    def _sent(self, message: Message) -> bool:
        """Whether a message arrived before the channel was closed."""
        wait_s, told = _FIRST_WAIT_S, ""
        while True:
            try:
                self.channel.send(message)
            except Undelivered as exc:
                if str(exc) != told:
                    told = str(exc)
                    self._say(f"{self.channel.name}: {exc}. The message is sent again until it arrives.")
                if self._closing.wait(max(wait_s, exc.retry_after_s or 0)):
                    return False
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                if told:
                    self._say(f"{self.channel.name}: messages arrive again.")
                return True
