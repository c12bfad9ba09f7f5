"""Copies of a memory bank's own images among those that are appended to it."""

import io
import zipfile

import cv2
import numpy as np
import pytest

from backend.bank.images import recorded_images
from backend.common.errors import StorageError
from backend.disk.layout import current_files
from backend.service.fit import fit
from backend.utils import NamedImage
from tests.factories import KEY, service_with, smooth_parts

MINIATURES = ("miniatures.npy", "miniature_images.npy")


@pytest.fixture
def service(small_features, tmp_path):
    return service_with(small_features, tmp_path)


@pytest.fixture(scope="module")
def parts():
    return smooth_parts(6)


def named(name, part, *options):
    content = cv2.imencode("." + name.rpartition(".")[2], part, options)[1].tobytes()
    return NamedImage(name, lambda: content)


def pngs(parts, *numbers):
    return [named(f"{number}.png", parts[number]) for number in numbers]


def jpeg(parts, number):
    return named(f"{number}.jpg", parts[number], cv2.IMWRITE_JPEG_QUALITY, 95)


def images(service):
    return recorded_images(service.fitted(KEY).metadata)


def memory_file(service):
    return current_files(service.settings.models_dir, KEY).memory


def leave_out(path, names):
    """The file as an earlier version wrote it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(buffer, "w") as after:
        for part in before.infolist():
            if part.filename not in names:
                after.writestr(part, before.read(part))
    path.write_bytes(buffer.getvalue())


@pytest.mark.slow
def test_a_copy_of_an_image_of_the_bank_is_named(service, parts):
    assert fit(service, KEY, pngs(parts, 0, 1, 2), mm_per_px=0.2).warning is None
    assert fit(service, KEY, pngs(parts, 3), mm_per_px=0.2, append=True).warning is None
    appended = fit(service, KEY, [*pngs(parts, 4), jpeg(parts, 1), jpeg(parts, 3)], mm_per_px=0.2, append=True)
    assert appended.warning.startswith(
        "2 pairs of images look nearly the same (1.png (in the memory bank) and 1.jpg, 3.png (in the memory bank) and "
        "3.jpg): if they show the same part, their ok_scores are too low"
    )
    assert [image.copy_of for image in images(service)] == [None] * 7


@pytest.mark.slow
def test_grouped_it_counts_as_that_image_and_scores_as_without_it(service, parts, tmp_path, small_features):
    fit(service, KEY, pngs(parts, 0, 1, 2), mm_per_px=0.2)
    grouped = fit(service, KEY, [jpeg(parts, 1), *pngs(parts, 5)], mm_per_px=0.2, append=True, group_copies=True)
    assert "copies of one image count once" in grouped.warning
    found = images(service)
    assert found[3].copy_of == found[1].pixels_sha256
    assert found[4].copy_of is None
    apart = service_with(small_features, tmp_path / "apart")
    fit(apart, KEY, pngs(parts, 0, 1, 2), mm_per_px=0.2)
    alone = fit(apart, KEY, [jpeg(parts, 1), *pngs(parts, 5)], mm_per_px=0.2, append=True)
    assert grouped.ok_scores[0] > alone.ok_scores[0], "its image is no other one to it"
    assert grouped.ok_scores[1] == alone.ok_scores[1]
    assert grouped.memory_id == alone.memory_id


def test_the_file_holds_what_it_held_and_the_miniatures(service, parts):
    fit(service, KEY, pngs(parts, 0, 1), mm_per_px=0.2)
    fit(service, KEY, pngs(parts, 2), mm_per_px=0.2, append=True)
    with np.load(memory_file(service)) as arrays:
        assert set(arrays) == {
            *("emb", "token_h", "token_w", "version", "metadata", "patches", "miniatures", "miniature_images")
        }
        assert arrays["miniature_images"].tolist() == [0, 1, 2]
        for part, miniature in zip(parts, arrays["miniatures"], strict=False):
            grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
            assert np.array_equal(miniature, cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA))


@pytest.mark.slow
def test_of_images_of_an_earlier_version_it_says_that_it_cannot(service, parts):
    fit(service, KEY, pngs(parts, 0, 1, 2), mm_per_px=0.2)
    leave_out(memory_file(service), MINIATURES)
    told = (
        "3 of the {} images of the memory bank were fitted by an earlier version, which kept no miniatures, so "
        "their copies"
    )
    assert fit(service, KEY, [jpeg(parts, 1)], mm_per_px=0.2, append=True).warning.startswith(told.format(3))
    again = fit(service, KEY, [named("b.jpg", parts[1], cv2.IMWRITE_JPEG_QUALITY, 90)], mm_per_px=0.2, append=True)
    assert again.warning.startswith("1 pair of images looks nearly the same (1.jpg (in the memory bank) and b.jpg)")
    assert told.format(4) in again.warning
    assert len(images(service)) == 5


def test_damaged_miniatures_are_refused_and_change_nothing(service, parts):
    fit(service, KEY, pngs(parts, 0, 1, 2), mm_per_px=0.2)
    path = memory_file(service)
    with np.load(path) as arrays:
        kept = dict(arrays)
    np.savez(path, **{**kept, "miniatures": kept["miniatures"][:2]})
    before = path.read_bytes()
    with pytest.raises(StorageError, match="the stored miniatures are damaged: refit this ROI"):
        fit(service, KEY, pngs(parts, 3), mm_per_px=0.2, append=True)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_stored_image_of_the_bank_is_named_as_it_came(service, parts):
    (content,) = (image.read() for image in pngs(parts, 0))
    fit(service, KEY, [NamedImage("stored.png", lambda: content, "part 0.png")], mm_per_px=0.2)
    appended = fit(service, KEY, [jpeg(parts, 0)], mm_per_px=0.2, append=True)
    assert "(stored.png (uploaded as part 0.png) (in the memory bank) and 0.jpg)" in appended.warning
