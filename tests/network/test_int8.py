"""8-bit products against NumPy, and what the network makes of them on real pictures."""

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import ConfigError, IncompatibleMemory
from backend.features import DinoV2Features, preprocess
from backend.network import runtimes
from backend.network.openvino_library import op, ov
from backend.network.runtimes import int8, open_runtime
from backend.network.runtimes.int8 import (
    GELU_FLOOR,
    Gelu,
    Int8Products,
    has_exact_kernels,
    migrated_scales,
    quantise_rows,
)
from backend.network.runtimes.openvino import OpenVinoRuntime, build_vit
from backend.network.runtimes.rotation import rotated, rotation
from backend.patchcore import PatchCoreMemory, l2_normalize
from backend.service.fit import fit
from backend.service.judge import infer
from backend.service.scoring import Scoring
from tests.factories import KEY, SHARED, image_named, service_with


def computed(tokens, *matrices, source=None, exact_kernels=False):
    """What OpenVINO makes of `Int8Products.of`, float32 [T, O] of each matrix."""
    given = op.parameter([1, *tokens.shape], np.float32)
    products = Int8Products(exact_kernels).of(given, *matrices, source=source)
    compiled = ov.Core().compile_model(ov.Model(products, [given]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled([tokens[None]])
    return [found[number][0] for number in range(len(matrices))]


def expected(tokens, matrix, floor=None):
    """The same in integers and float64."""
    shifted = tokens.astype(np.float64) + (0 if floor is None else floor)
    largest = np.abs(shifted).max(axis=1, keepdims=True)
    n_levels = 127 if floor is None else 255
    levels = np.rint(shifted / largest * n_levels).astype(np.int64)
    if floor is not None:
        levels = levels.clip(0)
    largest_weight = np.abs(matrix.astype(np.float64)).max(axis=1, keepdims=True)
    rows = np.rint(matrix / largest_weight * 127).astype(np.int64)
    sums = levels @ rows.T
    product = sums * (largest / n_levels) * (largest_weight / 127).T
    return product if floor is None else product - (rows * largest_weight / 127) @ floor


@pytest.fixture(scope="module")
def tensors(weights):
    return load_file(weights.path)


@pytest.fixture(scope="module")
def normed():
    """Tokens as after a norm, float32 [200, 384]; one is all zeros."""
    tokens = np.random.default_rng(0).standard_normal((200, 384)).astype(np.float32)
    tokens[0] = 0
    return tokens


def assert_near(found, wanted):
    """All but the few numbers that float32 rounds to the other of two neighbouring levels, and those by one level."""
    scale = np.abs(wanted).max()
    assert np.quantile(np.abs(found - wanted), 0.99) <= 1e-5 * scale
    assert np.abs(found - wanted).max() <= 2e-3 * scale


def test_products_are_those_of_integers_with_a_scale_a_token_and_a_row(normed, tensors):
    """Of real weights, in float32, against int64."""
    matrices = np.split(tensors["blocks.5.attn.qkv.weight"], 3)
    for found, matrix in zip(computed(normed[1:], *matrices), matrices, strict=True):
        assert_near(found, expected(normed[1:], matrix))
    (found,) = computed(normed[:1], matrices[0])
    assert (found == 0).all()


def test_kernels_of_8_bits_give_the_same_as_those_of_float32(normed, tensors):
    """Every other weight is zero, so that not even a CPU without VNNI comes to the largest number of 16 bits."""
    matrix = tensors["blocks.5.attn.proj.weight"].copy()
    matrix[:, ::2] = 0
    (found,) = computed(normed[1:], matrix, exact_kernels=True)
    assert_near(found, expected(normed[1:], matrix))
    positive = np.abs(normed[1:]) - GELU_FLOOR
    gelu = Gelu(tensors["blocks.5.attn.proj.weight"], tensors["blocks.5.attn.proj.bias"])
    matrix[:, ::2] = 1e-6
    scales = migrated_scales(gelu, matrix)
    (found,) = computed(positive, matrix, source=gelu, exact_kernels=True)
    assert_near(found, expected(positive / scales, matrix * scales, GELU_FLOOR / scales))


def test_the_probe_finds_out_whether_kernels_of_8_bits_are_exact(tensors):
    """The largest sums that there can be, of both signs: exact where the probe says so, and else not even near."""
    largest = np.ones((64, 1536), np.float32)
    for sign in (1, -1):
        (found,) = computed(largest, sign * largest, exact_kernels=True)
        error = np.abs(found / (sign * 1536) - 1).max()
        assert error <= 1e-4 if has_exact_kernels() else error > 0.01


def test_after_a_gelu_all_levels_are_for_what_is_not_negative(normed, tensors):
    """Hidden channels of the real network reach differently far: the scales bring them nearer to each other."""
    own = rotated(tensors)
    gelu = Gelu(own["blocks.5.mlp.fc1.weight"], own["blocks.5.mlp.fc1.bias"])
    tokens = (normed[1:] - normed[1:].mean(axis=1, keepdims=True)) / normed[1:].std(axis=1, keepdims=True)
    values = functional.gelu(torch.from_numpy(tokens @ gelu.weight.T + gelu.bias)).numpy()
    matrix = own["blocks.5.mlp.fc2.weight"]
    scales = migrated_scales(gelu, matrix)
    assert np.exp(np.log(scales.astype(np.float64)).mean()) == pytest.approx(1, abs=1e-5)
    (found,) = computed(values, matrix, source=gelu)
    assert_near(found, expected(values / scales, matrix * scales, GELU_FLOOR / scales))
    exact = values @ matrix.T
    (symmetric,) = computed(values, matrix)
    assert np.abs(found - exact).mean() < 0.7 * np.abs(symmetric - exact).mean()


def test_a_rotation_is_orthogonal_and_keeps_the_mean_of_a_token():
    for dim in (64, 384):
        own = rotation(dim)
        assert np.abs(own @ own.T - np.eye(dim)).max() < 1e-12
        assert np.abs(own @ np.ones(dim) - 1).max() < 1e-12
    # One large channel becomes many of about the same size.
    alone = np.zeros(384)
    alone[68] = 1
    assert np.abs(rotation(384) @ alone).max() < 0.25
    with pytest.raises(ValueError, match="no Hadamard matrix of order 9"):
        rotation(18)


@pytest.mark.slow
def test_rotated_weights_are_the_same_network(weights, tensors, pictures):
    """In float32, against the tokens of weights that are not rotated, of the last block and of an earlier one."""
    for blocks in ((12,), (3, 9)):
        found = []
        for own in (tensors, rotated(tensors)):
            compiled = ov.Core().compile_model(
                build_vit(own, 224, blocks=blocks), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
            )
            outputs = compiled([pictures[:1]])
            found.append(l2_normalize(np.concatenate([outputs[number][0] for number in range(len(blocks))])))
        assert np.abs(found[0] - found[1]).max() < 1e-4


def test_rows_are_rounded_to_127ths_of_their_largest_number():
    rows, step = quantise_rows(np.array([[1, -2, 0.5], [0, 0, 1e-9]], np.float32))
    assert rows.tolist() == [[64, -127, 32], [0, 0, 127]]
    assert rows.dtype == np.int8
    assert step[:, 0] == pytest.approx([2 / 127, 1e-9 / 127])


@pytest.fixture(scope="module")
def pictures(images):
    """Real ones: of `alien` in ../shared, whose flat backgrounds are where rounding shows most, where that is there."""
    files = sorted((SHARED / "data" / "alien" / "test").glob("*/*"))[::24]
    fragile = [np.asarray(cv2.imread(str(file)), np.uint8) for file in files]
    return np.stack([preprocess(image, 224) for image in [*images, *fragile]])


@pytest.mark.slow
def test_maps_of_int8_are_those_of_float32_with_the_same_patches(weights, pictures):
    """Half of the pictures are the bank of the others: maps correlate, scores are near, the same bytes every time."""
    exact, rounded = (OpenVinoRuntime(weights.path, 224, precision) for precision in ("float32", "int8"))
    assert rounded.precision == "int8"
    tokens = {runtime.precision: runtime.forward(pictures) for runtime in (exact, rounded)}
    assert np.array_equal(rounded.forward(pictures[:1]), tokens["int8"][:1])
    distances = {}
    for name, own in tokens.items():
        memory = PatchCoreMemory(l2_normalize(np.concatenate(own[::2]))[::10], (16, 16))
        distances[name] = np.stack([memory.distances(image) for image in own[1::2]])
    for one, other in zip(distances["int8"], distances["float32"], strict=True):
        assert 0.99 < np.corrcoef(one, other)[0, 1] < 0.99999
        assert np.percentile(one, 99) == pytest.approx(np.percentile(other, 99), abs=0.02)


@pytest.mark.slow
def test_earlier_blocks_stay_float32(weights, images):
    pixels = preprocess(images[0], 112)[None]
    for block, same in ((int8.FIRST_BLOCK - 1, True), (int8.FIRST_BLOCK, False)):
        one, other = (
            l2_normalize(OpenVinoRuntime(weights.path, 112, p, block=block).forward(pixels)[0])
            for p in ("float32", "int8")
        )
        assert (np.abs(one - other).max() < 1e-4) == same


@pytest.mark.slow
def test_a_cpu_with_bfloat16_gives_nearly_the_same_tokens_as_one_without(tensors, pictures):
    """Its attention is in bfloat16, which OpenVINO computes on any CPU."""
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    found = []
    for lower_attention in (False, True):
        model = build_vit(tensors, 224, "int8", exact_kernels=False, lower_attention=lower_attention)
        found.append(l2_normalize(ov.Core().compile_model(model, "CPU", hints)([pictures[:1]])[0][0]))
    cosines = (found[0] * found[1]).sum(axis=1)
    assert 0.99 < cosines.min() < 0.999999


@pytest.mark.slow
@pytest.mark.parametrize("exact_kernels", [True, False])
def test_where_int8_is_not_faster_the_service_says_so(weights, monkeypatch, exact_kernels):
    monkeypatch.setattr(int8, "has_exact_kernels", lambda: exact_kernels)
    runtime, reason = open_runtime(Settings(precision="int8", input_size=28, device="cpu"), weights)
    assert (runtime.precision, reason is None) == ("int8", exact_kernels)
    if reason is not None:
        assert "VNNI" in reason
        assert "PRECISION=float32 is recommended" in reason
    assert open_runtime(Settings(input_size=28, device="cpu"), weights)[1] is None


@pytest.mark.slow
def test_device_and_precision_in_vain_are_both_told(weights, monkeypatch):
    monkeypatch.setattr(int8, "has_exact_kernels", lambda: False)
    monkeypatch.setattr(runtimes, "_nvidia_driver_sees_a_gpu", lambda: False)
    _, reason = open_runtime(Settings(precision="int8", input_size=28, device="cuda"), weights)
    assert reason is not None
    assert reason.index("DEVICE=cuda") < reason.index("PRECISION=int8")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "torch"}, "RUNTIME=torch"),
        (
            {"model_name": "vit_x", "weights": "x", "weights_sha256": "0" * 64},
            f"is for MODEL_NAME={DEFAULT_MODEL}, not for vit_x",
        ),
        ({}, "would run on CUDA"),
    ],
)
def test_int8_elsewhere_than_in_openvino_is_refused_in_words(weights, monkeypatch, settings, message):
    monkeypatch.setattr(runtimes, "_cuda_obstacle", lambda settings: None)
    with pytest.raises(ConfigError, match=rf"PRECISION=int8.*{message}"):
        open_runtime(Settings(precision="int8", input_size=28, **settings), weights)


@pytest.mark.slow
def test_a_bank_of_float32_is_refused_by_int8_and_the_other_way_round(weights, images, tmp_path):
    named = [image_named(f"{number}.png", image) for number, image in enumerate(images[:2])]
    precisions = ("float32", "int8")
    services = [
        service_with(
            DinoV2Features(OpenVinoRuntime(weights.path, 112, precision), DEFAULT_MODEL, weights.sha256, 112), tmp_path
        )
        for precision in precisions
    ]
    assert [own.features.identity.precision for own in services] == ["float32", "int8/openvino"]
    for own, other in (services, services[::-1]):
        fit(own, KEY, named[:1], mm_per_px=1)
        assert infer(own, KEY, named[1], Scoring(1)).inference.score > 0
        with pytest.raises(IncompatibleMemory, match=r"precision '.*' instead of '.*'"):
            infer(other, KEY, named[1], Scoring(1))
