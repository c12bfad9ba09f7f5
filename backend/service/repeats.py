"""Parts that a client asks about again, because it got no reply: each counts once, and is listed once."""

import hashlib

_DIGITS = 16


def mark_of(part_id: str | None, memory_id: str, threshold: float | None) -> str | None:
    """What tells a part from all others: 16 hexadecimal digits; None where its client gave it no id.

    A part that is judged again by another model or threshold is told apart: its verdict may be another one.

    Args:
        part_id: that its client gave it.
        memory_id: identity of the memory bank that it was compared with.
        threshold: that was applied; None without one.
    """
    if part_id is None:
        return None
    return hashlib.sha256(f"{memory_id} {threshold!r} {part_id}".encode()).hexdigest()[:_DIGITS]
