"""Keeping judgements for people: the last judgements of each ROI, with thumbnails.

``record`` costs an inference a thumbnail, but no write, see `write_behind`. If the disk accepts nothing, the last 1000
judgements wait and are tried again. Older ones are lost and counted, without an effect on inferences.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from backend.common.errors import JudgementNotFound
from backend.common.roi_key import RoiKey, roles
from backend.common.telemetry import HISTORY_LOST
from backend.disk.judgements import Judgement, JudgementQuery, KeptJudgement, NewJudgement
from backend.service.repeats import mark_of
from backend.service.results import InferResult
from backend.service.stores import Judgements
from backend.service.write_behind import WriteBehind

THUMBNAIL_SIDE = 256
_QUALITY = 80
_MAX_WAITING = 1000  # some 15 MB


def thumbnail_of(image: npt.NDArray[np.uint8]) -> bytes:
    """A small JPEG of an image, with a longer side of at most 256 pixels.

    Args:
        image: uint8 [H, W, 3], BGR.
    """
    # Of a large image every n-th pixel first: to average all of them would take longer than anything else here.
    step = max(1, max(image.shape[:2]) // (2 * THUMBNAIL_SIDE))
    few = image[::step, ::step]
    scale = min(1.0, THUMBNAIL_SIDE / max(few.shape[:2]))
    size = [max(1, round(side * scale)) for side in few.shape[1::-1]]
    small = cv2.resize(few, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return encoded.tobytes()


class JudgementLog:
    """The stored judgements below one models folder. Safe to call from many threads.

    Args:
        files: where they are.
        most: how many are kept for each ROI; 0 keeps none.
    """

    def __init__(self, files: Judgements, most: int) -> None:
        self.most = most
        self._files = files
        self._behind = WriteBehind("history", self._write, _MAX_WAITING, HISTORY_LOST.inc)

    def record(self, key: RoiKey, judgement: Judgement, thumbnail: bytes, part_id: str | None = None) -> None:
        """Store a judgement; for a part with an id, only the first of those with the same model, threshold and score.

        Args:
            key: the requested ROI.
            judgement: of one image.
            thumbnail: of the image.
            part_id: that its client gave it.
        """
        mark = mark_of(part_id, key, judgement.memory_id, judgement.threshold, judgement.score)
        self._behind.add(key.owner, NewJudgement(judgement, thumbnail, mark))

    def flush(self) -> None:
        """Add the waiting judgements to the files; those that cannot be written keep waiting."""
        self._behind.flush()

    def list(
        self,
        key: RoiKey,
        *,
        decision: str | None = None,
        before: int | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 100,
    ) -> "list[KeptJudgement]":
        """The stored judgements of a ROI, the newest first, without those of the last two seconds.

        Args:
            key: the ROI.
            decision, before, since, until, limit: see `JudgementQuery`.

        Raises:
            StorageError: they cannot be read.
        """
        return self._files.list(self._kept_as(key), JudgementQuery(decision, before, since, until, limit))

    def thumbnail(self, key: RoiKey, number: int) -> bytes:
        """The thumbnail of a kept judgement, a JPEG.

        Raises:
            JudgementNotFound: it is not stored, or no longer.
            StorageError: it cannot be read.
        """
        found = self._files.thumbnail(self._kept_as(key), number)
        if found is None:
            raise JudgementNotFound(f"judgement {number} of {key} is not kept; /history lists those that are")
        return found

    def close(self) -> None:
        """Add the waiting judgements, and end the thread; it starts again with the next judgement."""
        self._behind.close()

    def _kept_as(self, key: RoiKey) -> RoiKey:
        """The ROI under which judgements are stored: some clients change its role when they infer, see `roles`."""
        turned = [replace(key, role_id=role_id).owner for role_id in (key.role_id, *roles(key))]
        return next((other for other in turned if self._files.has(other)), turned[0])

    def _write(self, key: RoiKey, judgements: Sequence[NewJudgement]) -> None:
        self._files.add(key, judgements, self.most)


def judgement_of(result: InferResult, mm_per_px: float, request_id: str) -> Judgement:
    """The judgement of a new inference.

    Args:
        result: of the inference.
        mm_per_px: millimetres per pixel of its image.
        request_id: of its request.
    """
    calibration = result.calibration
    return Judgement(
        at=time.time(),
        score=result.inference.score,
        threshold=calibration.threshold if calibration else None,
        decision=result.decision,
        mm_per_px=mm_per_px,
        memory_id=result.fitted.memory_id,
        request_id=request_id,
        decide_by=calibration.decide_by if calibration else None,
        pixel_threshold=calibration.pixel_threshold if calibration else None,
    )
