"""Checks of the given folders before any computation: what commands print about them, and which they refuse."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from backend.commands.console import count, say, some
from backend.commands.folder_names import Kind, is_left_out, is_of_masks, kind_of
from backend.commands.image_files import FoundImages, Ignored
from backend.common.errors import InvalidRequest

MASK_ENDINGS = ("_mask", "-mask", "_gt", "-gt", "_label", "-label", "_ground_truth")
"""How the name of a mask ends that lies beside its image, without regard to case."""
_ONLY_MASK_ENDINGS = ("_mask", "-mask", "_gt", "-gt", "_ground_truth")  # and no parts, such as labels
ANY_FOLDER = "take all of them with --any-folder"
# More lines would push what matters off the screen.
_MOST_FOLDERS = 20


@dataclass(frozen=True)
class Parts:
    """The role of images in a command.

    Attributes:
        name: in messages.
        wanted: kinds that the names of the folders should suggest.
        unwanted: kinds that the names of the folders must not suggest.
    """

    name: str
    wanted: Kind
    unwanted: frozenset[Kind]


GOOD_PARTS = Parts("good parts", Kind.GOOD, frozenset((Kind.DEFECTIVE, Kind.TEST, Kind.MASK)))
DEFECTIVE_PARTS = Parts("defective parts", Kind.DEFECTIVE, frozenset((Kind.GOOD, Kind.MASK)))


def say_found(images: FoundImages, ignored: Ignored, given: str = "") -> None:
    """Print the number of images in each folder, and what is not read.

    Args:
        images, ignored: the result of `find_images`.
        given: the option that named them, if any.
    """
    folders = Counter(str(PurePath(image).parent) for image in images.values())
    said = f"{given}: " if given else ""
    if len(folders) == 1:
        say(f"{said}{count(len(images), 'image')} in {next(iter(folders))}")
    else:
        say(f"{said}{count(len(images), 'image')} in {count(len(folders), 'folder')}")
        for folder, number in list(folders.items())[:_MOST_FOLDERS]:
            say(f"  {number} in {folder}")
        if len(folders) > _MOST_FOLDERS:
            rest = list(folders.values())[_MOST_FOLDERS:]
            say(f"  {sum(rest)} in {count(len(rest), 'more folder')}")
    say_ignored(ignored, said)


def say_ignored(ignored: Ignored, said: str = "") -> None:
    """Print what is not read: the number of files and folders, and some of their names.

    Args:
        ignored: the result of `find_images`.
        said: beginning of the lines.
    """
    for names, what in (
        (ignored.files, "other file"),
        (ignored.folders, "system or hidden folder"),
        (ignored.links, "linked folder"),
    ):
        if names:
            say(f"{said}ignored: {count(len(names), what)} ({some(names)})")


def check_folders(images: FoundImages, paths: Sequence[str], parts: Parts, otherwise: str = ANY_FOLDER) -> None:
    """Refuse images of other parts, or of none, according to the names of their folders or their own names.

    A folder that the user names is accepted, with two exceptions: it is a folder of masks, or another folder beside it
    is also named and its name fits, as with the pattern ``parts/*``. Below it, names count. Beside a folder of good
    parts, no other folder has good parts, whatever its name. If the user names files, masks beside their images are
    left out.

    Args:
        images: the result of `find_images` in `paths`.
        paths: files and folders.
        parts: the role of the images.
        otherwise: advice if the names mislead.

    Raises:
        InvalidRequest: there are such images; the message names their folders and those of the others.
    """
    named = {Path(path).resolve() for path in paths if Path(path).is_dir()}
    given = {Path(path).parent.resolve() / PurePath(path).name for path in paths}
    check_names(images, named, given, parts, otherwise)


def check_names(
    images: FoundImages, named: Collection[Path], given: Collection[Path], parts: Parts, otherwise: str
) -> None:
    """As `check_folders`, by names alone: the images need not be in folders of this machine.

    Args:
        images: by their place.
        named: folders that the user named.
        given: images that the user named.
        parts, otherwise: see `check_folders`.

    Raises:
        InvalidRequest: see `check_folders`.
    """
    fitting = {folder.parent for folder in named if kind_of(folder.name) is parts.wanted}
    folders: dict[Path, list[str]] = defaultdict(list)
    files: dict[Path, list[str]] = defaultdict(list)
    for place, image in images.items():
        (files if place in given else folders)[place.parent].append(image)
    beside_good = _parents_of_good(folders, named) if parts is GOOD_PARTS else frozenset()
    wrong: Counter[str] = Counter()
    right: list[str] = []
    masks = sorted(mask for found in files.values() for mask in masks_beside(found))
    for folder, found in folders.items():
        doubtful = _doubtful_folder(folder, named, parts, beside_good, fitting)
        if doubtful is None:
            right.append(str(PurePath(found[0]).parent))
            masks += found if _are_all_masks(found) else sorted(masks_beside(found))
        else:
            up = len(folder.parts) - len(doubtful.parts)
            wrong[str(PurePath(found[0]).parents[up])] += len(found)
    if wrong:
        where = some([f"{count(number, 'image')} in {folder}" for folder, number in wrong.items()])
        instead = f", such as {some(right)}," if right else ""
        raise InvalidRequest(
            f"{where}: the names of the folders suggest that these are not {parts.name}. Name the folders of "
            f"{parts.name} "
            f"alone{instead} or {otherwise}"
        )
    if masks:
        raise InvalidRequest(
            f"{count(len(masks), 'file')} ({some(masks)}): their names suggest that these are masks, not "
            f"{parts.name}. Name "
            f"the folders of {parts.name} alone, move the masks to another folder, or {otherwise}"
        )


def masks_beside(images: Iterable[str]) -> set[str]:
    """The images that are masks of others in the same folder: ``7_mask.png`` beside ``7.jpg``.

    >>> masks_beside(["a/7.jpg", "a/7_MASK.png", "a/8_gt.png"])
    {'a/7_MASK.png'}
    """
    stems = {image: PurePath(image).with_suffix("").as_posix().casefold() for image in images}
    known = set(stems.values())
    return {
        image
        for image, stem in stems.items()
        if any(stem.endswith(ending) and stem.removesuffix(ending) in known for ending in MASK_ENDINGS)
    }


def _are_all_masks(images: Iterable[str]) -> bool:
    """Whether all images of a folder are masks according to their names, as in ``ground_truth/scratch``."""
    return all(PurePath(image).stem.casefold().endswith(_ONLY_MASK_ENDINGS) for image in images)


def _parents_of_good(folders: Iterable[Path], named: Collection[Path]) -> frozenset[Path]:
    """The folders that contain a folder of good parts."""
    return frozenset(
        part.parent for folder in folders for part in _below(folder, named) if kind_of(part.name) is Kind.GOOD
    )


def _doubtful_folder(
    folder: Path, named: Collection[Path], parts: Parts, beside_good: Collection[Path], fitting: Collection[Path]
) -> Path | None:
    """The uppermost folder, from a named one down to `folder`, whose name suggests other contents."""
    below = _below(folder, named)
    if (uppermost := below[-1].parent if below else folder) in named:
        name = uppermost.name
        is_unwanted = is_left_out(name) or kind_of(name) in parts.unwanted
        if is_of_masks(name) or (is_unwanted and uppermost.parent in fitting):
            return uppermost
    for part in reversed(below):
        kind = kind_of(part.name)
        if kind in parts.unwanted or (kind is not Kind.GOOD and part.parent in beside_good):
            return part
    return None


def _below(folder: Path, named: Collection[Path]) -> list[Path]:
    """The folder and its parents, up to a named folder, which is not included."""
    below = []
    for part in (folder, *folder.parents):
        if part in named:
            break
        below.append(part)
    return below
