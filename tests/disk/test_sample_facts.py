"""What is known of stored images without reading their metadata again: names that they came with, and masks."""

import json

import pytest

from backend.common.errors import SampleNotFound, StorageError
from backend.common.roi_key import RoiKey
from backend.disk import sample_facts
from backend.disk.datasets import DatasetStore, NewSample, Sample

KEY = RoiKey("Master1", "Pattern", "line 1")


def add(store, *metadata):
    return store.add(KEY, "ok", [NewSample(lambda: b"image", ".png", values) for values in metadata])


def metadata_of(tmp_path, name):
    return tmp_path / "@recipes" / "line 1" / "datasets" / "Master1" / "Pattern" / "ok" / f"{name}.json"


@pytest.mark.parametrize("filename", [None, 7, "", ["a.png"], "x" * 1001, "half \ud800"])
def test_a_name_that_no_request_could_give_is_left_out(tmp_path, filename):
    store = DatasetStore(tmp_path)
    good, _ = add(store, {"filename": "part 7.png"}, {"filename": filename})
    assert store.uploaded_as(KEY, "ok", store.names(KEY, "ok")) == {good: "part 7.png"}


def test_names_of_uploads_follow_the_metadata_whoever_changes_it(tmp_path):
    store = DatasetStore(tmp_path)
    one, other = add(store, {"filename": "a.png"}, {"filename": "b.png"})
    assert [sample.uploaded_as for sample in store.samples(KEY, "ok")] == ["a.png", "b.png"]
    metadata_of(tmp_path, one).write_text(json.dumps({"filename": "renamed.png"}))
    metadata_of(tmp_path, other).write_text("{")
    assert [sample.uploaded_as for sample in store.samples(KEY, "ok")] == ["renamed.png", None]
    assert store.find(KEY, "ok", "renamed.png").name == one
    with pytest.raises(SampleNotFound):
        store.find(KEY, "ok", "a.png")
    metadata_of(tmp_path, one).unlink()
    assert [sample.uploaded_as for sample in store.samples(KEY, "ok")] == [None, None]


def test_unchanged_metadata_is_read_once_whatever_is_asked(tmp_path, monkeypatch):
    store, reads = DatasetStore(tmp_path), []
    read = sample_facts.read_small
    monkeypatch.setattr(sample_facts, "read_small", lambda path, most: reads.append(path.name) or read(path, most))
    names = add(store, *({"filename": f"{number}.png"} for number in range(3)))
    for _ in range(2):
        assert len(store.samples(KEY, "ok")) == 3
        assert store.find(KEY, "ok", "2.png").name == names[2]
    assert sorted(reads) == [f"{name}.json" for name in names]


@pytest.mark.parametrize(
    ("shape", "text", "is_kept"),
    [
        (None, None, True),
        ('{"kind":"circle"}', '{"kind":"circle"}', True),
        ({"kind": "circle"}, '{"kind": "circle"}', True),
        ("x" * 1000, "x" * 1000, True),
        ("x" * 1001, "x" * 1001, False),
    ],
    ids=["none", "text", "value", "long", "too long"],
)
def test_a_mask_is_kept_unless_it_is_too_long(tmp_path, monkeypatch, shape, text, is_kept):
    store, reads = DatasetStore(tmp_path), []
    metadata = {} if shape is None else {"shape_json": shape}
    add(store, metadata, metadata)
    first, second = store.samples(KEY, "ok")
    read = Sample.metadata
    monkeypatch.setattr(Sample, "metadata", lambda sample: reads.append(sample) or read(sample))
    assert [first.all_facts().shape_json, second.all_facts().shape_json] == [text, text]
    assert len(reads) == (0 if is_kept else 2)
    if text and is_kept:
        assert first.facts.shape_json is second.facts.shape_json, "all images of a ROI share one text"


def test_metadata_that_cannot_be_read_is_an_error_of_its_image(tmp_path):
    store = DatasetStore(tmp_path)
    (name,) = add(store, {"filename": "a.png"})
    metadata_of(tmp_path, name).write_text("{")
    (sample,) = store.samples(KEY, "ok")
    with pytest.raises(StorageError, match="is damaged: delete the image"):
        sample.all_facts()


def test_memory_for_facts_is_bounded_and_forgets_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_facts, "_MAX_KEPT", 2)
    store = DatasetStore(tmp_path)
    add(store, *({"filename": f"{number}.png"} for number in range(5)))
    for _ in range(2):
        assert [sample.uploaded_as for sample in store.samples(KEY, "ok")] == [f"{number}.png" for number in range(5)]
    assert len(store._facts._kept) == 2
