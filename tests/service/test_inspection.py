"""The use cases, where they depend on what is stored and configured."""

import importlib
import json

import pytest
from safetensors.torch import save_file

from backend.bank import memory_limits
from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import Conflict, IncompatibleMemory, InvalidRequest, TooLarge
from backend.common.roi_key import RoiKey
from backend.features import DinoV2Features
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.weights import sha256_of
from backend.service.calibrate import calibrate
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from backend.utils import NamedImage
from tests.factories import KEY, service_with


def write_calibration(folder, **values):
    (folder / "Master1" / "Pattern" / "calib.json").write_text(json.dumps(values))


def memory_id(folder):
    return ModelStore(folder).memory_id(KEY)


def test_configured_percentile_and_area_apply_where_calibration_has_none(features, named, tmp_path):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path))

    configured = infer(
        service_with(features, tmp_path, score_percentile=50, area_mm2_thr=1e9), KEY, named[1], Scoring(1)
    )
    default = infer(service, KEY, named[1], Scoring(1))
    assert configured.inference.score < default.inference.score, "a median lies below a 99th percentile"
    assert configured.inference.regions == []
    assert default.inference.regions != []

    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path), score_percentile=50, area_mm2_thr=1e9)
    named_there = infer(service, KEY, named[1], Scoring(1))
    assert named_there.inference.score == configured.inference.score
    assert named_there.inference.regions == []


def test_requested_percentile_is_not_judged_by_anothers_threshold(features, named, tmp_path):
    """A threshold of percentile 99 gives no decision on a score of percentile 50."""
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.0, memory_id=memory_id(tmp_path), score_percentile=99)
    judged = infer(service, KEY, named[1], Scoring(1))
    asked = infer(service, KEY, named[1], Scoring(1, percentile=50))
    assert (judged.decision, judged.calibration_state) == ("ng", "applied")
    assert (asked.decision, asked.calibration_state, asked.inference.regions) == (None, "none", [])
    assert asked.inference.score < judged.inference.score


@pytest.mark.parametrize("values", [{"score_percentile": 150}, {"score_percentile": 0}, {"area_mm2_thr": -1}])
def test_out_of_range_numbers_in_a_stored_calibration_count_as_absent(features, named, tmp_path, values):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path))
    expected = infer(service, KEY, named[1], Scoring(1))
    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path), **values)
    found = infer(service, KEY, named[1], Scoring(1))
    assert found.calibration_state == "applied"
    assert found.inference.score == expected.inference.score
    assert found.inference.regions == expected.inference.regions


def test_the_same_fit_twice_gives_the_same_bytes(features, named, tmp_path):
    service = service_with(features, tmp_path)
    memory = tmp_path / "Master1" / "Pattern" / "memory.npz"
    fit(service, KEY, named[:3], mm_per_px=1)
    first = memory.read_bytes()
    memory.unlink()
    fit(service, KEY, named[:3], mm_per_px=1)
    assert memory.read_bytes() == first


def test_a_fit_says_how_far_it_is(features, named, tmp_path):
    seen = []
    fit(
        service_with(features, tmp_path),
        KEY,
        named[:3],
        mm_per_px=1,
        on_progress=lambda step, done, total: seen.append((step, done, total)),
    )
    assert [report for report in seen if report[0] == "extract"] == [("extract", done, 3) for done in (1, 2, 3)]
    coreset = [report[1:] for report in seen if report[0] == "coreset"]
    assert coreset[-1] == (62, 62)
    assert coreset == sorted(coreset)


def test_a_fit_goes_on_where_it_was_stopped_and_gives_the_same_bytes(features, named, tmp_path):
    memory = tmp_path / "Master1" / "Pattern" / "memory.npz"
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:3], mm_per_px=1)
    uninterrupted = memory.read_bytes()
    memory.unlink()

    def stop(step, done, total):
        if done == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / ".fit-1"
    with pytest.raises(KeyboardInterrupt):
        fit(service, KEY, named[:3], mm_per_px=1, on_progress=stop, checkpoint=checkpoint)
    assert len(list(checkpoint.iterdir())) == 2
    assert not memory.exists()
    fit(service, KEY, named[:3], mm_per_px=1, checkpoint=checkpoint)
    assert memory.read_bytes() == uninterrupted
    assert not checkpoint.exists()
    assert infer(service, KEY, named[0], Scoring(1)).fitted.memory.token_hw == (32, 32), (
        "the interrupted fit gave its place back"
    )


def test_a_fit_that_does_not_fit_into_memory_changes_nothing(features, named, tmp_path, monkeypatch):
    service = service_with(features, tmp_path)
    monkeypatch.setattr(memory_limits, "free_memory", lambda: 1_000_000)
    with pytest.raises(TooLarge, match=r"2 images × 1024 patches × .* 1 MB are free"):
        fit(service, KEY, named[:2], mm_per_px=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_bank_of_another_precision_is_never_compared(features, named, tmp_path, weights):
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    runtime = OpenVinoRuntime(weights.path, 448)
    runtime.precision = "bfloat16"  # whether this CPU has it or not
    lowered = DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 448)
    with pytest.raises(IncompatibleMemory, match=r"precision 'float32' instead of 'bfloat16/openvino'"):
        infer(service_with(lowered, tmp_path), KEY, named[0], Scoring(1))


