"""Which images belong to which part, which parts are missing, and what a place already has."""

import io
import os

import pytest

from backend.cluster.parts import RUN, ArchiveRun, as_parquet
from backend.cluster.places import FolderPlace, image_names, read_image
from backend.common.errors import InvalidImage, InvalidRequest, StorageError, TooLarge

NAMES = [f"{number:02d}.png" for number in range(7)]
CONDITIONS = {"memory_id": "a", "threshold": 0.5, "shape": None}


def run_of(names=NAMES, per_part=3, heatmaps=False, **conditions):
    return ArchiveRun.of("archive", names, per_part, heatmaps, {**CONDITIONS, **conditions})


def test_every_image_is_in_one_part():
    run = run_of()
    assert run.part_names == ["part-00000000.parquet", "part-00000001.parquet", "part-00000002.parquet"]
    assert [list(run.images_of(part, NAMES)) for part in range(3)] == [NAMES[:3], NAMES[3:6], NAMES[6:]]


def test_run_goes_on_with_the_parts_that_are_missing(tmp_path):
    out = FolderPlace(tmp_path / "results")
    assert run_of().missing(out, "results") == [0, 1, 2]
    out.write(run_of().part_names[1], b"done")
    (tmp_path / "results" / ".tmp-part-00000002.parquet").write_bytes(b"half")
    assert run_of().missing(out, "results") == [0, 2]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"threshold": 0.6}, r"other conditions \(threshold\)"),
        ({"names": NAMES[1:]}, r"other images \(7 then, 6 now\)"),
        ({"per_part": 2}, "another per_part"),
        ({"heatmaps": True}, "another with_heatmaps"),
    ],
)
def test_place_of_another_run_is_refused(tmp_path, other, said):
    out = FolderPlace(tmp_path)
    run_of().missing(out, "results")
    with pytest.raises(InvalidRequest, match=rf"results has the results of a run with {said}: use another --out"):
        run_of(**other).missing(out, "results")


def test_place_whose_record_is_lost_or_damaged_is_refused(tmp_path):
    out = FolderPlace(tmp_path)
    out.write(run_of().part_names[0], b"of whom?")
    with pytest.raises(InvalidRequest, match=r"no run\.json, so their run is unknown"):
        run_of().missing(out, "results")
    out.write(RUN, b"[]")
    with pytest.raises(StorageError, match="damaged"):
        run_of().missing(out, "results")


def test_rows_come_back_from_parquet_digit_by_digit():
    from pyarrow import parquet

    region = {"x": 1, "y": 2, "w": 3, "h": 4, "area_px": 5.5, "area_mm2": 0.1}
    rows = [
        {"path": "März.png", "score": 0.1 + 0.2, "regions": [region], "error": None},
        {"path": "b.png", "error": "b.png: truncated", "ms": 1.5},
    ]
    table = parquet.read_table(io.BytesIO(as_parquet(rows, with_heatmaps=False)))
    assert "heatmap_png" not in table.column_names
    one, other = table.to_pylist()
    assert (one["path"], one["score"], one["regions"], one["error"]) == ("März.png", 0.1 + 0.2, [region], None)
    assert (other["error"], other["score"], other["regions"]) == ("b.png: truncated", None, None)
    heatmaps = as_parquet([{"path": "a", "heatmap_png": b"\x89PNG"}], with_heatmaps=True)
    assert parquet.read_table(io.BytesIO(heatmaps)).to_pylist()[0]["heatmap_png"] == b"\x89PNG"


def test_folder_gives_its_images_by_name_and_says_what_cannot_be_read(tmp_path):
    for name in ("b/2.PNG", "a.jpg", "notes.txt", ".hidden/c.png", "b/.d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    place = FolderPlace(tmp_path)
    assert image_names(place.names()) == ["a.jpg", "b/2.PNG"]
    assert read_image(place, "a.jpg", 5) == b"12345"
    with pytest.raises(TooLarge, match="5 bytes, at most 4"):
        read_image(place, "a.jpg", 4)
    with pytest.raises(InvalidImage, match="does not exist any more"):
        read_image(place, "c.jpg", 5)
    with pytest.raises(InvalidImage, match="cannot be read"):
        read_image(place, "b", 5)
    assert FolderPlace(tmp_path / "none").names() == {}
    with pytest.raises(StorageError, match="cannot be written"):
        place.write("a.jpg/part", b"")


def test_files_that_are_too_large_or_no_files_are_not_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(b"12345")
    monkeypatch.setattr("backend.cluster.places.read_whole", lambda path: pytest.fail(f"{path} was read"))
    place = FolderPlace(tmp_path)
    with pytest.raises(InvalidImage, match="not a regular file"):
        read_image(place, "pipe.png", 5)
    with pytest.raises(TooLarge, match="5 bytes, at most 4"):
        read_image(place, "large.png", 4)


def test_link_to_nothing_is_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    place = FolderPlace(tmp_path)
    assert image_names(place.names()) == ["a.png"]
    with pytest.raises(InvalidImage, match="does not exist any more"):
        read_image(place, "a.png", 10)
