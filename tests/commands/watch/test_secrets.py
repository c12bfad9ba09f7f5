"""Keys and tokens that travel in headers."""

import pytest
from pydantic import SecretStr

from backend.commands.watch.secrets import in_header
from backend.common.errors import InvalidRequest


def test_a_secret_is_sent_as_it_was_given():
    assert in_header(SecretStr("a key!"), "WATCH_API_KEY") == "a key!"
    assert in_header(None, "WATCH_API_KEY") is None


@pytest.mark.parametrize("value", ["geheim\n", " geheim", "gehe\u00fcim", "geheim\x00"])
def test_a_secret_that_no_header_may_hold_is_refused_and_not_shown(value):
    with pytest.raises(InvalidRequest, match="WATCH_API_KEY") as exc:
        in_header(SecretStr(value), "WATCH_API_KEY")
    assert "gehe" not in str(exc.value)