def test_a_bank_of_another_block_is_never_compared_nor_appended_to(features, named, tmp_path, weights):
    tenth = DinoV2Features(OpenVinoRuntime(weights.path, 448, block=10), DEFAULT_MODEL, weights.sha256, 448)
    other = RoiKey("Master1", "Other")
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    fit(service_with(tenth, tmp_path), other, named[:1], mm_per_px=1)
    for own, key, differs in (
        (tenth, KEY, "block 'last' instead of 10"),
        (features, other, "block 10 instead of 'last'"),
    ):
        service = service_with(own, tmp_path)
        with pytest.raises(IncompatibleMemory, match=rf"refit needed: .*\({differs}\)"):
            infer(service, key, named[1], Scoring(1))
        with pytest.raises(IncompatibleMemory, match=differs):
            fit(service, key, named[1:2], mm_per_px=1, append=True)
    last, earlier = (
        infer(service_with(own, tmp_path), key, named[1], Scoring(1)).inference.score
        for own, key in ((features, KEY), (tenth, other))
    )
    assert last != earlier


def test_a_bank_that_does_not_say_its_extractor_is_of_the_last_block(features, named, tmp_path, weights):
    tenth = DinoV2Features(OpenVinoRuntime(weights.path, 448, block=10), DEFAULT_MODEL, weights.sha256, 448)
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    store = ModelStore(tmp_path)
    store.save_memory(KEY, store.load(KEY).memory, {})
    assert infer(service_with(features, tmp_path), KEY, named[0], Scoring(1)).fitted.memory.token_hw == (32, 32)
    with pytest.raises(IncompatibleMemory, match="block 'last' instead of 10"):
        infer(service_with(tenth, tmp_path), KEY, named[0], Scoring(1))


@pytest.mark.parametrize("role_id", ["Master1", "x" * 300])
def test_ids_that_the_file_system_cannot_hold_are_refused_before_any_work(features, named, tmp_path, role_id):
    service = service_with(features, tmp_path)
    fit(service, KEY, named[:1], mm_per_px=1)
    (tmp_path / "master1").symlink_to(tmp_path / "Master1")  # as if case did not matter here
    unread = NamedImage("never.png", lambda: pytest.fail("the image was read"))
    with pytest.raises(InvalidRequest, match="ids must not" if len(role_id) > 99 else "use other ids"):
        fit(service, RoiKey(role_id.lower(), "Pattern"), [unread], mm_per_px=1)


def test_scores_of_another_memory_bank_never_become_a_threshold(features, named, tmp_path):
    """A client that names the bank which scored is refused if the ROI was fitted anew or never fitted."""
    service = service_with(features, tmp_path)
    scored_by = fit(service, KEY, named[:1], mm_per_px=1).memory_id
    score = infer(service, KEY, named[2], Scoring(1))
    assert score.fitted.memory_id == scored_by

    fitted_anew = fit(service, KEY, named[:2], mm_per_px=1).memory_id
    assert fitted_anew != scored_by
    with pytest.raises(Conflict, match="fitted anew since it was scored"):
        calibrate(service, KEY, [score.inference.score], [], mm_per_px=1, memory_id=scored_by)
    assert service.state(KEY).fitted.calibration_state == "none"

    calibrate(service, KEY, [0.5], [], mm_per_px=1, memory_id=fitted_anew)
    assert service.state(KEY).fitted.calibration_state == "applied"
    never_fitted = RoiKey("Master1", "Other")
    with pytest.raises(Conflict):
        calibrate(service, never_fitted, [0.5], [], mm_per_px=1, memory_id=fitted_anew)


def test_a_threshold_of_scores_of_another_blur_is_not_applied(features, named, tmp_path):
    def service(sigma):
        return InspectionService(
            Settings(models_dir=tmp_path, blur_sigma=sigma), features, ModelStore(tmp_path, blur_sigma=sigma)
        )

    fit(service(1), KEY, named[:1], mm_per_px=1)
    calibrate(service(1), KEY, [0.5], [], mm_per_px=1)
    states = [infer(service(sigma), KEY, named[1], Scoring(1)).calibration_state for sigma in (1, 3, 1)]
    assert states == ["applied", "stale", "applied"]
    assert [service(sigma).store.count_stale() for sigma in (1, 3)] == [0, 1]

    write_calibration(tmp_path, threshold=0.5, memory_id=memory_id(tmp_path))  # of a version that recorded no blur
    assert service(3).state(KEY).fitted.calibration_state == "applied"


def test_a_wider_blur_lowers_the_peaks_of_the_map(features, named, tmp_path):
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    maxima = [
        infer(
            service_with(features, tmp_path, score_percentile=100, blur_sigma=sigma), KEY, named[1], Scoring(1)
        ).inference.score
        for sigma in (0, 1, 20)
    ]
    assert maxima == sorted(maxima, reverse=True)
    assert len(set(maxima)) == 3


def test_another_timm_network_serves_with_own_weights_and_never_mixes(features, named, tmp_path):
    """A memory of the other network is refused by the default one, and register tokens do not count as patches."""
    importlib.import_module("backend.network.runtimes.torch")  # timm imports only after it
    timm = importlib.import_module("timm")
    # Random weights will do: nothing here depends on what the tokens mean.
    name = "vit_small_patch14_reg4_dinov2.lvd142m"
    weights = tmp_path / "own.safetensors"
    save_file(timm.create_model(name, num_classes=0, img_size=518).state_dict(), weights)
    own = InspectionService.open(
        Settings(
            model_name=name,
            weights=weights,
            weights_sha256=sha256_of(weights),
            input_size=112,
            models_dir=tmp_path / "models",
        )
    )
    assert own.features.runtime.name == "torch"
    assert fit(own, KEY, named[:1], mm_per_px=1).token_hw == (8, 8), "class and register tokens are no patches"
    assert infer(own, KEY, named[0], Scoring(1)).fitted.memory.token_hw == (8, 8)
    with pytest.raises(IncompatibleMemory, match=r"refit needed.*reg4"):
        infer(service_with(features, tmp_path / "models"), KEY, named[0], Scoring(1))
