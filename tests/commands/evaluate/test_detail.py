"""An evaluation in tiles gives what a fit and an inference in tiles give."""

import pytest

from backend.common.config import Settings
from backend.common.roi_key import RoiKey
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.commands.evaluate.reports import results


def test_scores_in_tiles_are_those_of_the_service(run, part, features, tmp_path):
    assert run("part", "--detail", "2")[0] == 0
    found = results(tmp_path / "evaluation-part")
    (category,) = found["categories"]
    assert found["settings"]["detail"] == 2
    assert "detail 2" in (tmp_path / "evaluation-part" / "report.html").read_text(encoding="utf-8")
    service = InspectionService(Settings(), features, ModelStore(tmp_path / "elsewhere"))
    key = RoiKey("R", "P")

    def named(path):
        return NamedImage(str(path), path.read_bytes)

    train = [named(path) for path in sorted((part / "train/good").iterdir())]
    fitted = fit(service, key, train, mm_per_px=1, detail=2)
    assert (category["n_embeddings"], category["bank_size"]) == (fitted.n_embeddings, fitted.coreset_size)
    assert category["ok_scores"] == pytest.approx(fitted.ok_scores, abs=1e-6), "a fit rounds them"
    for image in category["images"]:
        assert image["score"] == infer(service, key, named(part / "test" / image["name"]), Scoring(1)).inference.score
