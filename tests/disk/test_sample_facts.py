"""What is known of stored images without reading their metadata again: the names that they came with."""

import json

import pytest

from backend.common.errors import SampleNotFound
from backend.common.roi_key import RoiKey
from backend.disk import sample_facts
from backend.disk.datasets import DatasetStore, NewSample

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


def test_memory_for_facts_is_bounded_and_forgets_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_facts, "_MAX_KEPT", 2)
    store = DatasetStore(tmp_path)
    add(store, *({"filename": f"{number}.png"} for number in range(5)))
    for _ in range(2):
        assert [sample.uploaded_as for sample in store.samples(KEY, "ok")] == [f"{number}.png" for number in range(5)]
    assert len(store._facts._kept) == 2
