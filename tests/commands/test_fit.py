"""`roi-anomaly fit`, on the extractor that the commands' tests share."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from backend.commands import fit as fit_command
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.storage import ModelStore
from tests.commands.parts import PARTS, ROI, named, service
from tests.factories import KEY


class TestFit:
    def test_it_stores_and_prints_what_fit_ok_would(self, run, work, features, tmp_path):
        expected = fit(service(work, features), KEY, [named(path) for path in PARTS], mm_per_px=0.2)
        stored = (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes()
        shutil.rmtree(work / "models")
        status, out, err = run("fit", *ROI, "parts", "--all-scores")
        assert status == 0
        assert json.loads(out) == {
            "n_images": 4,
            "n_embeddings": expected.n_embeddings,
            "coreset_size": expected.coreset_size,
            "token_shape": list(expected.token_hw),
            "ok_scores": dict(zip(PARTS, expected.ok_scores, strict=True)),
            "ok_scores_summary": {
                "n": 4,
                "min": min(expected.ok_scores),
                "median": pytest.approx(np.median(expected.ok_scores), abs=1e-6),
                "max": max(expected.ok_scores),
            },
            "suspicious": [],
        }
        assert (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes() == stored
        assert {path.name for path in (work / "models").iterdir()} == {"Master1", ".runs"}, "no checkpoint is left"
        assert list((work / "models" / ".runs").iterdir()) == []
        assert "extract: 100%" in err
        assert "coreset: 100%" in err
        assert json.loads(run("fit", *ROI, "parts/1.png", "--keep-all")[1])["coreset_size"] == 64

    def test_a_recipe_has_a_model_of_its_own_and_a_scale(self, run, work):
        assert run("fit", *ROI, "parts", "--recipe", "Line 1")[0] == 0
        assert (work / "models" / "@recipes" / "line 1" / "models" / "Master1" / "Pattern" / "Pattern").is_dir()
        assert run("infer", *ROI, "parts/1.png", "--recipe", "LINE 1")[0] == 0
        status, _, err = run("fit", "Master1", "Pattern", "--mm-per-px", "0.3", "parts", "--recipe", "line 1")
        assert (status, "locked to mm_per_px 0.2" in err) == (1, True)
        assert run("fit", *ROI, "parts", "--recipe", "Last")[0] == 2

    def test_a_fit_that_is_stopped_goes_on_where_it_was(self, run, work, features, monkeypatch):
        monkeypatch.setattr(features.runtime, "batch", 3)
        forward, sizes = features.runtime.forward, []

        def stopped(pixels):
            if len(sizes) == 1:
                raise KeyboardInterrupt
            sizes.append(len(pixels))
            return forward(pixels)

        with monkeypatch.context() as patched:
            patched.setattr(features.runtime, "forward", stopped)
            status, _, err = run("fit", *ROI, "parts")
        assert status == 130
        (checkpoint,) = (work / "models").glob(".fit-*")
        assert f"stopped; run the same command again to resume (until then models/{checkpoint.name} keeps" in err
        assert ModelStore(work / "models").count_fitted() == 1, "a checkpoint is no model"

        def counted(pixels):
            sizes.append(len(pixels))
            return forward(pixels)

        monkeypatch.setattr(features.runtime, "forward", counted)
        assert run("fit", *ROI, "parts")[0] == 0
        assert sizes == [3, 1], "no image was embedded twice"
        assert not checkpoint.exists()
        stored = (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes()
        assert run("fit", *ROI, "parts")[0] == 0
        assert (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes() == stored

    def test_every_roi_has_a_checkpoint_of_its_own_whatever_the_images(self, run, work, monkeypatch):
        folders = set()

        def noted(_service, _key, _images, *, checkpoint, **_rest):
            folders.add(checkpoint)
            raise KeyboardInterrupt

        monkeypatch.setattr(fit_command, "fit_images", noted)
        for roi, paths in [("A", ["parts"]), ("B", ["parts"]), ("A", ["parts/a"]), ("A", ["./parts"])]:
            run("fit", "Master1", roi, "--mm-per-px", "0.2", *paths)
        assert len(folders) == 2, "it knows images by their content: one may be mended, added or left out"

    def test_one_broken_image_fails_it_by_name_and_leaves_the_old_model(self, run, work):
        before = (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes()
        Path("parts/a/1.png").write_bytes(Path("parts/a/1.png").read_bytes()[:-50])
        status, out, err = run("fit", *ROI, "parts")
        assert (status, out) == (1, "")
        assert "parts/a/1.png: the image cannot be decoded" in err
        assert (work / "models" / "Master1" / "Pattern" / "memory.npz").read_bytes() == before

    def test_more_images_than_allowed_are_refused_at_once(self, run, work, monkeypatch):
        monkeypatch.setenv("MAX_FILES", "3")
        monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("the network was loaded"))
        status, _, err = run("fit", *ROI, "parts")
        assert status == 1
        assert "4 images, but one fit accepts at most 3 (MAX_FILES)" in err
