"""Where heatmaps go: apart from the images, in a folder of their own."""

import os
from pathlib import Path

import pytest

from backend.commands.heatmaps import check_apart, heatmap_path, write_heatmap
from backend.commands.image_files import find_images
from backend.common.errors import InvalidRequest, StorageError

GIVEN = [
    "a.png",
    "a.jpg",
    "a.png.png",
    "../a.png",
    "%2E%2E/a.png",
    "%252E%252E/a.png",
    "../../a.png",
    "/a.png",
    "%2Fa.png",
    "/../a.png",
    "x/../a.png",
    "x/..%/a.png",
    "x/a.png",
    "/x/a.png",
    "...png",
    "..png",
]


def test_heatmaps_mirror_the_paths_stay_in_their_folder_and_never_meet():
    heatmaps = [heatmap_path(Path("/maps"), image) for image in GIVEN]
    assert len(set(heatmaps)) == len(GIVEN)
    assert all(os.path.normpath(heatmap) == str(heatmap) for heatmap in heatmaps), "nothing steps up"
    assert all(heatmap.is_relative_to("/maps") and heatmap.suffix == ".png" for heatmap in heatmaps)
    assert heatmap_path(Path("maps"), "./lot7//b/a.jpg") == Path("maps/lot7/b/a.jpg.png")


@pytest.mark.parametrize(
    ("folder", "paths", "apart"),
    [
        ("maps", ["parts"], True),
        (".", ["parts"], False),
        ("parts/maps", ["parts"], False),
        ("parts/maps", ["parts/b"], True),
        ("link/maps", ["parts"], False),
        (".", ["1.jpg", "1.jpg.png"], False),
        (".", ["1.jpg"], True),
    ],
)
def test_heatmaps_among_the_images_are_refused(parts, tmp_path, folder, paths, apart):
    (tmp_path / "link").symlink_to(parts)
    for name in ("1.jpg", "1.jpg.png"):
        (tmp_path / name).touch()
    images, _ = find_images(paths)
    heatmaps = [heatmap_path(Path(folder), image) for image in images.values()]
    if apart:
        check_apart(heatmaps, images, paths)
    else:
        with pytest.raises(InvalidRequest, match="give --heatmaps another folder"):
            check_apart(heatmaps, images, paths)


def test_heatmap_is_written_whole_over_what_a_killed_run_left(tmp_path):
    """New folders are made, and nothing that a killed run left remains."""
    heatmap = tmp_path / "maps" / "a" / "1.jpg.png"
    write_heatmap(heatmap, b"first")
    (heatmap.parent / ".tmp-1.jpg.png").write_bytes(b"torn")
    write_heatmap(heatmap, b"second")
    assert heatmap.read_bytes() == b"second"
    assert list(heatmap.parent.iterdir()) == [heatmap]


def test_a_folder_that_cannot_take_heatmaps_is_a_storage_error(tmp_path):
    (tmp_path / "maps").touch()
    with pytest.raises(StorageError, match=r"1\.jpg\.png cannot be written"):
        write_heatmap(tmp_path / "maps" / "1.jpg.png", b"")
