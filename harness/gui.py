"""Clients that write the GUI's wire format: .NET multipart, chunked JSON, shortest numbers; they read as strictly."""

import http.client
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

_BOUNDARY = "4f6b1d0e-6e0a-4a8e-9a55-0c1a7f3f2b11"


@dataclass(frozen=True)
class Reply:
    """What came back; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON without NaN and Infinity."""

        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is not JSON")

        return json.loads(self.content, parse_constant=refuse)

    def read(self, members: dict[str, Any]) -> dict[str, Any]:
        """The members of an object as the GUI's reader finds them.

        Names are case-insensitive and unknown ones ignored. A missing value reads as 0, false, or null; null is an
        error for a number or truth value that cannot be null (types ending in ``?`` can), and 3.0 is none for an int.
        """
        return read_object(self.json, members)


def read_object(values: Any, members: dict[str, Any]) -> dict[str, Any]:
    """The members of an object that is read already; see `Reply.read`."""
    assert isinstance(values, dict), values
    given = {name.lower(): value for name, value in values.items()}
    return {name: _read(given.get(name.lower(), _MISSING), kind, name) for name, kind in members.items()}


_MISSING = object()
_ZEROS = {"int": 0, "double": 0.0, "bool": False}
_TYPES = {"int": int, "double": int | float, "bool": bool, "string": str}


def _read(value: Any, kind: Any, name: str) -> Any:
    if isinstance(kind, dict):
        return None if value in (_MISSING, None) else read_object(value, kind)
    if isinstance(kind, list):
        return None if value in (_MISSING, None) else [_read(item, kind[0], name) for item in value]
    if value is _MISSING:
        return _ZEROS.get(kind)
    if value is None:
        assert kind not in _ZEROS, f"{name}: null"
        return None
    base = kind.removesuffix("?")
    assert isinstance(value, _TYPES[base]), f"{name}: {value!r} is no {kind}"
    assert base == "bool" or not isinstance(value, bool), f"{name}: {value!r} is no {kind}"
    return value


@dataclass
class Part:
    """A part of a form: a text, or a file where it has a file name."""

    name: str
    content: bytes
    content_type: str = "text/plain; charset=utf-8"
    filename: str | None = None

    def encoded(self) -> bytes:
        """Its bytes between two delimiters."""
        # .NET quotes names only when they hold characters like brackets.
        name = f'"{self.name}"' if "[" in self.name else self.name
        disposition = f"form-data; name={name}"
        if self.filename is not None:
            disposition += f"; filename={self.filename}; filename*=utf-8''{self.filename}"
        head = f"Content-Type: {self.content_type}\r\nContent-Disposition: {disposition}\r\n\r\n"
        return head.encode() + self.content


def number(value: float) -> str:
    """Doubles as .NET prints them: ``1``, ``0.2``, ``1E-05``."""
    text = repr(float(value)).removesuffix(".0")
    return text.replace("e-", "E-").replace("e+", "E+")


def image_parts(images: list[bytes], field: str = "images") -> list[Part]:
    """File parts; `field` may hold ``{}`` for the number of the image, as in ``images[{}]``."""
    return [Part(field.format(index), content, "image/png", f"ok_{index}.png") for index, content in enumerate(images)]


def multipart_body(parts: list[Part]) -> tuple[bytes, dict[str, str]]:
    """The body of a form, and the header that announces it."""
    delimiter = f"--{_BOUNDARY}\r\n".encode()
    body = b"".join(delimiter + part.encoded() + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f'multipart/form-data; boundary="{_BOUNDARY}"'}


@dataclass
class Gui:
    """A client without recipes; each request has a connection of its own.

    Attributes:
        host, port: of the service.
        headers: sent with every request.
        patience_s: how long it waits for a reply.
    """

    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict)
    patience_s: float = field(default=120, kw_only=True)

    def get(self, path: str) -> Reply:
        """Ask for a path."""
        return self.send("GET", path)

    def multipart(self, path: str, parts: list[Part]) -> Reply:
        """Send a form."""
        return self.send("POST", path, *multipart_body(parts))

    def chunked_json(self, path: str, text: str) -> Reply:
        """Send JSON in chunks, without a length."""
        data = text.encode()
        chunks = (data[start : start + 7] for start in range(0, len(data), 7))
        return self.send("POST", path, chunks, {"Content-Type": "application/json; charset=utf-8"})

    def ask(self, path: str, method: str = "GET", **query: str) -> Reply:
        """Send a request without a body."""
        return self.send(method, f"{path}?{urlencode(query)}")

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send a request; a body that is not bytes is iterated over and sent in chunks."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=self.patience_s)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            all_headers = {**self.headers, **(headers or {}), **({"Transfer-Encoding": "chunked"} if chunked else {})}
            connection.request(method, path, body, all_headers, encode_chunked=chunked)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def roi(self, role: str, roi: str, mm_per_px: float = 0.2) -> list[Part]:
        """The texts that every form begins with."""
        texts = {"role_id": role, "roi_id": roi, "mm_per_px": number(mm_per_px)}
        return [Part(name, text.encode()) for name, text in texts.items()]

    def fit(self, role: str, roi: str, images: list[bytes], *, field: str = "images", **texts: str) -> Reply:
        """Fit on these images; `texts` are further fields."""
        extra = [Part(name, text.encode()) for name, text in texts.items()]
        return self.multipart("/fit_ok", [*self.roi(role, roi), *image_parts(images, field), *extra])

    def infer(self, role: str, roi: str, image: bytes, shape: str | None = None, mm_per_px: float = 0.2) -> Reply:
        """Infer one image."""
        parts = [*self.roi(role, roi, mm_per_px), Part("image", image, "image/png", "crop.png")]
        return self.multipart("/infer", parts + ([] if shape is None else [Part("shape", shape.encode())]))

    def calibrate(self, role: str, roi: str, ok: list[float], ng: list[float] | None, **numbers: float) -> Reply:
        """Calibrate by scores; `numbers` are further members."""
        ok_text = "[" + ",".join(map(number, ok)) + "]"
        ng_text = "null" if ng is None else "[" + ",".join(map(number, ng)) + "]"
        extra = "".join(f',"{name}":{number(value)}' for name, value in numbers.items())
        return self.chunked_json(
            "/calibrate_ng",
            f'{{"role_id":"{role}","roi_id":"{roi}","mm_per_px":0.2,"ok_scores":{ok_text},"ng_scores":{ng_text}{extra}}}',
        )


