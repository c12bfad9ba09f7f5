"""Whose memory banks a service takes: of its own extractor, dimension and grid, and no others."""

import importlib

import pytest
from safetensors.torch import save_file

from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import IncompatibleMemory, MemoryNotFound
from backend.common.roi_key import RoiKey
from backend.features import DinoV2Features
from backend.network.runtimes.openvino import OpenVinoRuntime
from backend.network.weights import sha256_of
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.service.fit import fit
from backend.service.inspection import InspectionService
from backend.service.judge import infer
from backend.service.scoring import Scoring
from backend.storage import ModelStore
from tests.factories import KEY, LAYOUTS, image_named, older_files, service_with, unit_rows, write_memory


@pytest.fixture(scope="module")
def features(full_features):
    return full_features


@pytest.mark.slow
def test_a_bank_of_another_precision_is_never_compared(features, named, tmp_path, weights):
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    runtime = OpenVinoRuntime(weights.path, 448)
    runtime.precision = "bfloat16"  # whether this CPU has it or not
    lowered = DinoV2Features(runtime, DEFAULT_MODEL, weights.sha256, 448)
    with pytest.raises(IncompatibleMemory, match=r"precision 'float32' instead of 'bfloat16/openvino'"):
        infer(service_with(lowered, tmp_path), KEY, named[0], Scoring(1))


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_bank_that_does_not_say_its_extractor_is_of_the_last_block(features, named, tmp_path, weights):
    tenth = DinoV2Features(OpenVinoRuntime(weights.path, 448, block=10), DEFAULT_MODEL, weights.sha256, 448)
    fit(service_with(features, tmp_path), KEY, named[:1], mm_per_px=1)
    store = ModelStore(tmp_path)
    store.save_memory(KEY, store.load(KEY).memory, {})
    assert infer(service_with(features, tmp_path), KEY, named[0], Scoring(1)).fitted.memory.token_hw == (32, 32)
    with pytest.raises(IncompatibleMemory, match="block 'last' instead of 10"):
        infer(service_with(tenth, tmp_path), KEY, named[0], Scoring(1))


@pytest.mark.slow
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


def infer_first(service, images):
    return infer(service, KEY, image_named("part.png", images[0]), Scoring(0.2))


def test_a_roi_without_a_memory_is_memory_not_found(service, images):
    with pytest.raises(MemoryNotFound):
        infer_first(service, images)


@pytest.mark.parametrize(
    ("dim", "token_hw"),
    [(1152, (32, 32)), (384, (37, 37)), (384, (32, 31))],
    ids=["dimension", "grid", "one column less"],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_older_memory_of_another_dimension_or_grid_is_refused_with_refit(
    service, images, tmp_path, dim, token_hw, layout
):
    memory_file, _, calibration_file = older_files(tmp_path, layout, KEY)
    write_memory(memory_file, unit_rows(10, dim, 0), token_hw)
    calibration_file.write_text('{"threshold": 0.5}', encoding="utf-8")
    with pytest.raises(IncompatibleMemory, match=r"(?i)refit.*run /fit_ok again"):
        infer_first(service, images)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", "vit_base_patch14_dinov2.lvd142m"),
        ("weights_sha256", "0" * 64),
        ("input_size", 518),
        ("preprocessing", "letterbox"),
        ("precision", "bfloat16"),
    ],
)
def test_memory_of_another_extractor_is_refused_with_what_differs(service, images, part, value):
    """The error names the part of the extractor and asks for a refit."""
    identity = service.features.identity.as_dict()
    assert identity[part] != value
    memory = PatchCoreMemory.build(unit_rows(10, 384, 0), (32, 32), 1.0)
    service.store.save_memory(KEY, memory, {"extractor": {**identity, part: value}})
    with pytest.raises(IncompatibleMemory, match=rf"(?i)refit.*{part}.*{value}"):
        infer_first(service, images)
    service.store.save_memory(KEY, memory, {"extractor": identity})
    assert 0 < infer_first(service, images).inference.score <= 2


@pytest.mark.slow
def test_older_memory_of_the_running_dimension_and_grid_is_served(service, images, tmp_path):
    embeddings, token_hw = service.features.extract(images[0])
    write_memory(older_files(tmp_path, "L1", KEY)[0], l2_normalize(embeddings), token_hw)
    assert infer_first(service, images).inference.score == pytest.approx(0, abs=1e-5)
