"""Takes over the data of older backends into the models folder of this service: copies, refits, and a report.

Old files are read, but never written. Finished work is skipped, so a migration can be repeated.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from backend.commands.console import print_line, progress_bar, say, step_bars
from backend.commands.migrate import older
from backend.commands.migrate.images import ImageCopies, StoredImage
from backend.commands.migrate.older import Found, OlderImage
from backend.commands.migrate.report import Line, Report
from backend.common.config import Settings
from backend.common.errors import BackendError, InvalidRequest, StorageError
from backend.common.files import write_atomic
from backend.common.roi_key import INSPECTION_ROLE, RoiKey, is_inspection
from backend.disk.datasets import LABELS, Label
from backend.disk.layout import HISTORY_FOLDER, checkpoint_folder, current_files
from backend.disk.locking import writing
from backend.disk.recipes import RecipeStore, read_settings, same_scale
from backend.service.datasets import fit_stored, scale_of
from backend.service.inspection import InspectionService
from backend.utils import utc_now

_UNKNOWN_ROI = "its name does not state role and roi"


def migrate(settings: Settings, old: Path, *, dry_run: bool, refit: bool) -> int:
    """Take over the data of older backends into ``MODELS_DIR``, and print a report.

    Args:
        settings: the configuration.
        old: their models folder; may be ``MODELS_DIR``.
        dry_run: write nothing, and report what would be done.
        refit: fit the ROIs that have enough stored images.

    Returns:
        The number of failures; the report has the reasons.

    Raises:
        InvalidRequest: `old` is not a readable folder.
    """
    try:
        next(old.iterdir(), None)
    except OSError as exc:
        raise InvalidRequest(f"{old}: give the models folder of the older backend ({exc.strerror})") from exc
    report = Report(old, dry_run=dry_run)
    try:
        _Migration(settings, old, report, dry_run=dry_run, refit=refit).run()
    except KeyboardInterrupt:
        say("stopped; run the same command again to resume")
        raise
    for line in report.text():
        print_line(line)
    return report.counts["failed"]


@dataclass
class _Roi:
    """A ROI that may need a refit.

    Attributes:
        key: the ROI of the model; the model key is in `model_keys`.
        model_keys: those of its old models.
        of_models, of_datasets: its lines of the report.
    """

    key: RoiKey
    model_keys: set[str] = field(default_factory=set)
    of_models: list[Line] = field(default_factory=list)
    of_datasets: list[Line] = field(default_factory=list)

    def new_key(self) -> RoiKey:
        """The key of the refit: with the earlier model key of clients, if there was one."""
        (model_key, *others) = self.model_keys or {self.key.roi_id}
        if others or model_key == self.key.roi_id:
            return self.key
        return replace(self.key, model_key=model_key)

    def tell(self, result: str) -> None:
        for line in self.of_models or self.of_datasets:
            line.results.append(result)


@dataclass(frozen=True)
class _Refit:
    """A planned fit."""

    roi: _Roi
    key: RoiKey
    mm_per_px: float
    n_images: int


class _Migration:
    """One run. A dry run takes the same path, and remembers what it would have written."""

    def __init__(self, settings: Settings, old: Path, report: Report, *, dry_run: bool, refit: bool) -> None:
        self._settings = settings
        self._root = settings.models_dir
        self._old = old
        self._dry_run = dry_run
        self._refits = refit
        self._report = report
        self._images = ImageCopies(settings, report.note, dry_run=dry_run)
        self._recipes = RecipeStore(self._root)
        self._scales: dict[str, float] = {}
        self._rois: dict[tuple[str, str, str], _Roi] = {}

    def run(self) -> None:
        """Do everything; the fits come last, because they are long and need the rest."""
        for recipe in older.recipes(self._old):
            self._take_recipe(recipe)
        self._take_datasets(older.datasets(self._old))
        for calibration in older.calibrations(self._old):
            self._take_calibration(calibration)
        for memory in older.memories(self._old):
            self._take_memory(memory)
        self._refit_all([refit for roi in self._rois.values() if (refit := self._wanted(roi))])

    @contextlib.contextmanager
    def _reporting(self, line: Line) -> Iterator[None]:
        """An error inside the block fails this line, but the others continue."""
        try:
            yield
        except BackendError as exc:
            line.results.append(self._report.failed(str(exc)))

    # --- settings of recipes

    def _take_recipe(self, found: Found) -> None:
        line = self._report.line("recipe", found)
        try:
            settings = read_settings(found.path)
            mm_per_px = float(settings["mm_per_px"])
        except (StorageError, KeyError):  # or deleted since
            line.found = "damaged"
            line.results.append("not taken over")
            return
        line.found = f"mm_per_px {mm_per_px:g}"
        with self._reporting(line):
            try:
                line.results.append(self._lock(found.recipe, mm_per_px, settings.get("created_at_utc")))
            except UnicodeEncodeError:  # a file name that is no text
                line.results.append("not taken over: its name is not a recipe")

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
        self._report.counts["locked"] += 1
        return f"{self._report.did('locked', 'lock')} the recipe to it"

    def _scale_of_recipe(self, recipe_id: str | None) -> float | None:
        return self._scales.get(recipe_id or "") or self._recipes.mm_per_px(recipe_id)

    # --- data sets

    def _take_datasets(self, datasets: Sequence[Found]) -> None:
        listed = []
        for found in datasets:
            line = self._report.line("data set", found)
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
        line: Line,
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
                    outcome = self._images.take(key, label, image)
                    outcomes[outcome] += 1
                    n_accepted[label] += outcome != "not copied"
                    bar.update()
        line.found = ", ".join(f"{n_accepted[label]} {label}" for label in LABELS)
        self._report.counts["copied"] += outcomes["copied"]
        words = {"copied": self._report.did("copied", "copy"), "there": "there already:", "not copied": "not copied:"}
        line.results[:0] = [f"{did} {outcomes[outcome]}" for outcome, did in words.items() if outcomes[outcome]]

    # --- calibrations

    def _take_calibration(self, found: Found) -> None:
        try:
            content = found.path.read_bytes()
            values = older.read_calibration(content)
        except (OSError, StorageError) as exc:
            line = self._report.line("calibration", found)
            line.found = str(exc) if isinstance(exc, StorageError) else f"cannot be read ({exc.strerror})"
            line.results.append("not copied")
            return
        if found.layout == "L0" and older.is_current_calibration(values):
            return
        line = self._report.line("calibration", found)
        line.found = f"threshold {values.get('threshold', 'missing')}"
        with self._reporting(line):
            line.results.append(self._keep_calibration(found, content))

    def _keep_calibration(self, found: Found, content: bytes) -> str:
        if found.key is None:
            return f"not copied: {_UNKNOWN_ROI}"
        name = f"calib-{found.layout}-{hashlib.sha256(content).hexdigest()[:8]}.json"
        path = current_files(self._root, found.key).memory.parent / HISTORY_FOLDER / name
        if path.exists():
            return "there already, as history"
        if not self._dry_run:
            with writing(path.parent, "calibration"):
                write_atomic({path: content})
        self._report.counts["kept"] += 1
        return f"{self._report.did('copied', 'copy')} as history, never applied"

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
        line = self._report.line("model", found)
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
        """The ROI of a refit: in recipes, clients request some ROIs under another role than that of their uploads."""
        turned = key.recipe_id is not None and is_inspection(key)
        role_id = INSPECTION_ROLE if turned else key.role_id
        roi = self._rois.setdefault((key.recipe, role_id, key.roi_id), _Roi(RoiKey(role_id, key.roi_id, key.recipe_id)))
        if key.recipe_id is not None:
            roi.key = replace(roi.key, recipe_id=key.recipe_id)
        return roi

    # --- refits

    def _wanted(self, roi: _Roi) -> _Refit | None:
        """The refit of a ROI; None if there is none, which its lines explain."""
        key = roi.new_key()
        try:
            refused = self._refused(key, of_old_model=bool(roi.of_models))
            if refused is None:
                images = self._images.ok_images(key)
                return _Refit(roi, key, self._scale(key, images), len(images))
            roi.tell(refused)
        except InvalidRequest as exc:  # it cannot be fitted, and that is no failure of the migration
            roi.tell(f"not refitted: {exc}")
        except BackendError as exc:
            roi.tell(self._report.failed(str(exc)))
        return None

    def _refused(self, key: RoiKey, *, of_old_model: bool) -> str | None:
        """Why a ROI is not refitted, according to its model and the number of its images."""
        memory = current_files(self._root, key).memory
        blocked = memory.exists()
        if blocked:
            with contextlib.suppress(StorageError):
                if older.read_memory(memory).is_current:
                    return "fitted already"
        n_images, needed = len(self._images.ok_images(key)), self._settings.min_ok_samples
        if not n_images and of_old_model:
            return "needs a refit: no stored images"
        if n_images < needed:
            return f"not refitted, too few: {n_images} of {needed} ok images"
        if blocked:
            return "needs a refit, which replaces the old model in its place: POST /fit_ok with use_dataset"
        if not self._refits:
            return f"needs a refit: {n_images} stored ok images (left out by --no-refit)"
        return None

    def _scale(self, key: RoiKey, images: Sequence[StoredImage]) -> float:
        locked = self._scale_of_recipe(key.recipe_id)
        if locked is not None:
            return locked
        scales = {scale for image in images if (scale := scale_of(image.metadata())) is not None}
        if not scales:
            raise InvalidRequest("no mm_per_px is known")
        if not same_scale(min(scales), max(scales)):
            raise InvalidRequest(f"its images differ in mm_per_px ({min(scales):g} to {max(scales):g})")
        return min(scales)

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
                refit.roi.tell(self._report.failed(str(exc)))
            return
        for number, refit in enumerate(refits, start=1):
            say(f"refit {number} of {len(refits)}: {refit.key}")
            refit.roi.tell(self._fit(service, refit))

    def _fit(self, service: InspectionService, refit: _Refit) -> str:
        checkpoint = checkpoint_folder(self._root, refit.key)
        try:
            with step_bars() as on_progress:
                result = fit_stored(
                    service,
                    refit.key,
                    mm_per_px=refit.mm_per_px,
                    keep_all=False,
                    on_progress=on_progress,
                    checkpoint=checkpoint,
                )
        except BackendError as exc:
            return self._report.failed(str(exc))
        return f"{self._refitted(refit)}, {result.coreset_size} patches"

    def _refitted(self, refit: _Refit) -> str:
        self._report.counts["refitted"] += 1
        return f"{self._report.did('refitted', 'refit')} from the stored data set: {refit.n_images} ok"
