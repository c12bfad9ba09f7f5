"""Copies among good parts: the same pixels in two files, and images that look nearly the same."""

import hashlib
import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.calib import SEEN_IN_THE_FIT
from backend.disk.datasets import NewSample
from backend.features import DinoV2Features
from backend.roi_mask import Circle
from backend.service import bank_report
from backend.service.calibration_options import CalibrationOptions
from backend.service.datasets import calibrate_stored, fit_stored
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.utils import NamedImage
from tests.factories import KEY, service_with

pytestmark = pytest.mark.slow


@pytest.fixture
def service(small_features, tmp_path):
    return service_with(small_features, tmp_path, min_ok_samples=2)


@pytest.fixture(scope="module")
def cells():
    """Seven good solar cells: uint8 [300, 300, 3]."""
    package = importlib.util.find_spec("elpv_dataset")
    assert package is not None, "pip install -r requirements/dev.txt"
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    good = [data / name for name, probability, kind in rows if kind == "mono" and float(probability) == 0]
    return [cv2.imread(str(path)) for path in good[:140:20]]


def named(name, image, *options):
    content = cv2.imencode(Path(name).suffix, image, options)[1].tobytes()
    return NamedImage(name, lambda: content)


def encoded(extension, cells, numbers=None, *options):
    chosen = range(len(cells)) if numbers is None else numbers
    return [named(f"{number}{extension}", cells[number], *options) for number in chosen]


def pngs(cells, *numbers):
    return encoded(".png", cells, numbers or None)


def bmps(cells, *numbers):
    return encoded(".bmp", cells, numbers or None)


def jpegs(cells, *numbers):
    return encoded(".jpg", cells, numbers or None, cv2.IMWRITE_JPEG_QUALITY, 90)


def store(service, label, images, **metadata):
    return service.datasets.add(
        KEY, label, [NewSample(image.read, Path(image.name).suffix, metadata) for image in images]
    )


def calibrated(service, **options):
    return calibrate_stored(service, KEY, CalibrationOptions(**options), default_mm_per_px=0.2, require_ng=False)


def without_pixel_hashes(service):
    """The ROI's model as an earlier version of the service would have written it."""
    path = service.settings.models_dir / "Master1" / "Pattern" / "memory.npz"
    with np.load(path) as file:
        arrays = dict(file)
    metadata = json.loads(str(arrays["metadata"]))
    for image in metadata["images"]:
        del image["pixels_sha256"]
    np.savez(path, **{**arrays, "metadata": np.array(json.dumps(metadata))})


class TestSamePixels:
    @pytest.mark.parametrize("keep_all", [False, True])
    def test_png_and_bmp_of_each_part_score_as_the_pngs_alone(self, service, cells, keep_all):
        """Copies are no others to each other: the bank of the others is that of the other parts."""
        service = InspectionService(
            service.settings.model_copy(update={"coreset_rate": 0.2}), service.features, service.store
        )
        alone = fit(service, KEY, pngs(cells), mm_per_px=0.2, keep_all=keep_all).ok_scores
        both = fit(service, KEY, [*pngs(cells), *bmps(cells)], mm_per_px=0.2, keep_all=keep_all).ok_scores
        assert both[:7] == both[7:]
        assert both[:7] == pytest.approx(alone, abs=1e-5)

    def test_one_part_in_two_formats_has_no_others(self, service, cells):
        result = fit(service, KEY, [*pngs(cells, 0), *bmps(cells, 0)], mm_per_px=0.2)
        assert result.ok_scores is None
        assert result.warning is None

    def test_defective_part_in_two_formats_is_suspicious_in_both(self, service, cells):
        alike = [cv2.convertScaleAbs(cells[0], alpha=1 + number / 50) for number in range(8)]
        painted = cv2.circle(cells[0].copy(), (150, 120), 45, (0, 0, 255), cv2.FILLED)
        images = [*pngs(alike), named("bad.png", painted), named("bad.bmp", painted)]
        result = fit(service, KEY, images, mm_per_px=0.2)
        assert [image.filename for image in result.suspicious] == ["bad.png", "bad.bmp"]
        report = bank_report.bank_report(service, KEY)
        assert [entry.image.name for entry in report.entries if entry.suspicious] == ["bad.png", "bad.bmp"]

    def test_appended_copy_in_another_format_is_known_without_a_forward_pass(self, service, cells, monkeypatch):
        first = fit(service, KEY, pngs(cells, 0, 1, 2), mm_per_px=0.2)
        before = service.fitted(KEY)
        passes = []
        monkeypatch.setattr(DinoV2Features, "canvas", lambda *arguments: passes.append(arguments))
        again = fit(service, KEY, bmps(cells, 0, 1, 2), mm_per_px=0.2, append=True)
        assert passes == []
        assert (again.ok_scores, again.memory_id) == (first.ok_scores, first.memory_id)
        assert service.fitted(KEY).metadata == before.metadata

    def test_appended_mix_of_copies_and_new_images_adds_the_new_ones(self, service, cells):
        first = fit(service, KEY, pngs(cells, 0, 1, 2), mm_per_px=0.2)
        mixed = [*bmps(cells, 1), *pngs(cells, 3), *bmps(cells, 3), *pngs(cells, 0)]
        result = fit(service, KEY, mixed, mm_per_px=0.2, append=True, thumbnails=True)
        assert result.ok_scores[0] == first.ok_scores[1]
        assert result.ok_scores[1] == result.ok_scores[2]
        assert result.ok_scores[3] == first.ok_scores[0]
        fitted = service.fitted(KEY)
        images = recorded_images(fitted.metadata)
        assert [image.name for image in images] == ["0.png", "1.png", "2.png", "3.png", "3.bmp"]
        assert images[3].pixels_sha256 == images[4].pixels_sha256
        assert fitted.metadata["n_images"] == 5
        assert [bool(picture) for picture in service.store.thumbnails(fitted)] == [False] * 3 + [True] * 2

    def test_model_of_an_earlier_version_knows_images_by_their_files(self, service, cells):
        first = fit(service, KEY, pngs(cells, 0, 1, 2), mm_per_px=0.2)
        without_pixel_hashes(service)
        again = fit(service, KEY, pngs(cells, 0, 1, 2), mm_per_px=0.2, append=True)
        assert (again.ok_scores, again.memory_id) == (first.ok_scores, first.memory_id)
        fit(service, KEY, [*pngs(cells, 0), *bmps(cells, 1)], mm_per_px=0.2, append=True)
        images = recorded_images(service.fitted(KEY).metadata)
        assert [image.name for image in images] == ["0.png", "1.png", "2.png", "1.bmp"]
        assert [image.pixels_sha256 is None for image in images] == [True] * 3 + [False]


