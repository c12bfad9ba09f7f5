"""An evaluation of a few real images, beside what the service and scikit-learn make of them."""

import math
import shutil

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from backend.commands.evaluate.metrics import IMAGE_MEASURES, PIXEL_MEASURES, Measure
from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.infer import to_image_grid
from backend.patchcore import PatchCoreMemory
from backend.service.calibrate import calibrate
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.commands.evaluate.reports import Page, results


class TestResults:
    @pytest.mark.slow
    def test_scores_and_decisions_are_the_services_own(self, run, part, features, tmp_path):
        status, _, _ = run("part")
        assert status == 0
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        service = InspectionService(Settings(), features, ModelStore(tmp_path / "elsewhere"))
        key = RoiKey("R", "P")

        def named(path):
            return NamedImage(str(path), path.read_bytes)

        fitted = fit(service, key, [named(path) for path in sorted((part / "train/good").iterdir())], mm_per_px=1)
        assert (found["n_embeddings"], found["bank_size"]) == (fitted.n_embeddings, fitted.coreset_size)
        calibrate(service, key, found["ok_scores"], [], mm_per_px=1, area_mm2_thr=0)
        for image in found["images"]:
            judged = infer(service, key, named(part / "test" / image["name"]), Scoring(1))
            assert image["score"] == judged.inference.score
            assert image["rejected"] == (judged.decision == "ng")
            assert image["n_regions"] == len(judged.inference.regions)

    def test_measures_are_those_of_the_scores_and_rates_those_of_the_decisions(self, run, tmp_path):
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        assert [group["name"] for group in found["groups"]] == ["all", "a", "b"]
        for group, types in zip(found["groups"], (("a", "b"), ("a",), ("b",)), strict=True):
            images = [image for image in found["images"] if image["defect"] in ("good", *types)]
            labels, scores = [i["defect"] != "good" for i in images], [i["score"] for i in images]
            assert group["image_auroc"]["value"] == pytest.approx(roc_auc_score(labels, scores))
            assert group["image_ap"]["value"] == pytest.approx(average_precision_score(labels, scores))
            passed = [i for i in images if i["defect"] in types and i["score"] < found["threshold"]]
            assert (group["escapes"]["count"], group["escapes"]["total"]) == (len(passed), sum(labels))
            assert group["n_masks"] == group["n_defective"] == sum(labels)
        false = [i for i in found["images"] if i["defect"] == "good" and i["score"] >= found["threshold"]]
        assert (found["false_rejects"]["count"], found["false_rejects"]["total"]) == (len(false), 3)

    @pytest.mark.slow
    def test_pixel_measures_are_those_of_every_pixel(self, run, part, features, tmp_path):
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]

        def tokens(path):
            return features.extract(cv2.imread(str(path)))[0]

        bank = PatchCoreMemory.build(
            np.concatenate([tokens(path) for path in sorted((part / "train/good").iterdir())]), features.token_hw, 0.02
        )
        labels, values = [], []
        for image in found["images"]:
            path = part / "test" / image["name"]
            hw = cv2.imread(str(path)).shape[:2]
            mask_file = part / "ground_truth" / image["defect"] / f"{path.stem}_mask.png"
            mask = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE) if mask_file.exists() else np.zeros(hw, np.uint8)
            labels.append(mask.ravel() > 0)
            values.append(to_image_grid(bank.distances(tokens(path)).reshape(bank.token_hw), hw, 1.0).ravel())
        exact = roc_auc_score(np.concatenate(labels), np.concatenate(values))
        assert found["groups"][0]["pixel_auroc"]["value"] == pytest.approx(exact, abs=1e-5)

    def test_threshold_is_p99_of_the_scores_a_fit_gives_its_images(self, run, part, features, tmp_path):
        run("part", "--percentile", "95")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        service = InspectionService(Settings(score_percentile=95), features, ModelStore(tmp_path / "elsewhere"))
        images = [NamedImage(path.name, path.read_bytes) for path in sorted((part / "train/good").iterdir())]
        fitted = fit(service, RoiKey("R", "P"), images, mm_per_px=1)
        assert len(fitted.ok_scores) == 4
        assert found["ok_scores"] == pytest.approx(fitted.ok_scores, abs=1e-6), "a fit rounds them"
        assert found["threshold"] == np.percentile(found["ok_scores"], 99)

    def test_single_training_image_gives_no_threshold_but_other_measures(self, run, part, tmp_path):
        """A single training image has no score, so there is no threshold and no rate that needs one."""
        for path in sorted((part / "train/good").iterdir())[1:]:
            path.unlink()
        status, out, _ = run("part")
        assert status == 0
        assert "no threshold, because the training images have no scores" in out
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        assert (found["threshold"], found["ok_scores"], found["false_rejects"]) == (None, [], None)
        assert {image["rejected"] for image in found["images"]} == {None}
        assert 0 <= found["groups"][0]["image_auroc"]["value"] <= 1
        Page(tmp_path / "evaluation-part" / "report.html")

    def test_without_masks_there_are_no_pixel_measures(self, run, part, tmp_path):
        shutil.rmtree(part / "ground_truth")
        status, _, err = run("part")
        assert status == 0
        assert "part: 3 defective images without a mask, left out of the pixel measures" in err
        for group in results(tmp_path / "evaluation-part")["categories"][0]["groups"]:
            for name in PIXEL_MEASURES:
                assert group[name] == vars(Measure(None))

    def test_numbers_are_finite_and_settings_are_all_there(self, run, features, tmp_path):
        run("part", "--shots", "1", "--out", "out")
        found = results(tmp_path / "out")
        assert found["settings"] == {
            **features.identity.as_dict(),
            "runtime": "openvino",
            "device": "cpu",
            "profile": "contract",
            "rule": "contract",
            "coreset_rate": 0.02,
            "score_percentile": 99,
            "blur_sigma": 1.0,
            "max_fpr": 0.3,
            "confidence": 0.95,
            "resamples": 1000,
            "seed": 0,
            "shots": [1],
            "seeds": 1,
        }
        assert found["versions"]["scikit-learn"]

        def numbers(value):
            if isinstance(value, dict | list):
                for inner in value.values() if isinstance(value, dict) else value:
                    yield from numbers(inner)
            elif isinstance(value, float):
                yield value

        assert all(map(math.isfinite, numbers(found)))

    @pytest.mark.slow
    def test_several_categories_give_a_mean(self, run, part, tmp_path):
        (tmp_path / "sets").mkdir()
        shutil.copytree(part, tmp_path / "sets" / "first")
        shutil.copytree(part, tmp_path / "sets" / "second")
        shutil.rmtree(tmp_path / "sets" / "second" / "ground_truth")
        for path in (tmp_path / "sets" / "second" / "train" / "good").glob("[12].png"):
            path.unlink()
        status, out, _ = run("sets")
        assert status == 0
        found = results(tmp_path / "evaluation-sets")
        first, second = (category["groups"][0] for category in found["categories"])
        for name in IMAGE_MEASURES:
            assert found["mean"][name] == pytest.approx((first[name]["value"] + second[name]["value"]) / 2)
        for name in PIXEL_MEASURES:
            assert found["mean"][name] == first[name]["value"], "the other has no masks"
        assert out.split("\n\n")[-4].splitlines()[-1].split() == [
            "mean",
            *(f"{value:.3f}" for value in found["mean"].values()),
        ]


