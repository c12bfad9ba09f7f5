"""`python -m backend evaluate` on a few real images, on the extractor that the tests share."""

import base64
import math
import os
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from backend.commands.evaluate import evaluation, table
from backend.commands.evaluate import page as report_page
from backend.commands.evaluate.metrics import IMAGE_MEASURES, PIXEL_MEASURES, Measure, Rate
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

HOSTILE = "<img src=x onerror=alert(1)>&\"'.png"


class TestResults:
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
        assert "no threshold, as the training images have no scores" in out
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        assert (found["threshold"], found["ok_scores"], found["false_rejects"]) == (None, [], None)
        assert {image["rejected"] for image in found["images"]} == {None}
        assert 0 <= found["groups"][0]["image_auroc"]["value"] <= 1
        Page(tmp_path / "evaluation-part" / "report.html")

    def test_without_masks_there_are_no_pixel_measures(self, run, part, tmp_path):
        shutil.rmtree(part / "ground_truth")
        status, _, err = run("part")
        assert status == 0
        assert "part: 3 defective images without a mask, left out of pixel measures" in err
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
        assert out.split("\n\n")[-2].splitlines()[-1].split() == [
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


class TestCommand:
    def test_nothing_is_read_or_written_in_the_models_folder(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("MODELS_DIR", str(tmp_path / "models"))
        assert run("part")[0] == 0
        assert not (tmp_path / "models").exists()
        assert {path.name for path in tmp_path.iterdir()} == {"part", "evaluation-part"}

    def test_it_prints_a_row_for_all_defects_and_each_type(self, run):
        _, out, err = run("part")
        table = out.split("\n\n")[1].splitlines()
        assert [line.split()[0] for line in table[2:]] == ["all", "a", "b"]
        assert len({len(line) for line in table}) == 1, "aligned"
        assert "95 % bootstrap intervals of the other measures" in out.splitlines()[-1]
        assert "wrote evaluation-part/report.html and evaluation-part/results.json" in err

    @pytest.mark.parametrize(
        ("break_it", "status", "message"),
        [
            (lambda part: shutil.rmtree(part / "train"), 2, "train/good: no such folder"),
            (lambda part: (part / "test/b").rename(part / "test/all"), 2, "part: rename the folder test/all"),
            (lambda part: (part / "test/a/0.png").write_text("no image"), 1, "part/test/a/0.png: this is not an"),
            (
                lambda part: cv2.imwrite(str(part / "ground_truth/b/0_mask.png"), np.ones((3, 4), np.uint8)),
                2,
                "part/ground_truth/b/0_mask.png: the mask has 4x3 pixels, its image part/test/b/0.png has",
            ),
            (
                lambda part: (part / "train/good/3.png").write_bytes((part / "train/good/3.png").read_bytes()[:999]),
                1,
                "part/train/good/3.png: the image cannot be decoded",
            ),
        ],
    )
    def test_what_cannot_be_used_is_named_and_nothing_is_written(self, run, part, tmp_path, break_it, status, message):
        break_it(part)
        found = run("part")
        assert found[0] == status
        assert message in found[2]
        assert "Traceback" not in found[2]
        assert not (tmp_path / "evaluation-part").exists()

    @pytest.mark.parametrize(
        ("option", "value", "wrong"),
        [
            ("--percentile", "0", "'0' is no number"),
            ("--percentile", "x", "'x' is no number"),
            ("--shots", "0", "'0' is no whole number"),
            ("--shots", "1,", "'' is no whole number"),
            ("--seeds", "a", "'a' is no whole number"),
        ],
    )
    def test_an_option_that_cannot_be_used_is_named(self, run, option, value, wrong):
        status, _, err = run("part", option, value)
        assert status == 2
        assert f"argument {option}: {wrong}" in err

    def test_a_folder_that_cannot_be_made_stops_it_before_anything_is_computed(self, run, part, monkeypatch):
        monkeypatch.setattr(evaluation, "evaluate", None)
        status, _, err = run("part", "--out", part / "test/a/0.png" / "out")
        assert status == 2
        assert "the folder cannot be made" in err

    def test_a_folder_that_was_there_stays_whatever_fails(self, run, part, tmp_path):
        (tmp_path / "mine").mkdir()
        assert run("nowhere", "--out", "mine")[0] == 2
        assert (tmp_path / "mine").is_dir()

    def test_names_that_are_no_utf_8_are_written_with_escapes(self, run, part, tmp_path):
        odd = os.fsdecode(b"kr\xe4tzer")
        (part / "test/b").rename(part / "test" / odd)
        (part / "ground_truth/b").rename(part / "ground_truth" / odd)
        (part / "test" / odd / "0.png").rename(part / "test" / odd / f"{odd}.png")
        (part / "ground_truth" / odd / "0_mask.png").rename(part / "ground_truth" / odd / f"{odd}_mask.png")
        part.rename(tmp_path / os.fsdecode(b"tei\xdfl"))
        status, table, err = run(os.fsdecode(b"tei\xdfl"), "--out", "out")
        assert (status, "Traceback" in err) == (0, False)
        assert "kr\\udce4tzer" in table
        (found,) = results(tmp_path / "out")["categories"]
        assert found["groups"][2]["name"] == odd
        assert found["images"][-1]["name"] == f"{odd}/{odd}.png"
        assert "kr\\udce4tzer/kr\\udce4tzer.png" in Page(tmp_path / "out" / "report.html").texts

    def test_an_image_that_is_deleted_meanwhile_costs_the_page_alone(self, run, part, tmp_path, monkeypatch):
        evaluate = evaluation.evaluate

        def and_delete(*given, **options):
            found = evaluate(*given, **options)
            (part / "test/b/0.png").unlink()
            return found

        monkeypatch.setattr(evaluation, "evaluate", and_delete)
        (tmp_path / "evaluation-part").mkdir()
        (tmp_path / "evaluation-part" / "report.html").write_text("of an earlier evaluation")
        status, table, err = run("part")
        assert status == 1
        assert "part/test/b/0.png" in err
        assert "wrote evaluation-part/results.json, but not report.html" in err
        assert "image AUROC" in table
        assert len(results(tmp_path / "evaluation-part")["categories"][0]["images"]) == 6
        assert not (tmp_path / "evaluation-part" / "report.html").exists()

    def test_a_full_disk_ends_it_with_a_sentence(self, run, monkeypatch, tmp_path):
        monkeypatch.setattr(evaluation, "_spill_file", partial(open, "/dev/full", "r+b", buffering=0))
        status, _, err = run("part", "--shots", "1")
        assert status == 1
        assert "they cannot be written (No space left on device); set TMPDIR" in err
        assert not (tmp_path / "evaluation-part").exists()

    def test_ctrl_c_ends_it_with_one_sentence_and_without_results(self, run, features, monkeypatch, tmp_path):
        def interrupted(_pixels):
            raise KeyboardInterrupt

        monkeypatch.setattr(features.runtime, "forward", interrupted)
        status, out, err = run("part", "--shots", "1")
        assert (status, out) == (130, "")
        assert err.endswith("stopped; nothing was written\n")
        assert not (tmp_path / "evaluation-part").exists()


class TestPage:
    def test_it_needs_nothing_from_anywhere(self, run, tmp_path):
        run("part", "--shots", "1")
        page = Page(tmp_path / "evaluation-part" / "report.html")
        linked = {value for _, name, value in page.attributes if name in ("src", "href", "srcset", "action", "poster")}
        assert linked
        assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in linked)
        assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
        text = "".join(page.texts)
        assert not any(way in text for way in ("http:", "https:", "@import", "url(", "fetch(", "XMLHttp"))
        policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
        assert policy.startswith("default-src 'none'"), "and a browser would see to it"

    def test_names_of_files_and_folders_are_text(self, run, part, tmp_path):
        (part / "test/good/0.png").rename(part / "test/good" / HOSTILE)
        (part / "test/b").rename(part / "test" / '"><script>alert(2)<')
        (part / "ground_truth/b").rename(part / "ground_truth" / '"><script>alert(2)<')
        part.rename(tmp_path / "<b>part & parcel")
        assert run("<b>part & parcel", "--out", "out")[0] == 0
        page = Page(tmp_path / "out" / "report.html")
        assert page.tags.count("script") == 1
        assert "b" in page.tags, "of the page's own"
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert f"good/{HOSTILE}" in page.texts
        assert '"><script>alert(2)<' in page.texts
        assert "Evaluation of <b>part & parcel" in page.texts
        assert ("option", "value", 'defect:"><script>alert(2)<') in page.attributes

    def test_every_image_has_three_small_pictures_and_what_it_is_sorted_by(self, run, tmp_path):
        run("part")
        page = Page(tmp_path / "evaluation-part" / "report.html")
        pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
        assert len(pictures) == 6 * 3
        for picture in pictures:
            content = base64.b64decode(picture.partition(",")[2], validate=True)
            assert max(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape[:2]) == 256
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        shown = [float(value) for _, name, value in page.attributes if name == "data-score"]
        assert shown == [image["score"] for image in found["images"]]
        verdicts = [value for _, name, value in page.attributes if name == "data-verdict"]
        n_wrong = found["false_rejects"]["count"] + found["groups"][0]["escapes"]["count"]
        assert sum(verdict != "" for verdict in verdicts) == n_wrong

    def test_page_of_many_images_shows_those_judged_wrongly_or_nearly_so(self, run, tmp_path, monkeypatch):
        monkeypatch.setattr(report_page, "_MOST_PICTURES", 3)
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]

        def distance(image):
            wrong = image["rejected"] != (image["defect"] != "good")
            return not wrong, abs(image["score"] - found["threshold"])

        expected = {image["score"] for image in sorted(found["images"], key=distance)[:3]}
        page = Page(tmp_path / "evaluation-part" / "report.html")
        assert {float(value) for _, name, value in page.attributes if name == "data-score"} == expected
        assert any("3 of 6: those judged wrongly" in text for text in page.texts)

    def test_without_a_threshold_images_of_all_kinds_are_shown(self, run, part, tmp_path, monkeypatch):
        monkeypatch.setattr(report_page, "_MOST_PICTURES", 3)
        for number in (1, 2, 3):
            (part / f"train/good/{number}.png").unlink()
        run("part")
        (found,) = results(tmp_path / "evaluation-part")["categories"]
        page = Page(tmp_path / "evaluation-part" / "report.html")
        shown = {float(value) for _, name, value in page.attributes if name == "data-score"}
        assert shown == {found["images"][place]["score"] for place in (0, 2, 4)}
        assert any("3 of 6: at even steps" in text for text in page.texts)

    def test_rates_and_their_bounds_have_the_same_digits(self):
        assert table.share(Rate(0, 800)) == "0 of 800 (0.0 %, 0.0 to 0.5 %)"
        assert table.share(Rate(3, 2000)) == "3 of 2000 (0.1 %, 0.0 to 0.4 %)"
