"""Parts that a client asks about again, because it got no reply: each counts once, and is listed once."""

import hashlib

from backend.common.roi_key import RoiKey

_DIGITS = 16


def mark_of(part_id: str | None, key: RoiKey, memory_id: str, threshold: float | None, score: float) -> str | None:
    """What tells a part from all others: 16 hexadecimal digits; None where its client gave it no id.

    A part that is judged again by another model or threshold is told apart: its verdict may be another one. So are
    ROIs of one part that share a calibration, and parts with an id that was given twice: the same image has the same
    score, but for the rounding of another machine.

    Args:
        part_id: that its client gave it.
        key: the requested ROI.
        memory_id: identity of the memory bank that it was compared with.
        threshold: that was applied; None without one.
        score: of the part.
    """
    if part_id is None:
        return None
    text = f"{key.owner!r} {memory_id} {threshold!r} {score:.3f} {part_id}"
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
