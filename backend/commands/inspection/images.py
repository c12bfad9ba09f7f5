"""The images of an inspection."""

from dataclasses import dataclass

from backend.commands.image_files import FoundImages


@dataclass(frozen=True)
class Images:
    """The images of an inspection, by their paths without linked folders."""

    good: FoundImages
    bad: FoundImages
    parts: FoundImages
