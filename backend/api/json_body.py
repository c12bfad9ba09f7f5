"""Parsing large JSON bodies into models."""

import json
import re
from tempfile import SpooledTemporaryFile
from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from backend.api.middleware.bodies import MostBytes, has_body, keeping_request, received
from backend.common.config import Settings
from backend.common.errors import InvalidRequest, MalformedRequest, TooLarge, WrongBody
from backend.common.json_members import refuse_repeated
from backend.service.gui_layouts import MAX_LAYOUT_BYTES

SEND_JSON = "send a JSON object in UTF-8, not compressed, with Content-Type: application/json"
_JSON_TYPE = re.compile(r"application/([\w.+-]+\+)?json\s*(;.*)?", re.IGNORECASE)
# Two million scores, and what else a client may send. Each value takes some 30 bytes of memory, and of JSON only two.
_MAX_JSON_VALUES = 2_001_000
_IN_MEMORY_BYTES = 1 << 20
Fields = TypeVar("Fields", bound=BaseModel)


def max_json_bytes(settings: Settings) -> int:
    """The largest JSON body, in bytes."""
    return int(min(settings.max_json_mb, settings.max_request_mb) * 2**20)


def max_layout_bytes(settings: Settings) -> int:
    """The largest layout, in bytes."""
    return min(MAX_LAYOUT_BYTES, max_json_bytes(settings))


def check_json_type(request: Request) -> None:
    """Refuse a body whose ``Content-Type`` is not JSON.

    Raises:
        WrongBody: the body is of another kind, or there is none.
    """
    if not has_body(request.scope) or not _JSON_TYPE.fullmatch(request.headers.get("content-type", "")):
        raise WrongBody(received(request.scope))


async def read_json(request: Request, model: type[Fields]) -> Fields:
    """A JSON body that may be large. Its bytes are kept in a file, and only one body at a time is parsed.

    Raises:
        HTTPException: it is larger than ``MAX_JSON_MB``.
        WrongBody: see `check_json_type`; it is not read then.
        MalformedRequest: it is too deep, or not UTF-8.
        TooLarge: it has too many values; the rest is not read.
        InvalidRequest: it has a member several times with different values.
        RequestValidationError: it is not JSON, or does not match the model.
        StorageError: there is no room for it in the folder for temporary files.
    """
    check_json_type(request)
    most_bytes = max_json_bytes(request.app.state.settings)
    request.state.most_bytes = MostBytes(most_bytes, "send fewer scores, or raise MAX_JSON_MB")
    n_values = 0
    with keeping_request(), SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
        async for piece in request.stream():
            n_values += sum(map(piece.count, (b",", b"[", b"{")))  # every value but the first is behind one of them
            if n_values > _MAX_JSON_VALUES:
                raise TooLarge(f"the JSON holds more than {_MAX_JSON_VALUES} values; send fewer scores")
            file.write(piece)
        file.seek(0)
        content = file.read()
    # Not in a thread, where others would hold their bytes meanwhile: the parser lets nothing else run in any case.
    return _parse_json(content, model)


async def read_json_object(request: Request, most_bytes: int) -> bytes:
    """A body that is any JSON object: its bytes as they arrived, without a byte order mark.

    Raises:
        HTTPException: it is larger than `most_bytes`.
        WrongBody: see `check_json_type`; it is not read then.
        MalformedRequest: it is not JSON, too deep, or not UTF-8.
        InvalidRequest: it is not an object, or has a member several times with different values.
    """
    check_json_type(request)
    request.state.most_bytes = MostBytes(most_bytes, "send less")
    content = await request.body()
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise MalformedRequest("There was an error parsing the body") from exc
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object; {SEND_JSON}")
    refuse_repeated(text)
    return text.encode()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_json(content: bytes, model: type[Fields]) -> Fields:
    cannot_be_parsed = MalformedRequest("There was an error parsing the body")
    try:
        text = content.decode("utf-8-sig")
        fields = model.model_validate_json(text)
    except UnicodeDecodeError as exc:
        raise cannot_be_parsed from exc
    except ValidationError as exc:
        problems = exc.errors()
        if "recursion limit" in problems[0]["msg"]:
            raise cannot_be_parsed from exc
        raise RequestValidationError([{**problem, "loc": ("body", *problem["loc"])} for problem in problems]) from exc
    # To parse millions of numbers again takes seconds. A member that is there twice has its name in the text twice,
    # unless one is written with escapes.
    if "\\" in text or any(text.count(f'"{name}"') > 1 for name in model.model_fields):
        refuse_repeated(text)
    return fields
