"""Waiting before something is tried again."""

import random
import time


def wait_with_jitter(seconds: float) -> None:
    """Wait for about as long, half of it to one and a half: so that not all who wait come again at once."""
    time.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311 - nothing secret
