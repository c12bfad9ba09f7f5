"""A running service as the judge, over HTTP."""

import json
from typing import Any

import httpx2
from pydantic import ValidationError

from backend.api.schemas.inspection import InferReply
from backend.commands.watch.judges import Away, Learnt, Refused, place_of, shape_text
from backend.commands.watch.layouts import DrawnRoi
from backend.commands.watch.pictures import Crop
from backend.commands.watch.secrets import KEY
from backend.commands.watch.verdicts import Answer
from backend.common.errors import InvalidRequest, LayoutNotFound, PictureNotFound
from backend.common.roi_key import RoiKey

_PATIENCE_S = 60.0
_LONGEST_ASKED_S = 3600.0
_AWAY = frozenset({408, 429, 502, 503, 504})
_NO_KEY = frozenset({401, 403})
_MOST_ROIS = 1000


class ServiceJudge:
    """Judges by a service.

    Args:
        url: its address; it may have a path.
        key: its API key; None if it has none.

    Raises:
        InvalidRequest: the address cannot be used.
    """

    def __init__(self, url: str, key: str | None) -> None:
        address = address_of(url, "--url")
        headers = {"X-API-Key": key} if key else {}
        # Proxies are for the internet, not for a service next door.
        self._client = httpx2.Client(base_url=address, headers=headers, timeout=_PATIENCE_S, trust_env=False)

    def layout(self, recipe: str) -> bytes:
        """As of `Judge`."""
        try:
            return self._ask("GET", "layout", params={"recipe_id": recipe}).content
        except Refused as exc:
            raise LayoutNotFound(f"{exc} (recipe {recipe!r}): draw its ROIs in the console first") from exc

    def template(self, recipe: str, name: str) -> bytes:
        """As of `Judge`."""
        try:
            return self._ask("GET", "layout/picture", params={"recipe_id": recipe, "name": name}).content
        except Refused as exc:
            raise PictureNotFound(str(exc)) from exc

    def learn(self, drawn: DrawnRoi) -> Learnt:
        """As of `Judge`."""
        try:
            return self._learn(drawn)
        except (ValueError, KeyError, TypeError) as exc:
            raise Refused(
                f"The reply of {self._client.base_url} about the model is not a reply of this service."
            ) from exc

    def _learn(self, drawn: DrawnRoi) -> Learnt:
        ids = _ids(drawn.key)
        bank = self._ask("GET", "bank", params=ids).json()
        listed = self._ask("GET", "rois", params={"recipe_id": drawn.key.recipe, "limit": _MOST_ROIS}).json()["rois"]
        own: dict[str, Any] = next((roi for roi in listed if all(roi[name] == ids[name] for name in ids)), {})
        names = [image["filename"] for image in bank["images"]]
        place = place_of(drawn, names, lambda name: self._meta(ids, name))
        return Learnt(bank["model"]["memory_id"], own.get("mm_per_px"), place, own.get("threshold"))

    def infer(self, drawn: DrawnRoi, crop: Crop, name: str, mm_per_px: float, part_id: str) -> Answer:
        """As of `Judge`."""
        fields = {**_ids(drawn.key), "mm_per_px": repr(mm_per_px), "heatmap": "threshold", "why": "true"}
        fields["part_id"] = part_id
        if (shape := shape_text(crop)) is not None:
            fields["shape"] = shape
        reply = self._ask("POST", "infer", data=fields, files={"image": (name, crop.content)})
        try:
            found = InferReply.model_validate_json(reply.content)
        except ValidationError as exc:
            raise Refused(f"The reply of the service is not a judgement: {exc.errors()[0]['msg']}.") from exc
        areas = [region.area_mm2 for region in found.regions] if found.threshold is not None else None
        return Answer(
            found.score,
            found.threshold,
            found.decision,
            found.calibration,
            found.model.recipe_id,
            found.model.memory_id,
            None if areas is None else len(areas),
            None if areas is None else max(areas, default=0.0),
            found.decide_by,
            found.pixel_threshold,
            found.why,
            found.warning,
        )

    def close(self) -> None:
        """As of `Judge`."""
        self._client.close()

    def _meta(self, ids: dict[str, str], name: str) -> dict[str, Any] | None:
        try:
            reply = self._ask("GET", "datasets/meta", params={**ids, "label": "ok", "filename": name})
        except _NotFound:
            return None
        metadata: dict[str, Any] = reply.json()
        return metadata

    def _ask(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """A reply that succeeded.

        Raises:
            Refused: the service refuses it, with its own message; `_NotFound` for 404.
            Away: it does not answer, asks to wait, or the key may not do that.
        """
        try:
            reply = self._client.request(method, path, **content)
        except httpx2.RequestError as exc:  # a reply that cannot be decoded, too
            raise Away(f"the service at {self._client.base_url} does not answer ({type(exc).__name__})") from exc
        if reply.is_success:
            return reply
        message = _error_of(reply)
        if reply.status_code in _AWAY:
            raise Away(f"the service asks to wait: {message}", retry_after_s(reply))
        if reply.status_code in _NO_KEY:
            raise Away(f"the service refuses the key: {message} Set {KEY}.", is_key=True)
        raise (_NotFound if reply.status_code == httpx2.codes.NOT_FOUND else Refused)(message)


class _NotFound(Refused):
    """The service replied 404."""


def address_of(url: str, option: str) -> httpx2.URL:
    """The address of an HTTP server.

    Args:
        url: the given address.
        option: its option.

    Raises:
        InvalidRequest: it is not such an address, or contains a name and a password.
    """
    try:
        address = httpx2.URL(url)
    except httpx2.InvalidURL as exc:
        raise InvalidRequest(f"{option}: this is not an address ({exc})") from exc
    if address.scheme not in ("http", "https") or not address.host:
        raise InvalidRequest(f"{option}: give an address such as http://127.0.0.1:8000")
    if address.userinfo:
        raise InvalidRequest(
            f"{option}: leave out name and password; other users could see them in the list of processes"
        )
    return address


def retry_after_s(reply: httpx2.Response) -> float | None:
    """How long a reply asks to wait, in seconds, at most an hour; None if it has no such number."""
    text = reply.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_ASKED_S) if text.isascii() and text.isdigit() else None


def _ids(key: RoiKey) -> dict[str, str]:
    return {"role_id": key.role_id, "roi_id": key.roi_id, "recipe_id": key.recipe, "model_key": key.model}


def _error_of(reply: httpx2.Response) -> str:
    try:
        return str(json.loads(reply.content)["error"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}, which is not a reply of this service."
