"""Scores that are kept between calibrations."""

import hashlib
import json

from structlog.testing import capture_logs

from backend.disk import score_cache
from backend.disk.score_cache import ScoreCache
from backend.roi_mask import Circle, Rect

CONDITIONS = {"memory_id": "a", "score_percentile": 99.0}
CIRCLE = Circle(kind="circle", cx=1, cy=1, r=1)


def digest(content):
    """The hash of an image's pixels, as the cache is given it."""
    return hashlib.sha256(content).hexdigest()


def test_a_score_is_found_for_the_same_pixels_mask_and_conditions_only(tmp_path):
    cache = ScoreCache(tmp_path, CONDITIONS)
    cache.put(digest(b"image"), None, (0.1 + 0.2,))
    cache.put(digest(b"image"), CIRCLE, (0.5,))
    for reader in (cache, ScoreCache(tmp_path, dict(reversed(CONDITIONS.items())))):
        assert reader.get(digest(b"image"), None) == (0.1 + 0.2,), "to the last digit"
        assert reader.get(digest(b"image"), CIRCLE) == (0.5,)
        assert reader.get(digest(b"image"), Rect(kind="rect", x=0, y=0, w=1, h=1)) is None
        assert reader.get(digest(b"imagE"), None) is None
    assert ScoreCache(tmp_path, {**CONDITIONS, "memory_id": "b"}).get(digest(b"image"), None) is None


def test_scores_of_other_conditions_are_forgotten_once_there_are_new_ones(tmp_path):
    ScoreCache(tmp_path, CONDITIONS).put(digest(b"image"), None, (0.5,))
    other = ScoreCache(tmp_path, {**CONDITIONS, "memory_id": "b"})
    assert len(list(tmp_path.iterdir())) == 1
    other.put(digest(b"image"), None, (0.6,))
    assert len(list(tmp_path.iterdir())) == 1
    assert ScoreCache(tmp_path, CONDITIONS).get(digest(b"image"), None) is None


def test_what_a_crash_tore_is_made_again_and_spoils_no_other(tmp_path):
    cache = ScoreCache(tmp_path, CONDITIONS)
    cache.put(digest(b"1"), None, (0.1,))
    cache.put(digest(b"2"), None, (0.2,))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        torn = ScoreCache(tmp_path, CONDITIONS)
        assert torn.get(digest(b"1"), None) in ((0.1,), None)
        assert torn.get(digest(b"2"), None) is None
        torn.put(digest(b"3"), None, (0.3,))
        assert ScoreCache(tmp_path, CONDITIONS).get(digest(b"3"), None) == (0.3,)
    file.write_text('\n[1, 2]\n{"a": 1}\n["x", "y"]\n["x", NaN, 3]\n7')
    assert ScoreCache(tmp_path, CONDITIONS).get(digest(b"1"), None) is None


def test_a_file_that_has_grown_too_large_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "_MAX_BYTES", 200)
    for number in range(7):  # some 75 bytes each: three are too many
        ScoreCache(tmp_path, CONDITIONS).put(digest(b"%d" % number), None, (0.5,))
        (file,) = tmp_path.iterdir()
        assert file.stat().st_size < 300
    assert ScoreCache(tmp_path, CONDITIONS).get(digest(b"6"), None) == (0.5,)
    assert ScoreCache(tmp_path, CONDITIONS).get(digest(b"0"), None) is None


def test_where_the_disk_does_not_take_them_the_run_goes_on(tmp_path):
    cache = ScoreCache(tmp_path / "nowhere", CONDITIONS)
    with capture_logs() as logged:
        cache.put(digest(b"1"), None, (0.1,))
        cache.put(digest(b"2"), None, (0.2,))
    assert [line["event"] for line in logged] == ["scores.not_kept"], "said once"
    assert (cache.get(digest(b"1"), None), cache.get(digest(b"2"), None)) == ((0.1,), (0.2,))


def test_the_file_holds_no_more_than_hashes_and_scores(tmp_path):
    ScoreCache(tmp_path, CONDITIONS).put(digest(b"image"), None, (0.5,))
    (file,) = tmp_path.iterdir()
    name, score = json.loads(file.read_text())
    assert (len(name), score) == (64, 0.5)


def test_which_pixels_a_file_has_is_kept_with_the_scores(tmp_path):
    cache = ScoreCache(tmp_path, CONDITIONS)
    cache.put_pixels(digest(b"png"), digest(b"pixels"))
    cache.put(digest(b"pixels"), None, (0.5,))
    cache.put_pixels(digest(b"bmp"), digest(b"pixels"))
    again = ScoreCache(tmp_path, CONDITIONS)
    for file in (b"png", b"bmp"):
        assert again.get(again.pixels_of(digest(file)), None) == (0.5,)
    assert again.pixels_of(digest(b"other")) is None
    assert again.pixels_of(digest(b"pixels")) is None


def test_scores_that_an_earlier_version_kept_are_found_by_the_file(tmp_path):
    """Earlier versions named a score by the sha256 of the file's and the mask."""
    conditions = hashlib.sha256(json.dumps(CONDITIONS, sort_keys=True).encode()).hexdigest()
    name = hashlib.sha256(hashlib.sha256(b"file").digest() + CIRCLE.model_dump_json().encode()).hexdigest()
    (tmp_path / f".scores-{conditions[:32]}.jsonl").write_text(f"\n{json.dumps([name, 0.25])}")
    cache = ScoreCache(tmp_path, CONDITIONS)
    assert cache.get(digest(b"file"), CIRCLE) == (0.25,)
    assert cache.pixels_of(digest(b"file")) is None
