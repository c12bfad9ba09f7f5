"""From the embeddings of a fit to its memory bank and its metadata. No files, no HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import structlog

from backend.bank.block_bank import BlockBase, build_block_bank
from backend.bank.copies import Miniature
from backend.bank.images import BankImage, as_metadata, comparable_images
from backend.bank.leave_one_out import MOST_PRODUCTS, HeldOut, RadiusOf, hold_out, last_distance, owners
from backend.bank.leave_one_out_sample import choose_sample, hold_out_sample
from backend.bank.memory_limits import check_bank
from backend.bank.patches import LocalPatches, Patches, Rows, Turn
from backend.block_memory import BlockMemory, Memory
from backend.common.arrays import DistanceMap, Embeddings
from backend.common.errors import Conflict, DamagedMemory
from backend.common.telemetry import OnProgress
from backend.patchcore import PatchCoreMemory

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Base:
    """The model that a fit appends to.

    Attributes:
        memory: its bank.
        covering_radii: distance within which the bank covers the images that it was built from, of each block.
        coreset_rate: share of their patches that the bank was made to keep.
        n_images, n_embeddings: numbers of images and embeddings that it was built from.
        images: what is recorded about them, with scores that were made like the current ones.
        source: where the images came from, if known.
        thumbnails: of each image; empty bytes if none was kept.
        miniatures: see `Look`, by their number; earlier versions kept none.
        radius_bounds: see `Bank`.
    """

    memory: Memory
    covering_radii: list[float]
    coreset_rate: float
    n_images: int
    n_embeddings: int
    images: list[BankImage]
    source: str | None
    thumbnails: list[bytes]
    miniatures: Mapping[int, Miniature]
    radius_bounds: list[float] | None = None

    @classmethod
    def of(
        cls,
        memory: Memory,
        metadata: dict[str, Any],
        name: str,
        thumbnails: list[bytes],
        miniatures: Mapping[int, Miniature],
        blur_sigma: float,
    ) -> "Base":
        """A stored model, as the base of a fit that appends to it.

        Args:
            memory: its bank.
            metadata: what the fit recorded about it.
            name: of its ROI, for messages.
            thumbnails, miniatures: see `Base`.
            blur_sigma: as of inferences now.

        Raises:
            Conflict: it lacks data that an earlier version did not record.
            DamagedMemory: the recorded data is invalid.
        """
        try:
            rate = float(metadata["coreset_rate"])
            radii = _recorded_radii(memory, metadata)
            bounds = [float(bound) for bound in metadata.get("covering_radius_bounds", ())] or None
            n_images, n_embeddings = (int(metadata[field]) for field in ("n_images", "n_embeddings"))
        except (KeyError, TypeError, ValueError, OverflowError) as exc:
            raise Conflict(
                f"{name} was fitted by an earlier version and cannot be appended to: fit it anew on all images"
            ) from exc
        if not (all(0 <= radius <= 2 for radius in radii) and 0 < rate <= 1 and n_images > 0 and n_embeddings > 0):
            raise DamagedMemory("the fit parameters in the stored memory are damaged: refit this ROI")
        images = comparable_images(metadata, blur_sigma)
        pictures = thumbnails if len(thumbnails) == len(images) else [b""] * len(images)
        counts = (n_images, n_embeddings)
        known = {number: miniature for number, miniature in miniatures.items() if 0 <= number < len(images)}
        return cls(memory, radii, rate, *counts, images, metadata.get("source"), pictures, known, bounds)

    def known(self) -> list[tuple[BankImage, Miniature]]:
        """The images that have a miniature, with the miniature; only the first of images with the same pixels."""
        found: dict[str, tuple[BankImage, Miniature]] = {}
        for number, miniature in sorted(self.miniatures.items()):
            image = self.images[number]
            found.setdefault(look_id(image), (image, miniature))
        return list(found.values())

    def copies_not_sought(self) -> str | None:
        """A warning if copies of some images cannot be found, because their miniatures are not kept; else None."""
        n_unknown = self.n_images - len(self.miniatures)
        if n_unknown <= 0:
            return None
        return (
            f"{n_unknown} of the {self.n_images} images of the memory bank were fitted by an earlier version, which "
            "kept no miniatures, so their copies cannot be found; fit anew to find them"
        )


def look_id(image: BankImage) -> str:
    """Identity of the pixels of an image of a bank; that of the file, if an earlier version recorded nothing else."""
    return image.pixels_sha256 or image.sha256


@dataclass(frozen=True)
class Bank:
    """The memory bank of a fit.

    Attributes:
        memory: the bank.
        covering_radii: see `Base`; upper bounds, if `held_out` is of a sample and the selection had one round.
        held_out: what the fit tells about its own images, or about a sample of them if all would have taken too long.
        radius_bounds: upper bounds of the covering radii that a selection in two rounds proves; None for one round.
    """

    memory: Memory
    covering_radii: list[float]
    held_out: HeldOut
    radius_bounds: list[float] | None = None

    @property
    def honest_maps(self) -> dict[int, DistanceMap]:
        """Distances of images of the fit by the bank of the others, float32 [rows, columns] of the token grid.

        By the position of the image. Empty for a bank of one block, because the files of the contract do not change.
        Images whose distances are unknown are left out.
        """
        if not isinstance(self.memory, BlockMemory) or self.held_out.distances is None:
            return {}
        maps = self.held_out.distances.reshape(-1, *self.memory.token_hw)
        return dict(zip(self.held_out.scored_positions.tolist(), maps, strict=True))


def build_bank(
    embeddings: Embeddings,
    identities: Sequence[str],
    token_hw: tuple[int, int],
    coreset_rate: float,
    base: Base | None,
    turn: Turn,
    on_progress: OnProgress,
    joined: Mapping[str, str] = MappingProxyType({}),
    n_blocks: int = 1,
    places: Rows | None = None,
) -> Bank:
    """Select the memory bank and compare each image with that of the others.

    Args:
        embeddings: float32 [N, D] of the images, in order; normalised in place.
        identities: of each image; copies of one have the same.
        token_hw: token grid (rows, columns).
        coreset_rate: share to keep, where there is no base.
        base: the model to append to; None starts again.
        turn: see `k_center_greedy`.
        on_progress: called with the step, its finished units and all its units.
        joined: identity that an image of the base counts as, by its own identity; images that are not in it count as
            themselves.
        n_blocks: of how many blocks the embeddings are, side by side.
        places: see `PatchCoreMemory.build`.

    Raises:
        Conflict: the images are too unlike those of the base.
        TooLarge: the memory bank would not fit into the memory that is free.
    """
    numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
    known = [joined.get(image.identity, image.identity) for image in base.images] if base else []
    before, own = [numbers.get(identity, -1) for identity in known], [numbers[identity] for identity in identities]
    if n_blocks > 1:
        blocks, radii, held = build_block_bank(
            embeddings, n_blocks, own, before, token_hw, coreset_rate, _block_base(base), turn, on_progress, places
        )
        if base is not None:
            check_bank(len(blocks.embeddings), embeddings.shape[1])
        return bank_of_blocks(blocks, radii, held, len(own), places, token_hw)
    if base is None:
        memory = PatchCoreMemory.build(
            embeddings,
            token_hw,
            coreset_rate,
            lambda done, total: on_progress("coreset", done, total),
            turn,
            n_different=len(numbers) * (len(embeddings) // len(own)),
            places=places,
        )
    else:
        memory = _extended(base, embeddings, turn, partial(on_progress, "coreset"), places)
    patches = LocalPatches(embeddings, np.array(own), turn)
    return compare_with_others(patches, memory, base, before, places, on_progress)


def compare_with_others(
    patches: Patches,
    memory: PatchCoreMemory,
    base: Base | None,
    before: Sequence[int],
    places: Rows | None,
    on_progress: OnProgress,
    radius_of: RadiusOf = last_distance,
) -> Bank:
    """Compare each image of a fit, or of a sample if all would take too long, with the bank of the others.

    Args:
        patches: of the images.
        memory: the bank of one block.
        base: the model that was appended to.
        before: a number for each image of the base, see `build_block_bank`.
        places, on_progress: see `build_bank`.
        radius_of: gives the covering radius for the distances of a sample, if there is no base.
    """
    images, bank, score = patches.images, memory.embeddings, partial(on_progress, "score")
    owner, n_embeddings = owners(memory, [*before, *images.tolist()]), len(images) * patches.per_image
    if n_embeddings * len(bank) > MOST_PRODUCTS:
        radius = base.covering_radii[0] if base else radius_of(patches, memory)
        sample = choose_sample(images, patches.per_image, len(bank))
        held_out = hold_out_sample(patches, bank, owner, sample, radius, score)
    else:
        held_out = hold_out(patches, bank, owner, score)
    radii = base.covering_radii if base else [held_out.covering_radius]
    return _told(Bank(memory, radii, _on_grid(held_out, places, memory.token_hw)), len(images))


def bank_of_blocks(
    memory: BlockMemory,
    radii: list[float],
    held_out: HeldOut,
    n_images: int,
    places: Rows | None,
    token_hw: tuple[int, int],
) -> Bank:
    """The bank of several blocks, from what `build_block_bank` or `compare_blocks` returned.

    Args:
        memory, radii, held_out: as they were returned.
        n_images: images of the fit.
        places, token_hw: see `build_bank`.
    """
    return _told(Bank(memory, radii, _on_grid(held_out, places, token_hw)), n_images)


def _on_grid(held_out: HeldOut, places: Rows | None, token_hw: tuple[int, int]) -> HeldOut:
    """Its distances on the whole token grid: where a fit had no patches, the median of those of the image."""
    if places is None or held_out.distances is None:
        return held_out
    grid = np.empty((len(held_out.distances), token_hw[0] * token_hw[1]), np.float32)
    grid[:] = np.median(held_out.distances, axis=1)[:, None]
    grid[:, places] = held_out.distances
    return replace(held_out, distances=grid)


def _told(bank: Bank, n_images: int) -> Bank:
    if bank.held_out.positions is not None:
        log.warning("fit.sample_scored", n_scored=len(bank.held_out.positions), n_images=n_images)
    return bank


def _block_base(base: Base | None) -> BlockBase | None:
    if base is None:
        return None
    assert isinstance(base.memory, BlockMemory), "a fit appends to a model of its own profile"
    return BlockBase(base.memory, base.covering_radii, len(base.images))


def _recorded_radii(memory: Memory, metadata: Mapping[str, Any]) -> list[float]:
    if isinstance(memory, BlockMemory):
        return [float(radius) for _, radius in zip(memory.banks, metadata["covering_radii"], strict=True)]
    return [float(metadata["covering_radius"])]


def _extended(
    base: Base,
    embeddings: Embeddings,
    turn: Turn,
    on_progress: Callable[[int, int], None],
    places: Rows | None,
) -> PatchCoreMemory:
    assert isinstance(base.memory, PatchCoreMemory), "a fit appends to a model of its own profile"
    memory = base.memory.extended(embeddings, base.covering_radii[0], len(base.images), turn, on_progress, places)
    check_bank(len(memory.embeddings), embeddings.shape[1])
    return memory


def why_unscored(bank: Bank, n_images: int, n_embeddings: int, with_scores: bool) -> str | None:
    """Why the images of a fit have no score by the memory bank of the others; None if they have.

    Args:
        bank: the memory bank.
        n_images, n_embeddings: of the fit.
        with_scores: whether scores were requested.
    """
    if not with_scores:
        return "the mask of a stored image cannot be used (fit.images_not_scored in the log names it)"
    if bank.held_out.positions is not None:
        return (
            f"comparing {n_embeddings} embeddings with a bank of {len(bank.memory.embeddings)} would take more than a "
            f"minute, so a random sample of {len(bank.held_out.positions)} of the {n_images} images was scored "
            "(ok_scores_sample); calibrations from images of the fit use these scores"
        )
    if bank.held_out.distances is None:
        one = "1 image has" if n_images == 1 else f"{n_images} copies of one image have"
        return f"{one} no others to be compared with: send at least 2 different images"
    return None


def two_rounds_warning(bank: Bank) -> str | None:
    """A warning that a memory bank was selected in two rounds, with what it reaches; None for one round."""
    if bank.radius_bounds is None:
        return None
    reached, proved = (
        ", ".join(f"{radius:.3f}" for radius in radii) for radii in (bank.covering_radii, bank.radius_bounds)
    )
    is_one = len(bank.radius_bounds) == 1
    whose = "the memory bank" if is_one else f"the {len(bank.radius_bounds)} memory banks"
    its = "it" if is_one else "the bank of its block"
    return (
        f"the embeddings do not fit into memory, so two rounds selected {whose}, not exactly as one round does: "
        f"every patch is within {reached} of an embedding in {its} (two rounds prove {proved}; 2 is the largest "
        "distance)"
    )


def of_an_earlier_fit(n_unscored: int, n_images: int, *, is_sample: bool) -> str:
    """Why not all images have a score by the memory bank of the others, if none of them is new.

    Args:
        n_unscored: how many have none.
        n_images: of how many.
        is_sample: whether an earlier fit scored a sample of them.
    """
    known = ": ok_scores_sample has the scores that are known" if is_sample else ""
    return (
        f"{n_unscored} of {n_images} images are from an earlier fit, which scored them with another mask, "
        f"SCORE_PERCENTILE or BLUR_SIGMA, or not at all{known}"
    )


def bank_metadata(
    bank: Bank,
    base: Base | None,
    images: Sequence[BankImage],
    n_new: int,
    n_embedded: int,
    coreset_rate: float,
    mm_per_px: float,
) -> dict[str, Any]:
    """The metadata about how a memory bank was made.

    Args:
        bank: the memory bank.
        base: what it was appended to.
        images: all images of the bank.
        n_new: how many of them are of this fit.
        n_embedded: patch embeddings of these.
        coreset_rate: share to keep, where there is no base.
        mm_per_px: millimetres per pixel.
    """
    bounds = base.radius_bounds if base else bank.radius_bounds
    return {
        "coreset_rate": base.coreset_rate if base else coreset_rate,
        "n_embeddings": (base.n_embeddings if base else 0) + n_embedded,
        "n_images": (base.n_images if base else 0) + n_new,
        "mm_per_px": mm_per_px,
        "images": as_metadata(images),
        "covering_radius": bank.covering_radii[-1],
        **({"covering_radii": bank.covering_radii} if len(bank.covering_radii) > 1 else {}),
        **({"selection_rounds": 2, "covering_radius_bounds": bounds} if bounds else {}),
    }
