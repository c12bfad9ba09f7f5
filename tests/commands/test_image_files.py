"""Which images paths name, and where their heatmaps go."""

import os
from pathlib import Path

import pytest

from backend.commands.heatmaps import check_apart, heatmap_path, write_heatmap
from backend.commands.image_files import find_images, image_sha256, read_image
from backend.common.errors import InvalidImage, InvalidRequest, StorageError, TooLarge


def found(*paths):
    return list(find_images(paths)[0].values())


def test_folder_gives_images_in_natural_order_and_counts_other_files(parts):
    images, n_ignored = find_images(["parts"])
    names = ["1.jpg", "2.PNG", "10.png", "a/9.jpeg", "a/c/8.bmp", "b/7.webp"]
    assert list(images.values()) == [f"parts/{name}" for name in names]
    assert n_ignored == 3, "notes.txt, Thumbs.db and the hidden image"


def test_names_that_differ_in_case_or_leading_zeros_have_an_order_too(tmp_path):
    for name in ["B1.png", "b01.png", "b1.png", "a2.png", "a2b.png", "A10.png", "x²3.png"]:
        (tmp_path / name).touch()
    names = [Path(image).name for image in found(str(tmp_path))]
    assert names == ["a2.png", "a2b.png", "A10.png", "B1.png", "b01.png", "b1.png", "x²3.png"]


def test_paths_stay_as_they_were_given_and_in_the_order_they_were_given(parts):
    assert found("./parts/b", "parts//a/9.jpeg", f"{parts}/1.jpg", "parts/../parts/2.PNG") == [
        "./parts/b/7.webp",
        "parts//a/9.jpeg",
        f"{parts}/1.jpg",
        "parts/../parts/2.PNG",
    ]
    assert found("parts/") == found("parts")


def test_image_given_twice_counts_once_and_a_link_to_it_counts_as_another(parts):
    assert found("parts/b/7.webp", "parts/b", "./parts/b", f"{parts}/b/7.webp") == ["parts/b/7.webp"]
    (parts / "link").symlink_to(parts / "b")
    assert found("parts/b", "parts/link") == ["parts/b/7.webp"]
    (parts / "b" / "8.webp").symlink_to(parts / "b" / "7.webp")
    assert found("parts/b") == ["parts/b/7.webp", "parts/b/8.webp"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing.png", "missing.png: no such file or folder"),
        ("parts/empty", "parts/empty: no images in this folder"),
        ("parts/notes.txt", "parts/notes.txt: no image by its extension"),
    ],
)
def test_a_path_without_images_is_an_error_that_names_it(parts, path, says):
    (parts / "empty").mkdir()
    (parts / "empty" / "readme.md").touch()
    with pytest.raises(InvalidRequest, match=says):
        find_images(["parts", path])


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


def test_what_cannot_be_read_is_an_invalid_image_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "large.png").write_bytes(b"12345")
    for name, error, says in [
        ("pipe.png", InvalidImage, "no regular file"),
        ("gone.png", InvalidImage, "No such file"),
        ("large.png", TooLarge, "5 bytes, at most 4 are accepted"),
    ]:
        with pytest.raises(error, match=rf"{name}: .*{says}"):
            read_image(str(tmp_path / name), 4)
        assert image_sha256(str(tmp_path / name), 4) is None
    assert read_image(str(tmp_path / "large.png"), 5) == b"12345"