REGION = dict.fromkeys(("x", "y", "w", "h", "area_px", "area_mm2"), "double") | {"bbox": ["double"]}
HEALTH = dict.fromkeys(("status", "device", "model", "version", "reason", "request_id", "recipe_id"), "string")
FIT = {"n_embeddings": "int", "coreset_size": "int", "token_shape": ["int"]}
CALIBRATION = dict.fromkeys(("threshold", "ok_mean", "ng_mean", "score_percentile", "area_mm2_thr"), "double")
SEED_INFERENCE = {"score": "double", "threshold": "double", "heatmap_png_base64": "string", "regions": [REGION]}
HEAD_INFERENCE = SEED_INFERENCE | {
    "threshold": "double?",
    "decision": "string",
    "request_id": "string",
    "recipe_id": "string",
}
STATE = {
    **dict.fromkeys(("status", "request_id", "recipe_id", "role_id", "roi_id", "model_key"), "string"),
    "memory_fitted": "bool",
    "calib_present": "bool",
}
DATASET_CALIBRATION = {
    "threshold": "double",
    "score_percentile": "int",
    "area_mm2_thr": "double",
    "n_ok": "int",
    "n_ng": "int",
    "role_id": "string",
    "roi_id": "string",
    "recipe_id": "string",
    "request_id": "string",
}
DATASET_INFERENCE = {
    "status": "string",
    "n_total": "int",
    "n_errors": "int",
    "items": [
        {
            "label": "string",
            "filename": "string",
            "mm_per_px": "double",
            "score": "double",
            "threshold": "double?",
            "regions": [REGION],
            "n_regions": "int",
            "heatmap_png_base64": "string",
            "error": "string",
        }
    ],
}


@dataclass
class Head(Gui):
    """The newest generation: a recipe in a header of every call, stored images, decisions."""

    layout: str = "My Layout 1"

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Send a request under a new id, which must come back."""
        request_id = str(uuid.uuid4())
        own = {"X-Request-Id": request_id, "X-Recipe-Id": self.layout}
        reply = super().send(method, path, body, {**own, **(headers or {})})
        assert reply.headers["x-request-id"] == request_id
        return reply

    def upload(self, role: str, roi: str, label: str, images: Sequence[bytes], metas: Sequence[str] = ()) -> Reply:
        """Store images, with their metadata."""
        parts = [Part(name, text.encode()) for name, text in {"role_id": role, "roi_id": roi}.items()]
        parts += image_parts(list(images))
        parts += [Part("metas", meta.encode(), "application/json; charset=utf-8") for meta in metas]
        return self.multipart(f"/datasets/{label}/upload", parts)

    def fit_dataset(self, role: str, roi: str, mm_per_px: float = 0.2) -> Reply:
        """Fit on the stored images."""
        texts = [Part("use_dataset", b"true"), Part("model_key", roi.encode())]
        return self.multipart("/fit_ok", [*self.roi(role, roi, mm_per_px), *texts])


def meta(role: str, roi: str, label: str, filename: str, mm_per_px: float = 0.2, shape: str = "") -> str:
    """The metadata of an image as the newest generation writes them."""
    return json.dumps(
        {
            "role_id": role,
            "roi_id": roi,
            "label": label,
            "filename": filename,
            "angle": 12.5,
            "timestamp": "2026-01-07T10:11:12.1234567Z",
            "mm_per_px": "@",
            "shape_json": shape,
            "created_at_utc": "2026-01-07T10:11:12.1234567Z",
            "source_path": "C:\\line\\part.png",
        },
        separators=(",", ":"),
    ).replace('"@"', number(mm_per_px))
