"""What a memory bank was built from."""

import math
from dataclasses import dataclass

import numpy as np

from backend.bank.images import BankImage, comparable_images, suspicious_images
from backend.common.roi_key import RoiKey
from backend.disk.fitted import FittedRoi
from backend.service.inspection import InspectionService


@dataclass(frozen=True)
class BankEntry:
    """An image of a memory bank, and how much the bank uses it.

    Attributes:
        image: what is stored about it.
        n_kept: how many of its patches are in the bank.
        suspicious: whether it scores far above the others.
    """

    image: BankImage
    n_kept: int
    suspicious: bool


@dataclass(frozen=True)
class BankReport:
    """What a memory bank was built from.

    Attributes:
        fitted: the model.
        entries: its images, in the order of the fit; empty for models of versions that did not keep them.
        covering_radius: distance within which the bank covers every patch of these images; None if unknown.
    """

    fitted: FittedRoi
    entries: list[BankEntry]
    covering_radius: float | None


def bank_report(service: InspectionService, key: RoiKey) -> BankReport:
    """What the memory bank of a ROI was built from.

    Raises:
        MemoryNotFound, IncompatibleMemory, StorageError: as `InspectionService.fitted`.
    """
    fitted = service.fitted(key, with_calibration=False)
    images, memory = comparable_images(fitted.metadata, service.settings.blur_sigma), fitted.memory
    per_image = memory.token_hw[0] * memory.token_hw[1]
    n_kept = np.zeros(len(images), np.int64)
    if memory.patches is not None:
        n_kept = np.bincount(memory.patches[memory.patches >= 0] // per_image, minlength=len(images))
    suspicious = {
        found.index for found in suspicious_images(images, service.score_percentile_of(fitted.profile, fitted.detail))
    }
    entries = [BankEntry(image, int(n_kept[number]), number in suspicious) for number, image in enumerate(images)]
    radius = fitted.metadata.get("covering_radius")
    return BankReport(fitted, entries, radius if isinstance(radius, float) and math.isfinite(radius) else None)
