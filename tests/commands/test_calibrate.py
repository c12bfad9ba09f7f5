"""`roi-anomaly calibrate`, on the extractor that the commands' tests share."""

import json
from pathlib import Path

import numpy as np
import pytest

from backend.commands import scoring
from backend.service.calibrate import calibrate
from backend.service.judge import infer
from backend.service.scoring import Scoring
from tests.commands.parts import CIRCLE, PARTS, ROI, named, records, service, without_ms
from tests.factories import KEY


class TestCalibrate:
    OK = ("--ok", "parts/1.png", "parts/2.jpg")

    def test_it_scores_and_stores_what_scores_of_infer_and_calibrate_ng_would(self, run, work, features):
        alone = service(work, features)
        ok = [infer(alone, KEY, named(path), Scoring(0.2)).inference.score for path in PARTS[:2]]
        ng = [infer(alone, KEY, named(path), Scoring(0.2)).inference.score for path in PARTS[2:]]
        # Whether they are fresh cannot be told: they are smaller pictures of what was fitted.
        given = {"mm_per_px": 0.2, "area_mm2_thr": 2.5, "ok_are_fresh": None}
        expected = calibrate(alone, KEY, ok, ng, **given).as_dict()
        stored = (work / "models" / "Master1" / "Pattern" / "calib.json").read_bytes()
        (work / "models" / "Master1" / "Pattern" / "calib.json").unlink()
        status, out, _ = run("calibrate", *ROI, *self.OK, "--ng", "parts/a", "--area-mm2-thr", "2.5")
        assert status == 0
        printed = json.loads(out)
        assert {name: printed.get(name) for name in expected} == expected
        assert "nearly the same as one of the fit (parts/1.png and " in printed["warning"]
        assert (work / "models" / "Master1" / "Pattern" / "calib.json").read_bytes() == stored

    def test_scores_are_of_the_percentile_that_the_calibration_will_use(self, run, work, features, monkeypatch):
        maxima = [
            infer(service(work, features), KEY, named(path), Scoring(0.2, percentile=100)).inference.score
            for path in PARTS[:2]
        ]
        calibrate(service(work, features), KEY, [0.5], [], mm_per_px=0.2, score_percentile=50)  # is not to matter
        printed = json.loads(run("calibrate", *ROI, *self.OK, "--score-percentile", "100")[1])
        assert printed["score_percentile"] == 100
        assert printed["p99_ok"] == float(np.percentile(maxima, 99))
        monkeypatch.setenv("SCORE_PERCENTILE", "100")
        assert json.loads(run("calibrate", *ROI, *self.OK)[1]) == printed
        judged = records(run("infer", *ROI, PARTS[0])[1])[0]
        assert judged["score"] == maxima[0]
        assert judged["score_percentile"] == 100

    def test_chosen_percentile_and_target_rate_match_a_calibration_by_scores(self, run, work, features):
        """The threshold and the choice are those of a calibration from the scores of the chosen percentile."""
        arguments = ("calibrate", *ROI, *self.OK, "--choose-percentile", "--target-false-reject-rate", "0.7")
        status, out, _ = run(*arguments, "--ng", "parts/a")
        assert status == 0
        printed = json.loads(out)
        percentile = printed["percentile_choice"]["chosen"]
        assert printed["score_percentile"] == percentile
        ok = [
            infer(service(work, features), KEY, named(path), Scoring(0.2, percentile=percentile)).inference.score
            for path in PARTS[:2]
        ]
        assert printed["threshold"] == np.nextafter(min(ok), 2), "of three ranks the next part may take two"
        assert printed["promise"]["n_rejected"] == 1
        for refused, says in [
            ((), "--ng"),
            (("--ng", "parts/a", "--scores", "s.csv"), "cannot be given with --scores"),
        ]:
            status, _, err = run(*arguments, *refused)
            assert status == 2
            assert says in err

    def test_the_shape_masks_the_scores(self, run, work, features):
        masked = records(run("infer", *ROI, "parts/1.png", "--shape", CIRCLE)[1])[0]["score"]
        assert json.loads(run("calibrate", *ROI, "--ok", "parts/1.png", "--shape", CIRCLE)[1])["threshold"] == masked

    @pytest.mark.parametrize("name", ["s.jsonl", "s.csv"])
    def test_kept_scores_are_used_again_even_after_they_were_calibrated_with(self, run, work, monkeypatch, name):
        first = run("calibrate", *ROI, *self.OK, "--ng", "parts/a", "--scores", name)
        assert first[0] == 0
        kept = Path(name).read_bytes()
        assert [row["path"] for row in without_ms(kept)] == PARTS
        monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
        again = run("calibrate", *ROI, *self.OK, "--ng", "parts/a", "--scores", name)
        assert again[:2] == first[:2]
        assert Path(name).read_bytes() == kept
        status, _, err = run("calibrate", *ROI, *self.OK, "--scores", name, "--score-percentile", "90")
        assert status == 2
        assert "score_percentile 99.0 instead of 90.0" in err

    def test_records_of_infer_before_calibration_are_scores(self, run, work, monkeypatch):
        run("infer", *ROI, "parts", "--out", "r.jsonl")
        monkeypatch.setattr(scoring, "infer", lambda *_a, **_k: pytest.fail("an image was inferred"))
        status, out, _ = run("calibrate", *ROI, *self.OK, "--scores", "r.jsonl")
        assert status == 0
        scores = [record["score"] for record in records(Path("r.jsonl").read_text(encoding="utf-8"))][:2]
        assert json.loads(out)["threshold"] == float(np.percentile(scores, 99))

    def test_a_broken_image_means_no_calibration(self, run, work):
        Path("parts/2.jpg").write_bytes(b"")
        status, out, err = run("calibrate", *ROI, *self.OK)
        assert (status, out) == (1, "")
        assert "parts/2.jpg: the file is empty" in err
        assert "1 of 2 images could not be scored, so nothing was calibrated" in err
        assert not (work / "models" / "Master1" / "Pattern" / "calib.json").exists()

    def test_an_image_cannot_be_ok_and_ng(self, run, work):
        status, _, err = run("calibrate", *ROI, "--ok", "parts", "--ng", "./parts/a/1.png")
        assert status == 2
        assert "parts/a/1.png is given as OK and as NG" in err
