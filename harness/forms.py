"""Multipart forms, encoded once, so that a client under measurement only sends them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

ROI = {"role_id": "Benchmark", "roi_id": "Cell", "mm_per_px": "0.52"}  # cells of 156 mm on 300 pixels


@dataclass(frozen=True)
class Form:
    """A multipart form, ready to be sent."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of(cls, field: str, pngs: Sequence[bytes], **texts: str) -> "Form":
        """The images under `field`, and the texts of `ROI` or others in their place."""
        files = [(field, ("cell.png", content, "image/png")) for content in pngs]
        request = httpx.Request("POST", "http://service", data={**ROI, **texts}, files=files)
        return cls(request.read(), {"Content-Type": request.headers["Content-Type"]})

    def post(self, client: httpx.Client, path: str, request_id: str = "unnamed") -> httpx.Response:
        """Send it."""
        return client.post(path, content=self.body, headers={**self.headers, "X-Request-Id": request_id})

    def infer(self, client: httpx.Client, request_id: str = "unnamed") -> float:
        """Seconds of one ``POST /infer``, as the client sees it.

        Raises:
            httpx.HTTPStatusError: the reply is an error.
        """
        start = time.perf_counter()
        self.post(client, "/infer", request_id).raise_for_status()
        return time.perf_counter() - start
