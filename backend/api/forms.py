"""Reading forms into plain values, for all routes."""

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.errors import MessageError
from email.header import decode_header, make_header
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MAX_BOUNDARY_LENGTH, parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from backend.api.middleware.bodies import MostBytes, has_body, keeping_request, received
from backend.api.schemas.common import SENT_BY_CLIENTS, TellsUnknown, about_unused_files
from backend.common.config import Settings
from backend.common.error_text import quoted
from backend.common.errors import InvalidRequest, MalformedRequest, TooLarge, UnsupportedImage, WrongBody
from backend.common.field_problems import problems_in_words
from backend.common.image_headers import ACCEPTED
from backend.common.json_members import refuse_repeated
from backend.utils import NamedImage

_IMAGE_FIELD = re.compile(r"(image|file)s?(\[\d*\])?")
_METAS_FIELD = re.compile(r"metas(\[\d*\])?")
_MAX_TEXT_FIELDS = 64
_MAX_META_CHARACTERS = 64 << 10
_MAX_TEXT_BYTES = 256 << 10  # of one text; so many characters of metadata in UTF-8
_MAX_TEXTS_BYTES = 16 << 20  # of all texts of a form: they are held in memory
_MAX_PREAMBLE_BYTES = 64 << 10
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
_CHARSET_FIELD = "_charset_"  # in which browsers tell the charset of a form: HTML, "constructing the entry list"
# What clients declare for images: image/*, and application/octet-stream where they do not know better.
IMAGE_TYPE = re.compile(r"(image/[\w.+-]+|(application|binary)/octet-stream)\s*(;.*)?", re.IGNORECASE)
_DAMAGED = "the form cannot be read: the headers of a part are damaged or too long, or its lines do not end with CRLF"
_NOT_AT_BEGIN = (
    "the first boundary of the form does not begin a line; send nothing before it, such as a byte order mark"
)
_LF = "the lines of the form end with LF; end them with CRLF, as multipart asks for"

Fields = TypeVar("Fields", bound=BaseModel)


@asynccontextmanager
async def complete_form(request: Request, max_files: int, also_fields: int = 0) -> AsyncIterator[FormData]:
    """The form of a request, read completely before anything waits for it.

    Raises:
        WrongBody: there is no body, or it is not a form that can contain what is needed; it is not read then.
        MalformedRequest: it is malformed, has too many parts, or its end is missing. The parser would silently drop an
            unfinished part.
        TooLarge: a file is larger than allowed; nothing after it is read.
        StorageError: there is no room for it in the folder for temporary files.
    """
    max_fields = _MAX_TEXT_FIELDS + also_fields
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"application/x-www-form-urlencoded" and has_body(request.scope):
        async with request.form(max_fields=max_fields, max_part_size=_MAX_TEXT_BYTES) as form:
            if "use_dataset" not in form:
                raise WrongBody(f"{received(request.scope)}, which contains no files")
            yield form
        return
    if kind != b"multipart/form-data" or not has_body(request.scope):
        raise WrongBody(received(request.scope))
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
        wrong = f"a boundary of more than {MAX_BOUNDARY_LENGTH} bytes" if boundary else "no boundary"
        raise MalformedRequest(f"the Content-Type multipart/form-data names {wrong}")
    # Python's decoders of names like "idna", "punycode" or "undefined" raise what no caller expects, or take minutes.
    if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
        raise MalformedRequest("The charset of the form is not UTF-8")
    settings: Settings = request.app.state.settings
    request.state.most_bytes = MostBytes(
        int(settings.max_request_mb * 2**20), "send fewer images, or raise MAX_REQUEST_MB"
    )
    max_file_bytes = int(settings.max_file_mb * 2**20)
    try:
        with keeping_request():
            parser = _FormParser(request, boundary, max_files, max_fields, max_file_bytes)
            form = await parser.parse()
    except MultiPartException as exc:
        damaged = isinstance(exc.__cause__, FormParserError)
        raise MalformedRequest(_DAMAGED if damaged else exc.message.rstrip(".")) from exc
    try:
        if not parser.complete:
            raise MalformedRequest("The upload is incomplete: its closing boundary is missing")
        yield form
    finally:
        await form.close()