class TestCalibration:
    def test_reformatted_copies_of_fitted_images_count_by_honest_scores(self, service, cells):
        honest = fit(service, KEY, pngs(cells), mm_per_px=0.2).ok_scores
        store(service, "ok", bmps(cells))
        done = calibrated(service)
        assert done.calibration.threshold == pytest.approx(np.percentile(honest, 99), abs=1e-9)
        assert done.calibration.n_ok == 7
        assert done.calibration.promise.false_reject_rate_at_most is not None
        assert done.warning == done.calibration.warning

    def test_copies_get_no_promise_where_honest_scores_do_not_apply(self, service, cells):
        """Another mask than the fit's: the images are scored by the bank that holds them, and the reply says so."""
        fit(service, KEY, pngs(cells), mm_per_px=0.2, shapes=[Circle(kind="circle", cx=150, cy=150, r=90)] * 7)
        store(service, "ok", bmps(cells))
        done = calibrated(service)
        assert "nothing is promised about false rejects" in done.calibration.promise.text
        assert SEEN_IN_THE_FIT in done.warning

    def test_png_and_bmp_of_a_fresh_part_count_once_and_are_scored_once(self, service, cells, monkeypatch):
        fit(service, KEY, pngs(cells, 0, 1, 2, 3), mm_per_px=0.2)
        store(service, "ok", [*pngs(cells, 4, 5, 6), *bmps(cells, 4, 5, 6)])
        scored = []
        engine = service.run_engine
        monkeypatch.setattr(service, "run_engine", lambda *given: scored.append(given) or engine(*given))
        first = calibrated(service)
        assert first.calibration.n_ok == 3
        assert len(scored) == 3
        again = calibrated(service)
        assert again.calibration == first.calibration
        assert len(scored) == 3

    def test_repeated_calibration_decodes_nothing(self, service, cells, monkeypatch):
        fit(service, KEY, pngs(cells, 0, 1, 2, 3), mm_per_px=0.2)
        store(service, "ok", [*bmps(cells, 2, 3, 4, 5, 6), *pngs(cells, 0, 1)])
        first = calibrated(service)
        monkeypatch.setattr("backend.service.inspection.decode", None)
        assert calibrated(service).calibration == first.calibration

    def test_scores_that_an_earlier_version_kept_are_used(self, service, cells, monkeypatch):
        """They were kept by file; the new version needs the pixels too, but not the network."""
        fit(service, KEY, pngs(cells, 0, 1, 2, 3), mm_per_px=0.2)
        store(service, "ok", pngs(cells, 4, 5, 6))
        first = calibrated(service)
        (path,) = service.datasets.folder(KEY).glob(".scores-*")
        older, names = [], {}
        for line in filter(None, path.read_text().split("\n")):
            name, *values = json.loads(line)
            if len(values) == 2 and values[0] == "nearly":
                continue  # which images are near copies was not kept
            if isinstance(values[0], str):
                names[sha256_of_digest(values[0])] = sha256_of_digest(name)
            else:
                older.append(json.dumps([names[name], *values]))
        path.write_text("\n" + "\n".join(older))
        monkeypatch.setattr(service, "run_engine", None)
        assert calibrated(service).calibration == first.calibration

    def test_model_of_an_earlier_version_knows_fitted_images_by_their_files(self, service, cells):
        honest = fit(service, KEY, pngs(cells), mm_per_px=0.2).ok_scores
        without_pixel_hashes(service)
        store(service, "ok", pngs(cells))
        assert calibrated(service).calibration.threshold == pytest.approx(np.percentile(honest, 99), abs=1e-9)

    def test_grouped_copies_count_once(self, service, cells):
        store(service, "ok", [*pngs(cells), *jpegs(cells, 0, 1, 2)])
        fit_stored(service, KEY, mm_per_px=0.2, keep_all=False, group_copies=True)
        assert calibrated(service).calibration.n_ok == 7
        fit_stored(service, KEY, mm_per_px=0.2, keep_all=False)
        assert calibrated(service).calibration.n_ok == 10


