"""The only translation of errors into ``{"error", "trace", "code"}``, without absolute paths."""

import re
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePath
from types import TracebackType

from backend.common.errors import ErrorCode

_PROJECT_ROOT = PurePath(__file__).parents[2]
# A GUI generation in the field takes a /fit_ok error whose body contains one of these for success.
_MISREAD_AS_SUCCESS = {
    "already trained": "trained before",
    "already exists": "is there before",
    "ya entrenad": "antes entrenad",
    "memoria existente": "memoria anterior",
}
# Two or more folders, or a drive: "/fit_ok" is an endpoint, "/srv/models/x" a path. Between quotes it may hold spaces.
# Backslashes come doubled where a path was printed with repr.
_ABSOLUTE_PATH = re.compile(
    r"""(?P<quote>['"])(?:[A-Za-z]:(?:[/\\]+[^'"/\\]+)+|(?:[/\\]+[^'"/\\]+){2,})[/\\]*(?P=quote)
    |(?<![\w.:/\\])(?:[A-Za-z]:(?:[/\\]+[^/\\\s'"<>|:*?,;()]+)+|(?:[/\\]+[^/\\\s'"<>|:*?,;()]+){2,})[/\\]*""",
    re.VERBOSE,
)


# Of a message, which may quote what a client sent, the beginning and the end are told.
_HEAD_CHARACTERS, _TAIL_CHARACTERS = 1500, 500
MOST_NAMES = 5
"""Of names that a client sent, so many are told."""
_SHOWN_CHARACTERS = 60


def error_reply(error: str, exc: BaseException | None, *, code: ErrorCode, with_trace: bool) -> dict[str, str]:
    """The body of every error reply.

    Args:
        error: what went wrong and what to do about it, with only the client's own paths and ids.
        exc: the exception behind it; its frames become the trace.
        code: the same for programs.
        with_trace: ``False`` leaves the trace empty (shared deployments).

    Returns:
        ``{"error": str, "trace": str, "code": str}``, long messages shortened in the middle, the trace without absolute
        paths; neither contains a phrase that clients misread.
    """
    trace = format_trace(exc) if with_trace and exc is not None else ""
    return {"error": _defuse(_shorten(error)), "trace": _defuse(trace), "code": code}


def format_trace(exc: BaseException) -> str:
    """The traceback of `exc` and its causes, with every file named relative to the project or its package."""
    lines: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        block = _frames(link.__traceback__)
        block.append(f"{type(link).__name__}: {strip_paths(_shorten(str(link)))}\n")
        lines = block + (["\n"] if lines else []) + lines
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "".join(lines)


def strip_paths(text: str) -> str:
    """`text` with every absolute path reduced to its last component."""

    def last_component(match: re.Match[str]) -> str:
        quote = match["quote"] or ""
        return quote + re.split(r"[/\\]", match[0].strip("'\"").rstrip("/\\"))[-1] + quote

    return _ABSOLUTE_PATH.sub(last_component, text)


def _frames(tb: TracebackType | None) -> list[str]:
    return [
        f'  File "{_relative(frame.filename)}", line {frame.lineno}, in {frame.name}\n    {frame.line or ""}\n'
        for frame in traceback.extract_tb(tb)
    ]


def _relative(filename: str) -> str:
    path = PurePath(filename)
    if path.is_relative_to(_PROJECT_ROOT) and "site-packages" not in path.parts:
        return path.relative_to(_PROJECT_ROOT).as_posix()
    if "site-packages" in path.parts:
        return PurePath(*path.parts[path.parts.index("site-packages") + 1 :]).as_posix()
    return path.name


def _shorten(text: str) -> str:
    if len(text) <= _HEAD_CHARACTERS + _TAIL_CHARACTERS:
        return text
    return f"{text[:_HEAD_CHARACTERS]} … {text[-_TAIL_CHARACTERS:]}"


def _defuse(text: str) -> str:
    for phrase, harmless in _MISREAD_AS_SUCCESS.items():
        text = re.sub(phrase, harmless, text, flags=re.IGNORECASE)
    return text


def quoted(text: str) -> str:
    r"""A text of a client, in quotes, shortened and in ASCII.

    >>> quoted("ñ" * 3)
    "'\\\\xf1\\\\xf1\\\\xf1'"
    """
    return repr(text[:_SHOWN_CHARACTERS].encode("ascii", "backslashreplace").decode())


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The most similar known name; None if no name is similar."""
    return next(iter(get_close_matches(name.lower(), known, n=1)), None)


def about_unknown(names: Sequence[str], known: Sequence[str]) -> str:
    """A remark about names without effect, each with the most similar known name.

    >>> about_unknown(["area_mm2", "threshold"], ["area_mm2_thr", "ok_scores"])
    "unknown and without effect: 'area_mm2' (did you mean area_mm2_thr?), 'threshold'"
    """
    told = []
    for name in names[:MOST_NAMES]:
        like = nearest(name, known)
        told.append(quoted(name) + (f" (did you mean {like}?)" if like else ""))
    more = len(names) - len(told)
    return f"unknown and without effect: {', '.join(told)}" + (f" and {more} more" if more else "")
