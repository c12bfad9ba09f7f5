"""An image beside the good patches that come nearest to it."""

import base64
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from backend.common.config import Settings
from backend.common.errors import DamagedMemory, InvalidRequest
from backend.service import bank_report, explain
from backend.service.calibrate import calibrate
from backend.service.datasets import fit_stored
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.service.uploads import store_images
from backend.storage import ModelStore
from tests.factories import KEY, tampered


@pytest.fixture(scope="session")
def features(small_features):
    return small_features


class TestExplain:
    def explain(self, service, image, point=None, **more):
        return explain.explain(service, KEY, image, mm_per_px=0.2, shape=None, point=point, with_pictures=True, **more)

    def test_it_judges_as_an_inference_does(self, service, parts):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        calibrate(service, KEY, [0.1], [], mm_per_px=0.2, area_mm2_thr=0)
        found, inferred = self.explain(service, parts[2]), infer(service, KEY, parts[2], Scoring(0.2))
        assert found.result.inference == inferred.inference
        assert found.result.decision == inferred.decision == "ng"
        assert len(found.reasons) == min(8, len(inferred.inference.regions))

    def test_pictures_show_the_good_image_where_it_was_kept(self, service, parts):
        widths = []
        for thumbnails in (False, True):
            fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=thumbnails)
            found = self.explain(service, parts[2], (10, 10))
            picture = cv2.imdecode(np.frombuffer(base64.b64decode(found.pictures[0]), np.uint8), 1)
            widths.append(picture.shape[1])
            assert found.reasons[0].image.name in ("0.png", "1.png")
        assert widths[1] == 2 * widths[0] + 8

    def test_stored_images_are_shown_and_a_damaged_one_is_not(self, features, tmp_path, parts):
        # Room for one image at a time: who held the one that was sent while it asks for another would wait for ever.
        settings = Settings(models_dir=tmp_path, max_pixels=160 * 120 + 1, min_ok_samples=2)
        service = InspectionService(settings, features, ModelStore(tmp_path))
        stored = store_images(service, KEY, "ok", parts[:2], [])
        fit_stored(service, KEY, mm_per_px=0.2, keep_all=False)
        with ThreadPoolExecutor(4) as pool:
            runs = [pool.submit(self.explain, service, parts[2], (10, 10)) for _ in range(8)]
            widths = {self.width(run.result(timeout=60).pictures[0]) for run in runs}
        assert widths == {2 * 384 + 8}
        for image in stored.images:
            path = service.datasets.folder(KEY) / "ok" / image.name
            path.write_bytes(path.read_bytes()[:200])
        assert self.width(self.explain(service, parts[2], (10, 10)).pictures[0]) == 384

    def width(self, picture):
        return cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).shape[1]

    def test_a_place_outside_the_image_is_refused(self, service, parts):
        fit(service, KEY, parts[:2], mm_per_px=0.2)
        with pytest.raises(InvalidRequest, match="outside the image of 160x120"):
            self.explain(service, parts[2], (160, 10))


@pytest.mark.parametrize(
    "patches",
    [
        np.full(8, 2**62),
        np.full(8, -2),
        np.full(8, 128),
        np.zeros(7, np.int64),
        np.zeros(8),
        np.zeros((8, 1), np.int64),
    ],
)
def test_a_bank_that_says_nonsense_about_its_patches_is_damaged(service, parts, patches):
    assert fit(service, KEY, parts[:2], mm_per_px=0.2).n_embeddings == 128
    n_kept = len(service.fitted(KEY).memory.embeddings)
    tampered(service, patches=np.resize(patches, (n_kept, *patches.shape[1:])) if len(patches) == 8 else patches)
    for ask in (bank_report.bank_report, TestExplain().explain):
        with pytest.raises(DamagedMemory):
            ask(service, KEY) if ask is bank_report.bank_report else ask(service, parts[2])


@pytest.mark.parametrize("huge", [True, False])
def test_a_thumbnail_that_is_none_is_not_shown(service, parts, huge):
    fit(service, KEY, parts[:2], mm_per_px=0.2, thumbnails=True)
    bomb = cv2.imencode(".png", np.zeros((4000, 4000), np.uint8))[1].tobytes() if huge else b"no image"
    tampered(
        service,
        thumbnails=np.frombuffer(bomb * 2, np.uint8),
        thumbnail_ends=np.array([len(bomb), 2 * len(bomb)]),
    )
    assert TestExplain().width(TestExplain().explain(service, parts[2], (10, 10)).pictures[0]) == 384