class TestFewShots:
    def test_all_training_images_give_what_the_whole_evaluation_gives(self, run, tmp_path):
        run("part", "--shots", "4", "--seeds", "2")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        assert [(row["shots"], row["seed"]) for row in found["few_shot"]] == [(4, 0), (4, 1)]
        for row in found["few_shot"]:
            for name in IMAGE_MEASURES + PIXEL_MEASURES:
                assert row[name] == pytest.approx(found["groups"][0][name]["value"], abs=1e-6)

    def test_tables_show_mean_and_standard_deviation_over_the_seeds(self, run, tmp_path):
        _, out, _ = run("part", "--shots", "2,1,2", "--seeds", "3")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        assert [row["shots"] for row in found["few_shot"]] == [1, 1, 1, 2, 2, 2]
        values = [row["pixel_auroc"] for row in found["few_shot"] if row["shots"] == 1]
        assert len(set(values)) > 1, "draws differ"
        cell = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
        assert cell in out
        assert cell in (tmp_path / "evaluation-part" / "report.html").read_text()

    def test_a_single_draw_shows_no_spread(self, run, tmp_path):
        _, out, _ = run("part", "--shots", "1,2")
        assert "±" not in out
        assert "±" not in (tmp_path / "evaluation-part" / "report.html").read_text()

    def test_no_image_goes_through_the_network_twice(self, run, features, monkeypatch):
        forward, n_images = features.runtime.forward, 0

        def counted(pixels):
            nonlocal n_images
            n_images += len(pixels)
            return forward(pixels)

        monkeypatch.setattr(features.runtime, "forward", counted)
        assert run("part", "--shots", "1,2,3", "--seeds", "2")[0] == 0
        assert n_images == 4 + 6

    def test_more_than_there_are_is_refused(self, run):
        status, _, err = run("part", "--shots", "2,5")
        assert status == 2
        assert "--shots 5: part has 4 training images" in err