async def _from_first_boundary(stream: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """A form without its preamble, which the parser would treat as damage.

    Raises:
        MalformedRequest: there is no boundary where the form begins, or one at the end of a line without CR, or one
            within a line before it. The part after it would be silently lost.
    """
    first = re.compile(rb"(?:\A|\n)(--%b(?:\r|--|(\n)))" % re.escape(boundary))
    begin, searched, found = b"", 0, None
    async for piece in stream:
        begin += piece
        if found := first.search(begin, searched):
            if found[2]:
                raise MalformedRequest(_LF)
            if b"--%b\r\n" % boundary in begin[: found.start(1)]:
                raise MalformedRequest(_NOT_AT_BEGIN)
            yield begin[found.start(1) :]
            break
        if len(begin) > _MAX_PREAMBLE_BYTES:
            break
        searched = max(0, len(begin) - len(boundary) - 4)
    if not found:
        raise MalformedRequest(
            f"the boundary {quoted(boundary.decode('latin-1'))} of the Content-Type begins no line of the body, or "
            f"none of its first {_MAX_PREAMBLE_BYTES} bytes"
        )
    async for piece in stream:
        yield piece


async def _without_bare_boundaries(form: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[bytes]:
    """A form whose parts all end with CRLF. For the parser, a boundary after LF alone is content of the previous part.

    Raises:
        MalformedRequest: a boundary follows LF alone.
    """
    line_end = b"\n--" + boundary
    bare = re.compile(rb"[^\r]%b(?:\r\n|--)" % re.escape(line_end))
    end = b""
    async for piece in form:
        joined = end + piece
        if line_end in joined and bare.search(joined):  # the former is the faster by far, and enough but for boundaries
            raise MalformedRequest(_LF)
        end = joined[-len(line_end) - 2 :]  # the byte before a boundary, and all but the last one that is looked at
        yield piece


class _FormParser(MultiPartParser):
    """Starlette's parser, with limits that apply while the form arrives."""

    def __init__(self, request: Request, boundary: bytes, max_files: int, max_fields: int, max_file_bytes: int) -> None:
        super().__init__(
            request.headers,
            _without_bare_boundaries(_from_first_boundary(request.stream(), boundary), boundary),
            max_files=max_files,
            max_fields=max_fields,
            max_part_size=_MAX_TEXT_BYTES,
        )
        self._max_file_bytes = max_file_bytes
        self._file_bytes = self._texts_bytes = 0
        self.complete = False

    def on_end(self) -> None:
        self.complete = True

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if b"\n" in data[start:end]:
            raise MalformedRequest(_LF)
        super().on_header_value(data, start, end)

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        self._file_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        file = self._current_part.file
        if file is None:
            self._texts_bytes += end - start
            if self._texts_bytes > _MAX_TEXTS_BYTES:
                raise TooLarge(f"the texts of the form are larger than {_MAX_TEXTS_BYTES} bytes")
        else:
            self._file_bytes += end - start
            if self._file_bytes > self._max_file_bytes:
                name = _name_of(file)
                raise TooLarge(f"{name}: at most {self._max_file_bytes} bytes are accepted in a file (MAX_FILE_MB)")
        super().on_part_data(data, start, end)


async def read_fields(form: FormData, model: type[Fields]) -> Fields:
    """The text fields of a form.

    Raises:
        InvalidRequest: a field is missing or out of range (the message names all of them), or was sent several times
            with different values.
    """
    sent: dict[str, list[str]] = {}
    unused_files: Counter[str] = Counter()
    doubts = []
    for name, value in form.multi_items():
        if name in model.model_fields:
            sent.setdefault(name, []).append(await _text(name, value))
        elif name == _CHARSET_FIELD:
            charset = await _text(name, value)
            if charset.strip() and charset.strip().lower().encode() not in _CHARSETS:
                doubts.append(f"{_CHARSET_FIELD} is {quoted(charset)}, but the texts of a form are read as UTF-8")
        elif _is_of_files(name) or name in SENT_BY_CLIENTS:
            continue
        elif isinstance(value, UploadFile):
            unused_files[name] += not _is_blank(value)
        elif model.model_config.get("extra") == "allow":
            sent[name] = [""]  # to be named
    texts = {name: several[-1] for name, several in sent.items()}
    for name, several in sent.items():
        if len(set(several)) > 1:
            texts[name] = _meant(name, several, is_switch=model.model_fields[name].annotation is bool)
            doubts.append(f"{_sent_differently(name, several)}: {quoted(texts[name])} is used")
    try:
        fields = model.model_validate(texts)
    except ValidationError as exc:
        raise InvalidRequest(problems_in_words(exc.errors())) from exc
    if isinstance(fields, TellsUnknown):
        doubts += [about_unused_files(unused)] if (unused := +unused_files) else []
        fields.also_tell(*doubts)
    return fields


def _meant(name: str, sent: Sequence[str], *, is_switch: bool) -> str:
    """Which of several different texts of a field counts.

    Empty texts do not count. For a switch, the last text counts: web frameworks put a hidden "false" before a check
    box.

    Raises:
        InvalidRequest: this cannot be decided.
    """
    filled = [text for text in sent if text.strip()]
    if len(set(filled)) > 1 and not is_switch:
        raise InvalidRequest(f"{_sent_differently(name, sent)}; send it once")
    return (filled or sent)[-1]


def _sent_differently(name: str, sent: Sequence[str]) -> str:
    values = ", ".join(map(quoted, dict.fromkeys(sent)))
    return f"{name} was sent {len(sent)} times with different values ({values})"


def images_of(form: FormData) -> list[NamedImage]:
    """The images of a form, in the order of the request.

    Their fields are ``images``, ``image``, ``files`` and ``file``, each also with ``[]``, ``[0]`` and so on.

    Raises:
        InvalidRequest, UnsupportedImage: see `image_of`.
    """
    return [
        image_of(value) for name, value in form.multi_items() if _IMAGE_FIELD.fullmatch(name) and not _is_blank(value)
    ]


def only_image_of(form: FormData) -> NamedImage:
    """The one image of a form, in a field as for `images_of`.

    Raises:
        InvalidRequest, UnsupportedImage: there are none, or several; see also `image_of`.
    """
    images = images_of(form)
    if len(images) != 1:
        raise InvalidRequest(f"send exactly one image in the file field 'image', not {len(images)}")
    return images[0]


def image_of(value: UploadFile | str) -> NamedImage:
    """A file of a form; its bytes are read only when they are needed.

    Raises:
        InvalidRequest: it is a text, not a file.
        UnsupportedImage: it is declared as something other than an image.
    """
    if isinstance(value, str):
        raise InvalidRequest("the image arrived as text; send it as a file, with a file name")
    name = _name_of(value)
    if value.content_type and not IMAGE_TYPE.fullmatch(value.content_type.strip()):
        raise UnsupportedImage(
            f"{name}: content type {value.content_type!r} is not an image type; send a {ACCEPTED} image"
        )
    file = value.file

    def read() -> bytes:
        file.seek(0)
        return file.read()

    return NamedImage(name, read)


def _is_of_files(name: str) -> bool:
    """Whether a field is one of those that `images_of` and `metas_of` read."""
    return bool(_IMAGE_FIELD.fullmatch(name) or _METAS_FIELD.fullmatch(name))


def _is_blank(value: UploadFile | str) -> bool:
    """Whether it is what a browser sends for a file field without a file."""
    return isinstance(value, UploadFile) and not value.filename and not value.size


async def metas_of(form: FormData) -> list[dict[str, Any]]:
    """The metadata of uploaded images: a part ``metas`` for each, or one part with an array.

    Raises:
        InvalidRequest: it is not JSON, or not an object.
    """
    texts = [await _text(name, value) for name, value in form.multi_items() if _METAS_FIELD.fullmatch(name)]
    parsed = [_parse_meta(text) for text in texts]
    metas = parsed[0] if len(parsed) == 1 and isinstance(parsed[0], list) else parsed
    if not all(isinstance(meta, dict) for meta in metas):
        raise InvalidRequest("metas: send a JSON object for each image")
    return metas


def _name_of(file: UploadFile) -> str:
    return re.split(r"[/\\]", _decoded(file.filename or "image"))[-1]


def _decoded(filename: str) -> str:
    """The name of a file; .NET clients encode names that are not ASCII as in mail headers (RFC 2047)."""
    try:
        decoded = str(make_header(decode_header(filename)))
        decoded.encode()  # UTF-7 holds halves of characters, which no reply could name
    except (MessageError, LookupError, ValueError):
        return filename
    return decoded


async def _text(name: str, value: UploadFile | str) -> str:
    if isinstance(value, str):
        return value
    content = await value.read(_MAX_TEXT_BYTES + 1)  # a text part that carries a file name arrives as a file
    if len(content) > _MAX_TEXT_BYTES:
        raise TooLarge(f"{name}: the text is larger than {_MAX_TEXT_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{name}: the text is not UTF-8") from exc


def _parse_meta(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    if len(text) > _MAX_META_CHARACTERS:
        raise InvalidRequest(f"metas: {len(text)} characters, at most {_MAX_META_CHARACTERS} are accepted")
    try:
        meta = json.loads(text, parse_constant=refuse)
        json.dumps(
            meta, ensure_ascii=False, allow_nan=False
        ).encode()  # half a character can be escaped, and then not be sent
        refuse_repeated(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("metas: this is not JSON; send a JSON object for each image") from exc
    return meta
