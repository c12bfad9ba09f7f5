"""Waiting before a retry."""

import random
import time


def wait_with_jitter(seconds: float) -> None:
    """Wait for 0.5 to 1.5 times the given time, so that not all waiting clients retry at once."""
    time.sleep(seconds * random.uniform(0.5, 1.5))  # noqa: S311 - nothing secret
