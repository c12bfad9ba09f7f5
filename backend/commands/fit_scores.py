"""Images of a calibration that were in the fit: their scores by the memory bank of the others."""

from collections.abc import Sequence

from backend.bank.images import BankImage
from backend.commands.console import count, progress_bar, say
from backend.commands.image_files import image_sha256
from backend.common.errors import InvalidRequest
from backend.common.profiles import RECOMMENDED
from backend.disk.datasets import Label
from backend.roi_mask import Shape
from backend.service.image_calibration import ImageScores
from backend.service.region_scores import no_map_of


def count_the_fit(
    found: ImageScores,
    shape: Shape | None,
    given: str = "--ok",
    otherwise: str = "give images of good parts with --ok",
) -> None:
    """Count the images of the fit as good, and print their number.

    Args:
        found: receives their scores.
        shape: mask within which inferences are scored.
        given: beginning of the printed line.
        otherwise: advice if no image has a score.

    Raises:
        InvalidRequest: none of them has a usable score; the message says why.
    """
    n_scored = found.add_the_fit(shape)
    if not n_scored:
        raise InvalidRequest(f"no scores of the fit can be used ({_why_none(found, shape)}): {otherwise}")
    n_images = len(found.own.images)
    without = f"; {n_images - n_scored} of {n_images} have none" if n_scored < n_images else ""
    say(f"{given}: {count(n_scored, 'image')} of the fit, each scored by the memory bank of the others{without}")


def _why_none(found: ImageScores, shape: Shape | None) -> str:
    images = found.own.images
    if found.regions is not None and images:
        return (
            "the memory bank keeps no distance maps of its images by the others; only those of "
            f"profile={RECOMMENDED} do"
        )
    if not images:
        return "an earlier version fitted the ROI, and kept no scores"
    scored = [image for image in images if image.scores]
    if not scored:
        return (
            "the fit made no scores: it had only one image, or too many for an earlier version, or another BLUR_SIGMA"
        )
    masked = [image for image in scored if image.has_mask(shape)]
    if not masked:
        return f"they were made with the mask {scored[0].shape or 'of the whole image'}, see --shape"
    return f"they are of the percentiles {', '.join(sorted(masked[0].scores, key=float))}, see --score-percentile"


def count_known(
    found: ImageScores, label: Label, images: Sequence[str], shape: Shape | None, max_bytes: int
) -> list[str]:
    """Count those images that were in the fit and have scores, and print their number.

    Args:
        found: receives their scores.
        label: what the images are.
        images: paths.
        shape: mask within which inferences are scored.
        max_bytes: of a file.

    Returns:
        The other images, which need an inference; without those that the sample of their fit represents.

    Raises:
        InvalidRequest: see `check_not_both` and `no_map_of`.
    """
    if found.regions is None and not any(found.known(image, shape) for image in found.own.images):
        return list(images)
    rest, n_known = [], 0
    with progress_bar("check", len(images)) as bar:
        for image in images:
            own = _of_the_fit(found, image, max_bytes)
            scores = None if own is None else found.known(own, shape)
            if own is not None and scores is not None:
                check_not_both(found, label, image, own)
                found.add(label, own.identity, image, scores)
                n_known += 1
            elif own is not None and found.sample.stands_for(own, shape):
                found.sample.leave_out(label, own)
            elif own is not None and found.regions is not None:
                raise no_map_of(own)
            else:
                rest.append(image)
            bar.update()
    if n_known:
        say(
            f"--{label}: {n_known} of {count(len(images), 'image')} in the fit, scored by the memory bank of the others"
        )
    return rest


def check_not_both(found: ImageScores, label: Label, image: str, own: BankImage) -> None:
    """Refuse an image of the fit that would count as good and as defective.

    Raises:
        InvalidRequest: it already counts as good.
    """
    if label == "ng" and ("ok", own.identity) in found:
        raise InvalidRequest(
            f"{image} is given as NG, but it was in the fit and counts as OK: fit again without it, or leave it out "
            "here"
        )


def _of_the_fit(found: ImageScores, image: str, max_bytes: int) -> BankImage | None:
    digest = image_sha256(image, max_bytes)
    return None if digest is None else found.own.of_file(digest)
