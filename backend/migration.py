"""Brings what older backends stored into this service's models folder: copies, refits, and a report of all of it.

Old files are read and never written. What is done already is left as it is, so a migration can be repeated.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from tqdm import tqdm

from backend import dataset_runs, older
from backend.checkpoint import checkpoint_folder
from backend.config import Settings
from backend.console import count, print_line, progress_bar, say, step_bars
from backend.dataset_runs import scale_of
from backend.datasets import LABELS, DatasetStore, Label, NewSample, Sample
from backend.errors import BackendError, Conflict, InvalidImage, InvalidRequest, StorageError, TooLarge
from backend.image_files import SUFFIXES, read_image
from backend.layout import INSPECTION_ROLE, RoiKey, current_place, dataset_folder, folder_name, is_inspection
from backend.locking import writing
from backend.older import Found, OlderImage
from backend.recipes import RecipeStore, read_settings, same_scale, utc_now
from backend.service import InspectionService
from backend.utils import ImageLimits, decode_image, image_suffix, write_atomic

_HISTORY = "history"
_HEADER = ("what", "layout", "recipe", "role", "roi", "found", "result")
_UNKNOWN_ROI = "its name does not tell role and roi"
_HINT = (
    "Calibrate refitted ROIs next: POST /calibrate_dataset, or `python -m backend calibrate` with images of good parts."
)

Kind = Literal["recipe", "data set", "model", "calibration"]
_KINDS: tuple[Kind, ...] = ("recipe", "data set", "model", "calibration")


def migrate(settings: Settings, old: Path, *, dry_run: bool, refit: bool) -> int:
    """Bring what older backends stored into ``MODELS_DIR``, and print a report.

    Args:
        settings: the configuration.
        old: their models folder; may be ``MODELS_DIR``.
        dry_run: write nothing, and report what would be done.
        refit: fit the ROIs that have enough stored images.

    Returns:
        How many things failed; the report says which and why.

    Raises:
        InvalidRequest: `old` is no folder that can be read.
    """
    try:
        next(old.iterdir(), None)
    except OSError as exc:
        raise InvalidRequest(f"{old}: give the models folder of the older backend ({exc.strerror})") from exc
    migration = _Migration(settings, old, dry_run=dry_run, refit=refit)
    migration.run()
    for line in migration.report():
        print_line(line)
    return migration.counts["failed"]


@dataclass
class _Line:
    """One line of the report: something that was found, and what came of it."""

    kind: Kind
    layout: str
    recipe: str
    role: str
    roi: str
    found: str = ""
    results: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        texts = (self.kind, self.layout, self.recipe, self.role, self.roi, self.found, "; ".join(self.results))
        return tuple(map(_shown, texts))


@dataclass
class _Roi:
    """A ROI that may need a refit.

    Attributes:
        key: whose model it is; the model key is in `model_keys`.
        model_keys: those of its old models.
        of_models, of_datasets: its lines of the report.
    """

    key: RoiKey
    model_keys: set[str] = field(default_factory=set)
    of_models: list[_Line] = field(default_factory=list)
    of_datasets: list[_Line] = field(default_factory=list)

    def new_key(self) -> RoiKey:
        """What it is fitted as: under the model key that clients gave it before, if that was one."""
        (model_key, *others) = self.model_keys or {self.key.roi_id}
        if others or model_key == self.key.roi_id:
            return self.key
        return replace(self.key, model_key=model_key)

    def tell(self, result: str) -> None:
        for line in self.of_models or self.of_datasets:
            line.results.append(result)


@dataclass(frozen=True)
class _Refit:
    """A fit that is to be done."""

    roi: _Roi
    key: RoiKey
    mm_per_px: float
    n_images: int


@dataclass(frozen=True)
class _StoredImage:
    """An image in a data set, or one that a dry run would have put there, with its metadata."""

    name: str
    path: Path
    metadata: dict[str, Any] | None = None


class _Migration:
    """One run. In a dry run it goes the same way, and keeps in mind what it would have written."""

    def __init__(self, settings: Settings, old: Path, *, dry_run: bool, refit: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._root = settings.models_dir
        self._old = old
        self._dry_run = dry_run
        self._refits = refit
        self._limits = ImageLimits(int(settings.max_file_mb * 2**20), settings.max_pixels)
        self._datasets = DatasetStore(self._root)
        self._recipes = RecipeStore(self._root)
        self._lines: list[_Line] = []
        self._notes: list[str] = []
        self._scales: dict[str, float] = {}
        self._images: dict[Path, dict[str, _StoredImage]] = {}
        self._rois: dict[tuple[str, str, str], _Roi] = {}

    def run(self) -> None:
        """Do it all, the fits last: they are long, and need the rest."""
        for recipe in older.recipes(self._old):
            self._take_recipe(recipe)
        self._take_datasets(older.datasets(self._old))
        for calibration in older.calibrations(self._old):
            self._take_calibration(calibration)
        for memory in older.memories(self._old):
            self._take_memory(memory)
        self._refit_all([refit for roi in self._rois.values() if (refit := self._wanted(roi))])

    def report(self) -> Iterator[str]:
        """The lines of the report."""
        if not self._lines:
            yield f"Nothing of an older backend was found in {self._old}."
            return
        lines = sorted(
            self._lines, key=lambda line: (_KINDS.index(line.kind), line.recipe, line.role, line.roi, line.layout)
        )
        yield from _table([_HEADER, *(line.cells() for line in lines)])
        if self._notes:
            yield ""
            yield from self._notes
        yield ""
        yield self._summary()
        yield _HINT

    def _summary(self) -> str:
        kinds = Counter(line.kind for line in self._lines)
        found = ", ".join(count(kinds[kind], kind) for kind in _KINDS if kinds[kind])
        done = {
            self._did("locked", "lock"): count(self.counts["locked"], "recipe"),
            self._did("copied", "copy"): count(self.counts["copied"], "image"),
            self._did("kept", "keep"): f"{count(self.counts['kept'], 'calibration')} as history",
            self._did("refitted", "refit"): count(self.counts["refitted"], "ROI"),
        }
        summary = f"Found {found}: {', '.join(f'{did} {what}' for did, what in done.items())}"
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        return summary + failed + (" (dry run: nothing was written)." if self._dry_run else ".")

    def _did(self, past: str, verb: str) -> str:
        return f"would {verb}" if self._dry_run else past

    def _line(self, kind: Kind, found: Found) -> _Line:
        role_id, roi_id = (found.key.role_id, found.key.roi_id) if found.key else (found.name, "-")
        if kind == "recipe":
            role_id = "-"
        line = _Line(kind, found.layout, found.recipe, role_id, roi_id)
        self._lines.append(line)
        return line

    def _note(self, path: Path, text: str) -> None:
        self._notes.append(_shown(f"{path.relative_to(self._old).as_posix()}: {text}"))

    def _fail(self, result: str) -> str:
        self.counts["failed"] += 1
        return f"failed: {result}"

    @contextlib.contextmanager
    def _reporting(self, line: _Line) -> Iterator[None]:
        """What fails inside fails this line, and the others go on."""
        try:
            yield
        except BackendError as exc:
            line.results.append(self._fail(str(exc)))

    # --- settings of recipes

    def _take_recipe(self, found: Found) -> None:
        line = self._line("recipe", found)
        try:
            settings = read_settings(found.path)
            mm_per_px = float(settings["mm_per_px"])
        except (StorageError, KeyError):  # or deleted since
            line.found = "damaged"
            line.results.append("not taken over")
            return
        line.found = f"mm_per_px {mm_per_px:g}"
        with self._reporting(line):
            line.results.append(self._lock(found.recipe, mm_per_px, settings.get("created_at_utc")))

    def _lock(self, recipe_id: str, mm_per_px: float, created_at_utc: Any) -> str:
        locked = self._scale_of_recipe(recipe_id)
        if locked is not None and not same_scale(locked, mm_per_px):
            return f"not taken over: the recipe is locked to mm_per_px {locked:g}"
        if recipe_id in self._scales or self._recipes.has_settings(recipe_id):
            return "there already"
        if not self._dry_run:
            created = created_at_utc if isinstance(created_at_utc, str) else utc_now().isoformat()
            self._recipes.adopt(recipe_id, mm_per_px, created)
        self._scales[recipe_id] = mm_per_px
        self.counts["locked"] += 1
        return f"{self._did('locked', 'lock')} the recipe to it"

    def _scale_of_recipe(self, recipe_id: str | None) -> float | None:
        return self._scales.get(recipe_id or "") or self._recipes.mm_per_px(recipe_id)

    # --- data sets

    def _take_datasets(self, datasets: Sequence[Found]) -> None:
        listed = []
        for found in datasets:
            line = self._line("data set", found)
            with self._reporting(line):
                listed.append((line, found, {label: older.images(found.path / label) for label in LABELS}))
        n_files = sum(len(images) for _, _, of_labels in listed for images in of_labels.values())
        if not n_files:
            return
        with progress_bar("check" if self._dry_run else "copy", n_files) as bar:
            for line, found, images in listed:
                self._take_dataset(line, found.key, images, bar)

    def _take_dataset(
        self,
        line: _Line,
        key: RoiKey | None,
        images: Mapping[Label, Sequence[OlderImage]],
        bar: "tqdm[Any]",
    ) -> None:
        line.found = ", ".join(f"{len(images[label])} {label}" for label in LABELS)
        if key is None:
            line.results.append(f"not copied: {_UNKNOWN_ROI}")
            return
        self._roi(key).of_datasets.append(line)
        outcomes: Counter[str] = Counter()
        n_accepted: Counter[Label] = Counter()
        with self._reporting(line):
            for label in LABELS:
                for image in images[label]:
                    outcome = self._take_image(key, label, image)
                    outcomes[outcome] += 1
                    n_accepted[label] += outcome != "not copied"
                    bar.update()
        line.found = ", ".join(f"{n_accepted[label]} {label}" for label in LABELS)
        self.counts["copied"] += outcomes["copied"]
        words = {"copied": self._did("copied", "copy"), "there": "there already:", "not copied": "not copied:"}
        line.results[:0] = [f"{words[outcome]} {n}" for outcome, n in outcomes.items()]

    def _take_image(self, key: RoiKey, label: Label, image: OlderImage) -> Literal["copied", "there", "not copied"]:
        path = str(image.path)
        try:
            content = read_image(path, self._limits.max_bytes)
            decode_image(content, path, self._limits)
        except (InvalidImage, TooLarge) as exc:
            self._note(image.path, f"not copied: {str(exc).removeprefix(f'{path}: ')}")
            return "not copied"
        folder = dataset_folder(self._root, key) / label
        name = self._free_name(folder, image.path.name, content)
        if name is None:
            return "there"
        metadata = self._metadata(image, key, label)
        if name != image.path.name:
            metadata.setdefault("filename", _as_text(image.path.name))
        if not self._dry_run:
            self._datasets.copy(key, label, name, NewSample(lambda: content, PurePath(name).suffix, metadata))
        self._stored(folder)[name.casefold()] = _StoredImage(name, image.path, metadata)
        return "copied"

    def _free_name(self, folder: Path, old_name: str, content: bytes) -> str | None:
        """The name to store an image under: its own, or one that its content makes; None if it is there already."""
        digest = hashlib.sha256(content).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(old_name).stem)[:100]
        suffix = PurePath(old_name).suffix
        suffix = suffix if suffix.lower() in SUFFIXES else image_suffix(content)
        names = [old_name] if _is_safe(old_name) else []
        for name in [*names, f"{stem}-{digest[:8]}{suffix}", f"{stem}-{digest}{suffix}"]:
            stored = self._stored(folder).get(name.casefold())  # some file systems do not tell a.png from A.png
            if stored is None:
                return name
            if _content(stored.path) == content:
                return None
        raise Conflict(f"{_shown(old_name)}: every name that it could have is taken by another image")

    def _metadata(self, image: OlderImage, key: RoiKey, label: Label) -> dict[str, Any]:
        known = {
            "role_id": key.role_id,
            "roi_id": key.roi_id,
            "label": label,
            "filename": _as_text(image.path.name),
        }
        if image.metadata is None:
            return known
        try:
            # Older backends wrote NaN into numbers they did not have, which is no JSON.
            metadata = json.loads(image.metadata.read_bytes(), parse_constant=lambda _: None)
            json.dumps(metadata, indent=2, allow_nan=False)  # as it will be stored
        except (OSError, ValueError, RecursionError):
            metadata = None
        if isinstance(metadata, dict):
            return metadata
        self._note(image.metadata, f"no JSON object: {self._did('copied', 'copy')} the image with default metadata")
        return known

    def _stored(self, folder: Path) -> dict[str, _StoredImage]:
        """The images in a folder of one class, those that a dry run would have put there included, by casefolded name.

        Raises:
            StorageError: the folder cannot be read.
        """
        if folder not in self._images:
            try:
                files = sorted(folder.iterdir())
            except FileNotFoundError:
                files = []
            except OSError as exc:
                raise StorageError(f"the stored images cannot be listed ({exc.strerror})") from exc
            images = [file for file in files if file.name.lower().endswith(SUFFIXES) and file.name[0] != "."]
            self._images[folder] = {image.name.casefold(): _StoredImage(image.name, image) for image in images}
        return self._images[folder]

    # --- calibrations

    def _take_calibration(self, found: Found) -> None:
        try:
            content = found.path.read_bytes()
            values = older.read_calibration(content)
        except (OSError, StorageError) as exc:
            line = self._line("calibration", found)
            line.found = str(exc) if isinstance(exc, StorageError) else f"cannot be read ({exc.strerror})"
            line.results.append("not copied")
            return
        if found.layout == "L0" and older.is_current_calibration(values):
            return
        line = self._line("calibration", found)
        line.found = f"threshold {values.get('threshold', 'missing')}"
        with self._reporting(line):
            line.results.append(self._keep_calibration(found, content))

    def _keep_calibration(self, found: Found, content: bytes) -> str:
        if found.key is None:
            return f"not copied: {_UNKNOWN_ROI}"
        name = f"calib-{found.layout}-{hashlib.sha256(content).hexdigest()[:8]}.json"
        path = current_place(self._root, found.key).memory.parent / _HISTORY / name
        if path.exists():
            return "there already, as history"
        if not self._dry_run:
            with writing(path.parent, "calibration"):
                write_atomic({path: content})
        self.counts["kept"] += 1
        return f"{self._did('copied', 'copy')} as history, never applied"

    # --- models

    def _take_memory(self, found: Found) -> None:
        try:
            facts = older.read_memory(found.path)
        except StorageError as exc:
            described = str(exc)
        else:
            if found.layout == "L0" and facts.is_current:
                return
            rows, columns = facts.token_hw
            described = f"{facts.dim}-d, {rows}x{columns}, {facts.n_patches} patches"
        line = self._line("model", found)
        line.found = described
        if found.key is None:
            line.results.append(f"needs a refit: {_UNKNOWN_ROI}")
            return
        if found.key.model != found.key.roi_id:
            line.found += f", model_key {found.key.model}"
        roi = self._roi(found.key)
        roi.of_models.append(line)
        roi.model_keys.add(found.key.model)

    def _roi(self, key: RoiKey) -> _Roi:
        """The ROI that a refit would be of: in recipes, clients ask for some under another role than they upload to."""
        turned = key.recipe_id is not None and is_inspection(key)
        role_id = INSPECTION_ROLE if turned else key.role_id
        roi = self._rois.setdefault((key.recipe, role_id, key.roi_id), _Roi(RoiKey(role_id, key.roi_id, key.recipe_id)))
        if key.recipe_id is not None:
            roi.key = replace(roi.key, recipe_id=key.recipe_id)
        return roi

    # --- refits

    def _wanted(self, roi: _Roi) -> _Refit | None:
        """The refit of a ROI; None if there is to be none, which its lines then tell."""
        key = roi.new_key()
        try:
            refused = self._refused(key, of_old_model=bool(roi.of_models))
            if refused is None:
                images = self._ok_images(key)
                return _Refit(roi, key, self._scale(key, images), len(images))
            roi.tell(refused)
        except InvalidRequest as exc:  # it cannot be fitted, and that is no failure of the migration
            roi.tell(f"not refitted: {exc}")
        except BackendError as exc:
            roi.tell(self._fail(str(exc)))
        return None

    def _refused(self, key: RoiKey, *, of_old_model: bool) -> str | None:
        """Why a ROI is not refitted, as far as its model and the number of its images decide that."""
        memory = current_place(self._root, key).memory
        blocked = memory.exists()
        if blocked:
            with contextlib.suppress(StorageError):
                if older.read_memory(memory).is_current:
                    return "fitted already"
        n_images, needed = len(self._ok_images(key)), self._settings.min_ok_samples
        if not n_images and of_old_model:
            return "needs a refit: no stored images"
        if n_images < needed:
            return f"not refitted, too few: {n_images} of {needed} ok images"
        if blocked:
            return "needs a refit, which replaces the old model in its place: POST /fit_ok with use_dataset"
        if not self._refits:
            return f"needs a refit: {n_images} stored ok images (left out by --no-refit)"
        return None

    def _scale(self, key: RoiKey, images: Sequence[_StoredImage]) -> float:
        locked = self._scale_of_recipe(key.recipe_id)
        if locked is not None:
            return locked
        scales = {scale for image in images if (scale := scale_of(_metadata_of(image))) is not None}
        if not scales:
            raise InvalidRequest("no mm_per_px is known")
        if not same_scale(min(scales), max(scales)):
            raise InvalidRequest(f"its images differ in mm_per_px ({min(scales):g} to {max(scales):g})")
        return min(scales)

    def _ok_images(self, key: RoiKey) -> list[_StoredImage]:
        return list(self._stored(self._image_folder(key) / "ok").values())

    def _image_folder(self, key: RoiKey) -> Path:
        """As `DatasetStore` looks for the images of a ROI, but with those that a dry run would have put there.

        Raises:
            Conflict: several roles have images of this ROI.
        """
        own = dataset_folder(self._root, key)
        if key.recipe_id is None or not is_inspection(key) or self._has_images(own):
            return own
        roles = own.parent.parent
        folders = {*roles.glob(f"*/{own.name}"), *(folder.parent for folder in self._images)}
        others = [folder for folder in folders if folder.parent.parent == roles and folder.name == own.name]
        found = [folder for folder in others if self._has_images(folder)]
        if len(found) > 1:
            raise Conflict(f"several roles have images of roi {key.roi_id!r}, and {key.role_id!r} has none")
        return found[0] if found else own

    def _has_images(self, folder: Path) -> bool:
        return any(self._stored(folder / label) for label in LABELS)

    def _refit_all(self, refits: Sequence[_Refit]) -> None:
        if not refits:
            return
        if self._dry_run:
            for refit in refits:
                refit.roi.tell(self._refitted(refit))
            return
        try:
            service = InspectionService.open(self._settings)
        except BackendError as exc:
            for refit in refits:
                refit.roi.tell(self._fail(str(exc)))
            return
        try:
            for number, refit in enumerate(refits, start=1):
                say(f"refit {number} of {len(refits)}: {refit.key}")
                refit.roi.tell(self._fit(service, refit))
        except KeyboardInterrupt:
            say("stopped; run the same command again to go on")
            raise

    def _fit(self, service: InspectionService, refit: _Refit) -> str:
        checkpoint = checkpoint_folder(self._root, refit.key)
        try:
            with step_bars() as on_progress:
                result = dataset_runs.fit(
                    service,
                    refit.key,
                    mm_per_px=refit.mm_per_px,
                    keep_all=False,
                    on_progress=on_progress,
                    checkpoint=checkpoint,
                )
        except BackendError as exc:
            return self._fail(str(exc))
        return f"{self._refitted(refit)}, {result.coreset_size} patches"

    def _refitted(self, refit: _Refit) -> str:
        self.counts["refitted"] += 1
        return f"{self._did('refitted', 'refit')} from the stored data set: {refit.n_images} ok"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _shown(text: str) -> str:
    """A text as it may be printed: ids and file names hold anything."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _as_text(name: str) -> str:
    """A file name as text that UTF-8 can hold."""
    return name.encode("utf-8", "replace").decode()


def _is_safe(name: str) -> bool:
    try:
        return name.lower().endswith(SUFFIXES) and folder_name(name) == name
    except (InvalidRequest, UnicodeEncodeError):
        return False


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise StorageError(f"a stored image cannot be read ({exc.strerror})") from exc


def _metadata_of(image: _StoredImage) -> dict[str, Any]:
    if image.metadata is not None:
        return image.metadata
    try:
        return Sample("ok", image.name, image.path).metadata()
    except StorageError:  # it may be damaged; the fit takes the image without
        return {}
