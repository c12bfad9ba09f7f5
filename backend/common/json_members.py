"""Members that occur several times in a JSON object: parsers would take the last one."""

import contextlib
import json
import reprlib
from typing import Any

from backend.common.error_text import quoted
from backend.common.errors import InvalidRequest


def refuse_repeated(text: str | bytes) -> None:
    """Refuse JSON in which an object has a member several times with different values.

    Args:
        text: JSON. Other text passes here: the parser refuses it later.

    Raises:
        InvalidRequest: it has one; the message names it.
    """
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members and members[name] != value:
            both = " and ".join(quoted(reprlib.repr(each)) for each in (members[name], value))
            raise InvalidRequest(f"{quoted(name)} was sent several times with different values, {both}; send it once")
        members[name] = value
    return members
