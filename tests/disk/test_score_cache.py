"""Scores that are kept between calibrations."""

import json

from structlog.testing import capture_logs

from backend.disk import score_cache
from backend.disk.score_cache import ScoreCache
from backend.roi_mask import Circle, Rect

CONDITIONS = {"memory_id": "a", "score_percentile": 99.0}
CIRCLE = Circle(kind="circle", cx=1, cy=1, r=1)


def test_a_score_is_found_for_the_same_bytes_mask_and_conditions_only(tmp_path):
    cache = ScoreCache(tmp_path, CONDITIONS)
    cache.put(b"image", None, (0.1 + 0.2,))
    cache.put(b"image", CIRCLE, (0.5,))
    for reader in (cache, ScoreCache(tmp_path, dict(reversed(CONDITIONS.items())))):
        assert reader.get(b"image", None) == (0.1 + 0.2,), "to the last digit"
        assert reader.get(b"image", CIRCLE) == (0.5,)
        assert reader.get(b"image", Rect(kind="rect", x=0, y=0, w=1, h=1)) is None
        assert reader.get(b"imagE", None) is None
    assert ScoreCache(tmp_path, {**CONDITIONS, "memory_id": "b"}).get(b"image", None) is None


def test_scores_of_other_conditions_are_forgotten_once_there_are_new_ones(tmp_path):
    ScoreCache(tmp_path, CONDITIONS).put(b"image", None, (0.5,))
    other = ScoreCache(tmp_path, {**CONDITIONS, "memory_id": "b"})
    assert len(list(tmp_path.iterdir())) == 1
    other.put(b"image", None, (0.6,))
    assert len(list(tmp_path.iterdir())) == 1
    assert ScoreCache(tmp_path, CONDITIONS).get(b"image", None) is None


def test_what_a_crash_tore_is_made_again_and_spoils_no_other(tmp_path):
    cache = ScoreCache(tmp_path, CONDITIONS)
    cache.put(b"1", None, (0.1,))
    cache.put(b"2", None, (0.2,))
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        torn = ScoreCache(tmp_path, CONDITIONS)
        assert torn.get(b"1", None) in ((0.1,), None)
        assert torn.get(b"2", None) is None
        torn.put(b"3", None, (0.3,))
        assert ScoreCache(tmp_path, CONDITIONS).get(b"3", None) == (0.3,)
    file.write_text('\n[1, 2]\n{"a": 1}\n["x", "y"]\n["x", NaN, 3]\n7')
    assert ScoreCache(tmp_path, CONDITIONS).get(b"1", None) is None


def test_a_file_that_has_grown_too_large_begins_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cache, "_MAX_BYTES", 200)
    for number in range(7):  # some 75 bytes each: three are too many
        ScoreCache(tmp_path, CONDITIONS).put(b"%d" % number, None, (0.5,))
        (file,) = tmp_path.iterdir()
        assert file.stat().st_size < 300
    assert ScoreCache(tmp_path, CONDITIONS).get(b"6", None) == (0.5,)
    assert ScoreCache(tmp_path, CONDITIONS).get(b"0", None) is None


def test_where_the_disk_does_not_take_them_the_run_goes_on(tmp_path):
    cache = ScoreCache(tmp_path / "nowhere", CONDITIONS)
    with capture_logs() as logged:
        cache.put(b"1", None, (0.1,))
        cache.put(b"2", None, (0.2,))
    assert [line["event"] for line in logged] == ["scores.not_kept"], "said once"
    assert (cache.get(b"1", None), cache.get(b"2", None)) == ((0.1,), (0.2,))


def test_the_file_holds_no_more_than_hashes_and_scores(tmp_path):
    ScoreCache(tmp_path, CONDITIONS).put(b"image", None, (0.5,))
    (file,) = tmp_path.iterdir()
    name, score = json.loads(file.read_text())
    assert (len(name), score) == (64, 0.5)
