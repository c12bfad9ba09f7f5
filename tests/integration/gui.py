"""A client that writes the GUI's wire format: .NET multipart, chunked JSON, shortest numbers; it reads as strictly."""

import http.client
import json
from dataclasses import dataclass, field
from typing import Any

_BOUNDARY = "4f6b1d0e-6e0a-4a8e-9a55-0c1a7f3f2b11"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        def refuse(constant: str) -> None:
            raise ValueError(f"{constant} is no JSON")

        return json.loads(self.content, parse_constant=refuse)


@dataclass
class Part:
    name: str
    content: bytes
    content_type: str = "text/plain; charset=utf-8"
    filename: str | None = None

    def encoded(self) -> bytes:
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
    host: str
    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str) -> Reply:
        return self.send("GET", path)

    def multipart(self, path: str, parts: list[Part]) -> Reply:
        return self.send("POST", path, *multipart_body(parts))

    def chunked_json(self, path: str, text: str) -> Reply:
        data = text.encode()
        chunks = (data[start : start + 7] for start in range(0, len(data), 7))
        return self.send("POST", path, chunks, {"Content-Type": "application/json; charset=utf-8"})

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        try:
            chunked = body is not None and not isinstance(body, bytes)
            all_headers = {**self.headers, **(headers or {}), **({"Transfer-Encoding": "chunked"} if chunked else {})}
            connection.request(method, path, body, all_headers, encode_chunked=chunked)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def roi(self, role: str, roi: str, mm_per_px: float = 0.2) -> list[Part]:
        texts = {"role_id": role, "roi_id": roi, "mm_per_px": number(mm_per_px)}
        return [Part(name, text.encode()) for name, text in texts.items()]

    def fit(self, role: str, roi: str, images: list[bytes], *, field: str = "images", **texts: str) -> Reply:
        extra = [Part(name, text.encode()) for name, text in texts.items()]
        return self.multipart("/fit_ok", [*self.roi(role, roi), *image_parts(images, field), *extra])

    def infer(self, role: str, roi: str, image: bytes, shape: str | None = None, mm_per_px: float = 0.2) -> Reply:
        parts = [*self.roi(role, roi, mm_per_px), Part("image", image, "image/png", "crop.png")]
        return self.multipart("/infer", parts + ([] if shape is None else [Part("shape", shape.encode())]))

    def calibrate(self, role: str, roi: str, ok: list[float], ng: list[float] | None, **numbers: float) -> Reply:
        ok_text = "[" + ",".join(map(number, ok)) + "]"
        ng_text = "null" if ng is None else "[" + ",".join(map(number, ng)) + "]"
        extra = "".join(f',"{name}":{number(value)}' for name, value in numbers.items())
        return self.chunked_json(
            "/calibrate_ng",
            f'{{"role_id":"{role}","roi_id":"{roi}","mm_per_px":0.2,"ok_scores":{ok_text},"ng_scores":{ng_text}{extra}}}',
        )
