"""Which images paths name, and how they are read."""

import os
from pathlib import Path

import pytest

from backend.commands.image_files import find_images, image_sha256, read_image
from backend.common.errors import InvalidImage, InvalidRequest, TooLarge


def found(*paths):
    return list(find_images(paths)[0].values())


def test_folder_gives_images_in_natural_order_and_counts_other_files(parts):
    images, ignored = find_images(["parts"])
    names = ["1.jpg", "2.PNG", "10.png", "a/9.jpeg", "a/c/8.bmp", "b/7.webp"]
    assert list(images.values()) == [f"parts/{name}" for name in names]
    assert ignored.files == ["parts/.hidden.png", "parts/a/Thumbs.db", "parts/notes.txt"]
    assert ignored.folders == ["parts/.cache"]


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
    assert find_images(["parts"])[1].links == ["parts/link"]
    assert found("parts/b", "parts/link") == ["parts/b/7.webp"]
    (parts / "b" / "8.webp").symlink_to(parts / "b" / "7.webp")
    assert found("parts/b") == ["parts/b/7.webp", "parts/b/8.webp"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing.png", "missing.png: no such file or folder"),
        ("parts/empty", "parts/empty: no images in this folder"),
        ("parts/notes.txt", "parts/notes.txt: unsupported file type; use .png"),
    ],
)
def test_a_path_without_images_is_an_error_that_names_it(parts, path, says):
    (parts / "empty").mkdir()
    (parts / "empty" / "readme.md").touch()
    with pytest.raises(InvalidRequest, match=says):
        find_images(["parts", path])


def test_what_cannot_be_read_is_an_invalid_image_by_name(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "large.png").write_bytes(b"12345")
    for name, error, says in [
        ("pipe.png", InvalidImage, "not a regular file"),
        ("gone.png", InvalidImage, "No such file"),
        ("large.png", TooLarge, "5 bytes, but at most 4 are accepted"),
    ]:
        with pytest.raises(error, match=rf"{name}: .*{says}"):
            read_image(str(tmp_path / name), 4)
        assert image_sha256(str(tmp_path / name), 4) is None
    assert read_image(str(tmp_path / "large.png"), 5) == b"12345"