def sha256_of_digest(digest):
    return hashlib.sha256(bytes.fromhex(digest)).hexdigest()


class TestNearCopies:
    def test_jpegs_of_parts_are_named_in_a_warning_and_change_nothing(self, service, cells):
        images = [*pngs(cells), *jpegs(cells, 0, 1)]
        result = fit(service, KEY, images, mm_per_px=0.2)
        assert "2 pairs of images look nearly the same (0.png and 0.jpg, 1.png and 1.jpg)" in result.warning
        assert all(image.copy_of is None for image in recorded_images(service.fitted(KEY).metadata))
        assert result.ok_scores[0] < fit(service, KEY, pngs(cells), mm_per_px=0.2).ok_scores[0]

    def test_without_copies_there_is_no_warning_and_nothing_to_group(self, service, cells):
        result = fit(service, KEY, pngs(cells), mm_per_px=0.2)
        assert result.warning is None
        before = service.fitted(KEY).metadata
        assert fit(service, KEY, pngs(cells), mm_per_px=0.2, group_copies=True) == result
        assert service.fitted(KEY).metadata == before

    def test_grouped_copies_score_as_if_the_group_were_not_in_the_fit(self, service, cells):
        """With every patch kept, the bank of the others is the fit without all images of the group."""
        images = [*pngs(cells, 0, 1, 2, 3), *jpegs(cells, 0), *bmps(cells, 0)]
        grouped = fit(service, KEY, images, mm_per_px=0.2, keep_all=True, group_copies=True)
        alone = fit(service, KEY, pngs(cells, 0, 1, 2, 3), mm_per_px=0.2, keep_all=True)
        assert grouped.ok_scores[0] == grouped.ok_scores[5] == pytest.approx(alone.ok_scores[0], abs=1e-6)
        assert grouped.ok_scores[1:4] == pytest.approx(alone.ok_scores[1:], abs=0.02)
        assert grouped.ok_scores[4] == pytest.approx(alone.ok_scores[0], abs=0.1)
        assert "count once" in grouped.warning

    def test_group_is_recorded_with_each_of_its_copies(self, service, cells):
        fit(service, KEY, [*pngs(cells, 0, 1), *jpegs(cells, 0)], mm_per_px=0.2, group_copies=True)
        first, other, copy = recorded_images(service.fitted(KEY).metadata)
        assert copy.copy_of == first.pixels_sha256
        assert (first.copy_of, other.copy_of) == (None, None)
        assert copy.identity == first.identity != other.identity

    def test_defective_part_and_its_jpeg_are_suspicious_once_they_are_grouped(self, service, cells):
        painted = cv2.circle(cells[0].copy(), (150, 120), 45, (0, 0, 255), cv2.FILLED)
        images = [*pngs(cells), named("bad.png", painted), named("bad.jpg", painted, cv2.IMWRITE_JPEG_QUALITY, 90)]
        by_itself = fit(service, KEY, images, mm_per_px=0.2)
        assert "bad.png and bad.jpg" in by_itself.warning
        assert by_itself.suspicious == []
        grouped = fit(service, KEY, images, mm_per_px=0.2, group_copies=True)
        assert [image.filename for image in grouped.suspicious] == ["bad.png", "bad.jpg"]
