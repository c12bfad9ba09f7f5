"""An evaluation in the recommended way gives what a fit and an inference in that way give."""

import json

import cv2
import pytest

from backend.calib import ThresholdOptions, choose_threshold
from backend.commands.evaluate import evaluation
from backend.common.config import Settings
from backend.common.profiles import RECOMMENDED
from backend.common.roi_key import RoiKey
from backend.scores.recommended_threshold import recommend
from backend.service.calibrate import calibrate
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.commands.evaluate.reports import results


@pytest.mark.slow
def test_recommended_scores_and_decisions_are_those_of_the_service(run, part, features, block_features, tmp_path):
    assert run("part", "--profile", "recommended", "--shots", "4")[0] == 0
    found = results(tmp_path / "evaluation-part")
    (category,) = found["categories"]
    store = ModelStore(tmp_path / "elsewhere")
    service = InspectionService(Settings(), features, store, recommended=block_features)
    key = RoiKey("R", "P")

    def named(path):
        return NamedImage(str(path), path.read_bytes)

    train = [named(path) for path in sorted((part / "train/good").iterdir())]
    fitted = fit(service, key, train, mm_per_px=1, profile=RECOMMENDED)
    assert (category["n_embeddings"], category["bank_size"]) == (fitted.n_embeddings, fitted.coreset_size)
    assert category["ok_scores"] == pytest.approx(fitted.ok_scores, abs=1e-6), "a fit rounds them"
    assert category["threshold"] == recommend(category["ok_scores"]).threshold
    calibrate(
        service,
        key,
        category["ok_scores"],
        [],
        mm_per_px=1,
        area_mm2_thr=0,
        options=ThresholdOptions(rule="recommended"),
    )
    for image in category["images"]:
        judged = infer(service, key, named(part / "test" / image["name"]), Scoring(1))
        assert image["score"] == judged.inference.score
        assert image["rejected"] == (judged.decision == "ng")
        assert image["n_regions"] == len(judged.inference.regions)
    stated = found["settings"]
    assert (stated["profile"], stated["rule"], stated["block"]) == ("recommended", "recommended", "9+10+11+12")
    assert (stated["coreset_rate"], stated["score_percentile"]) == (0.01, 99.5)
    (row,) = category["few_shot"]
    assert row["image_auroc"] == pytest.approx(category["groups"][0]["image_auroc"]["value"])
    whole = [one["threshold"] for one in category["groups"][0]["decisions"]]
    assert [one["threshold"] for one in row["decisions"]] == pytest.approx(whole, abs=1e-6), "of the same bank"


@pytest.mark.parametrize(
    ("setting", "option", "profile"),
    [
        ("recommended", (), "recommended"),
        ("recommended", ("--profile", "contract"), "contract"),
        (None, (), "contract"),
    ],
)
def test_profile_is_that_of_the_option_else_of_the_setting(run, tmp_path, monkeypatch, setting, option, profile):
    if setting:
        monkeypatch.setenv("PROFILE", setting)
    asked = []

    def refuse(*_, profile, options, **__):
        asked.append((profile, options.rule))
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "evaluate", refuse)
    assert run("part", *option)[0] == 130
    assert asked == [(profile, profile)]


def test_profile_for_another_network_is_refused_at_once(run, tmp_path, monkeypatch):
    for name, value in {"MODEL_NAME": "own", "WEIGHTS": str(tmp_path / "w"), "WEIGHTS_SHA256": "0" * 64}.items():
        monkeypatch.setenv(name, value)
    status, _, err = run("part", "--profile", "recommended")
    assert status == 2
    assert "--profile recommended is for MODEL_NAME=vit_small_patch14_dinov2.lvd142m, and MODEL_NAME is own" in err
    assert not (tmp_path / "evaluation-part").exists()


def test_percentile_that_the_profile_does_not_take_is_said(run, tmp_path):
    status, _, err = run("part", "--profile", "recommended", "--percentile", "90")
    assert status == 0
    assert "warning: --percentile 90 has no effect: the score of --profile recommended is p99.5" in err
    assert results(tmp_path / "evaluation-part")["settings"]["score_percentile"] == 99.5


