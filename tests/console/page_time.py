"""The time of a page, which a test lets pass: what a page does within seconds is tested on machines of any speed."""

from typing import Any

# Playwright replaces timers and clocks of a page, and leaves this one out.
_TIMEOUT_BY_TIMER = """AbortSignal.timeout = (ms) => {
  const abort = new AbortController();
  setTimeout(() => abort.abort(new DOMException("it took too long", "TimeoutError")), ms);
  return abort.signal;
};"""


def take_over_time(page: Any) -> None:
    """Before a page is opened: its time passes as ever, until `pass_and_stop`."""
    page.clock.install()
    page.add_init_script(_TIMEOUT_BY_TIMER)


def pass_and_stop(page: Any, seconds: float) -> None:
    """Let so many seconds pass for the page at once, and no more until ``page.clock.resume()``."""
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + seconds)
