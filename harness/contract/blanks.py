"""Blanks everything that differs between two runs of the same checkout: times, new names and ids, folders."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from html import unescape
from typing import Any

from harness.contract.sentences import SENTENCE, is_sentence, without_sentences

_PICTURES = frozenset({"heatmap_png_base64", "picture_png_base64"})
_MEASURED = frozenset({"ms", "ms_per_image"})
# The test for drift draws lots.
_DRAWN = frozenset({"evidence", "wealth"})
_TRACE = "trace"
# Of an OpenAPI document, in whatever order.
_PATHS = "paths"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?")
_HASH_OF_SENTENCES = re.compile(r"(?<=/calib\.)[0-9a-f]{16}(?=\.scores\.json$)")
_STORED_NAME = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{8}")
_STRING_OR_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{},:]+')
_CLOCK_MARGIN = timedelta(minutes=2)


class Number(str):
    """A number of JSON, digit by digit as it was written."""

    __slots__ = ()


class Blanks:
    """Blanks the texts of one run.

    Args:
        words: what stands in the place of words that are of this run only, such as the path of a folder.
        sentences: whether sentences are blanked, too.
    """

    def __init__(self, words: Mapping[str, str], *, sentences: bool = False) -> None:
        self._words = dict(words)
        self.sentences = sentences
        self._since = datetime.now(timezone.utc) - _CLOCK_MARGIN
        self._names: dict[str, str] = {}

    def text(self, text: str) -> str:
        """A text without words, times and made names of this run."""
        for word, placeholder in self._words.items():
            text = text.replace(word, placeholder)
        text = _STORED_NAME.sub(self._stored_name, text)
        return _TIME.sub(self._time, text)

    def prose(self, text: str) -> str:
        """As `text`, of what is written for people."""
        text = self.text(text)
        return without_sentences(unescape(text)) if self.sentences else text

    def path(self, path: str) -> str:
        """As `text`, of the path of a file. Some names have the hash of a file with sentences."""
        path = self.text(path)
        return _HASH_OF_SENTENCES.sub("<hash>", path) if self.sentences else path

    def json(self, value: Any, name: str = "") -> Any:
        """What `parse` gave, without what is of this run only.

        Args:
            value: the value.
            name: of the member that it is, or is in.
        """
        if isinstance(value, dict):
            if name in _DRAWN:
                return dict.fromkeys(value, "<drawn>")
            if name == _PATHS:
                value = dict(sorted(value.items()))
            return {self.text(member): self.json(inner, member) for member, inner in value.items()}
        if isinstance(value, list):
            return [self.json(inner, name) for inner in value]
        if isinstance(value, Number):
            return self._number(value, name)
        return self._string(value, name) if isinstance(value, str) else value

    def _number(self, value: Number, name: str) -> str:
        if name in _MEASURED:
            return "<measured>"
        if name in _DRAWN:
            return "<drawn>"
        return "<time>" if self._is_now(float(value)) else value

    def _string(self, value: str, name: str) -> str:
        if name == _TRACE:
            return "<trace>" if value else ""
        if name in _PICTURES:
            return f"<picture: {sized(_from_base64(value))}>"
        if self.sentences and is_sentence(name, value):
            return SENTENCE
        return self.text(value)

    def _stored_name(self, match: re.Match[str]) -> str:
        """The name of a stored image: its number in the order in which names of this run were met."""
        try:
            time = datetime.strptime(match[0][:15], "%Y%m%d-%H%M%S").replace(tzinfo=timezone.utc)
        except ValueError:
            return match[0]
        if not self._is_now(time.timestamp()):
            return match[0]
        return self._names.setdefault(match[0], f"<image {len(self._names) + 1}>")

    def _time(self, match: re.Match[str]) -> str:
        try:
            time = datetime.fromisoformat(match[0][:16]).replace(tzinfo=timezone.utc)
        except ValueError:
            return match[0]
        return re.sub(r"\d", "0", match[0]) if self._is_now(time.timestamp()) else match[0]

    def _is_now(self, seconds: float) -> bool:
        return self._since.timestamp() <= seconds <= (datetime.now(timezone.utc) + _CLOCK_MARGIN).timestamp()


def is_uuid(text: str) -> bool:
    """Whether this is an id that somebody made.

    >>> is_uuid("0f8fad5b-d9cb-469f-a165-70867728950e"), is_uuid("my own id")
    (True, False)
    """
    return _UUID.fullmatch(text) is not None


def parse(text: str) -> Any:
    """JSON, with every number as it was written.

    Raises:
        ValueError: it is no JSON.
    """
    return json.loads(text, parse_float=Number, parse_int=Number, parse_constant=Number)


def pretty(value: Any, indent: str = "") -> str:
    """What `parse` gave, a line for each value, and for each list of numbers.

    >>> print(pretty(parse('{"a":[1E-05,2.0],"b":[{},null]}')))
    {
      "a": [1E-05, 2.0],
      "b": [
        {},
        null
      ]
    }
    """
    inner = indent + "  "
    if isinstance(value, dict) and value:
        members = [
            f"{inner}{json.dumps(name, ensure_ascii=False)}: {pretty(item, inner)}" for name, item in value.items()
        ]
        return "{\n" + ",\n".join(members) + f"\n{indent}}}"
    if isinstance(value, list) and not all(isinstance(item, Number) for item in value):
        return "[\n" + ",\n".join(inner + pretty(item, inner) for item in value) + f"\n{indent}]"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return str(value) if isinstance(value, Number) else json.dumps(value, ensure_ascii=False)


def layout_of(text: str) -> str:
    """What stands between the values of JSON: a hash of its blanks, lines and commas, and of which texts have escapes.

    >>> layout_of('{"a":1}') == layout_of('{"b":2.5}'), layout_of('{"a":1}') == layout_of('{"a": 1}')
    (True, False)
    """
    return digest(_STRING_OR_VALUE.sub(lambda match: "u" if "\\u" in match[0] else "v", text).encode())[:16]


def digest(content: bytes) -> str:
    """The sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sized(content: bytes) -> str:
    """Some bytes by their number and their hash."""
    return f"{len(content)} bytes, sha256 {digest(content)}"


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