class TestThreshold:
    def test_named_threshold_decides(self, run, tmp_path):
        run("part", "--threshold", "0.5", "--out", "a")
        found = results(tmp_path / "a")
        (category,) = found["categories"]
        assert (found["settings"]["rule"], category["threshold"]) == ("manual", 0.5)
        assert [image["rejected"] for image in category["images"]] == [i["score"] >= 0.5 for i in category["images"]]

    def test_named_threshold_needs_no_scores_of_training_images(self, run, part, tmp_path):
        for path in sorted((part / "train/good").iterdir())[1:]:
            path.unlink()
        assert run("part", "--threshold", "0.5")[0] == 0
        (category,) = results(tmp_path / "evaluation-part")["categories"]
        assert category["threshold"] == 0.5
        assert category["groups"][0]["decisions"] == []
        assert 'data-to="0.5"' in (tmp_path / "evaluation-part" / "report.html").read_text()

    def test_rule_of_the_other_profile_can_be_named(self, run, tmp_path):
        run("part", "--rule", "recommended")
        (category,) = results(tmp_path / "evaluation-part")["categories"]
        assert category["threshold"] == recommend(category["ok_scores"]).threshold
        assert category["why"].startswith("about 2.5 % of good parts")

    def test_rule_and_threshold_exclude_each_other(self, run):
        status, _, err = run("part", "--rule", "contract", "--threshold", "1")
        assert status == 2
        assert "not allowed with argument" in err

    def test_a_threshold_that_is_no_number_is_named(self, run):
        assert "argument --threshold: 'nan' is not a number" in run("part", "--threshold", "nan")[2]


def test_decisions_are_in_the_json_the_table_and_the_page(run, tmp_path):
    _, out, _ = run("part")
    (category,) = results(tmp_path / "evaluation-part")["categories"]
    page = (tmp_path / "evaluation-part" / "report.html").read_text()
    decisions = category["groups"][0]["decisions"]
    assert [(one["rule"], one["n_ng"]) for one in decisions] == [
        ("contract", 0),
        ("recommended", 0),
        ("hindsight", 0),
    ], "3 defective images are too few to draw 3"
    images = category["images"]
    for one in decisions:
        threshold = one["threshold"]
        rejected = sum(image["score"] >= threshold for image in images if image["defect"] == "good")
        passed = sum(image["score"] < threshold for image in images if image["defect"] != "good")
        assert (one["false_rejects"]["count"], one["escapes"]["count"]) == (rejected, passed)
        (line,) = [
            line for line in out.splitlines() if f"{threshold:.4f}  {rejected} of 3" in line and " rule " in line
        ] or [line for line in out.splitlines() if line.startswith("best in hindsight")]
        assert f"{passed} of 3 ({100 * passed / 3:.1f} %)" in line
        assert f'data-to="{threshold}"' in page
    assert decisions[0]["threshold"] == category["threshold"]
    assert json.dumps(decisions[0]["false_rejects"]) == json.dumps(category["false_rejects"])


def test_ng_images_that_are_drawn_are_named_and_not_counted(run, part, tmp_path):
    for number in (0, 1):
        image = cv2.imread(str(part / f"test/a/{number}.png"))
        cv2.imwrite(str(part / f"test/b/{number + 1}.png"), cv2.flip(image, 1))
    run("part")
    (category,) = results(tmp_path / "evaluation-part")["categories"]
    defective = {image["name"]: image["score"] for image in category["images"] if image["defect"] != "good"}
    drawn = category["ng_images"]["3"]
    assert list(category["ng_images"]) == ["3"], "10 are more than there are"
    assert len(set(drawn) & set(defective)) == 3
    given = [defective[name] for name in drawn]
    left = [score for name, score in defective.items() if name not in drawn]
    decisions = {(one["rule"], one["n_ng"]): one for one in category["groups"][0]["decisions"]}
    for rule, choose in (("contract", choose_threshold), ("recommended", lambda ok, ng: recommend(ok, ng).threshold)):
        one = decisions[rule, 3]
        assert one["threshold"] == choose(category["ok_scores"], given)
        assert one["escapes"]["total"] == len(left) == 2
        assert one["escapes"]["count"] == sum(score < one["threshold"] for score in left)
