"""Keeping what inferences found, for people to look through later: the last judgements of each ROI, with thumbnails.

``record`` costs an inference a thumbnail, and no write: judgements wait in memory, and a thread adds them to the files
every two seconds. A process that is killed loses those. Where the disk takes nothing, the last 1000 wait and are tried
again, older ones are lost and counted, and inferences never know.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import structlog

from backend.common.errors import JudgementNotFound, StorageError
from backend.common.roi_key import RoiKey, roles
from backend.common.telemetry import HISTORY_LOST
from backend.disk.judgements import Judgement, JudgementFiles, JudgementQuery, KeptJudgement
from backend.service.results import InferResult

THUMBNAIL_SIDE = 256
_QUALITY = 80
_FLUSH_EVERY_S = 2.0
_MAX_WAITING = 1000  # some 15 MB

log: Any = structlog.get_logger(__name__)


def thumbnail_of(image: npt.NDArray[np.uint8]) -> bytes:
    """A small JPEG of an image, its longer side 256 pixels at most.

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


class _Waiting(NamedTuple):
    key: RoiKey
    judgement: Judgement
    thumbnail: bytes


class JudgementLog:
    """The judgements that are kept below one models folder. Safe to call from many threads.

    Args:
        root: the models folder.
        most: how many are kept of each ROI; 0 keeps none.
    """

    def __init__(self, root: Path, most: int) -> None:
        self.most = most
        self._files = JudgementFiles(root)
        self._waiting: deque[_Waiting] = deque()
        self._queueing = threading.Lock()
        self._flushing = threading.Lock()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._fails = False

    def record(self, key: RoiKey, judgement: Judgement, thumbnail: bytes) -> None:
        """Keep a judgement.

        Args:
            key: the ROI that was asked for.
            judgement: of one image.
            thumbnail: of the image.
        """
        with self._queueing:
            self._waiting.append(_Waiting(key.owner, judgement, thumbnail))
            self._let_go()
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Add what waits to the files; what they do not take waits on."""
        with self._flushing:
            with self._queueing:
                waiting = list(self._waiting)
                self._waiting.clear()
            by_roi: dict[RoiKey, list[_Waiting]] = {}
            for one in waiting:
                by_roi.setdefault(one.key, []).append(one)
            if not by_roi:
                return
            failure: StorageError | None = None
            waits_on: list[_Waiting] = []
            for key, of_roi in by_roi.items():
                try:
                    self._files.add(key, [(one.judgement, one.thumbnail) for one in of_roi], self.most)
                except StorageError as exc:  # the others may still be written
                    failure = exc
                    waits_on += of_roi
            self._requeue(waits_on)
            if failure is not None and not self._fails:
                log.warning("history.not_stored", reason=str(failure), hint="kept in memory and tried again")
            self._fails = failure is not None

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
        """Kept judgements of a ROI, the newest first, but for those of the last two seconds.

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
            JudgementNotFound: it is not kept, or not any more.
            StorageError: it cannot be read.
        """
        found = self._files.thumbnail(self._kept_as(key), number)
        if found is None:
            raise JudgementNotFound(f"no judgement {number} of {key} is kept; /history names those that are")
        return found

    def close(self) -> None:
        """Add what waits, and end the thread; it starts again with the next judgement."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._closing.set()
            self._closing = threading.Event()
        if thread is not None:
            thread.join()
        self.flush()

    def _kept_as(self, key: RoiKey) -> RoiKey:
        """The ROI under which judgements are kept: some clients turn its role when they infer, see `roles`."""
        turned = [replace(key, role_id=role_id).owner for role_id in (key.role_id, *roles(key))]
        return next((other for other in turned if self._files.path(other).exists()), turned[0])

    def _requeue(self, waiting: Sequence[_Waiting]) -> None:
        with self._queueing:
            self._waiting.extendleft(reversed(waiting))
            self._let_go()

    def _let_go(self) -> None:
        """Lose the oldest of what waits, where it is too much."""
        lost = len(self._waiting) - _MAX_WAITING
        for _ in range(lost):
            self._waiting.popleft()
        if lost > 0:
            HISTORY_LOST.inc(lost)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, args=(self._closing,), name="history", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no thread left: the next judgement tries again
                return
            self._thread = thread

    def _run(self, closing: threading.Event) -> None:
        while not closing.wait(_FLUSH_EVERY_S):
            try:
                self.flush()
            except Exception:  # what was found is never worth a service
                log.exception("history.failed")


def judgement_of(result: InferResult, mm_per_px: float, request_id: str) -> Judgement:
    """What an inference found just now.

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
