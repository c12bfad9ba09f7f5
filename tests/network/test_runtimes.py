"""Parity is measured on the real weights: random-initialised DINOv2 has LayerScale 1e-5, and any two runtimes agree."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import elpv_dataset
import numpy as np
import pytest

from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import ConfigError
from backend.common.profiles import RECOMMENDED_BLOCKS
from backend.features import preprocess
from backend.network import runtimes
from backend.network.runtimes import open_runtime, openvino
from backend.network.runtimes.openvino import OpenVinoRuntime, build_vit, has_bfloat16, resample_position_grid
from backend.network.runtimes.torch import TorchRuntime, select_patch_tokens
from backend.patchcore import PatchCoreMemory

# After backend.runtimes.torch, which makes torchvision importable beside a CPU build of torch.
import timm  # isort: skip
import torch  # isort: skip
from safetensors.numpy import load_file  # isort: skip
from safetensors.torch import load_file as load_torch_file, save_file  # isort: skip
from timm.layers import resample_abs_pos_embed  # isort: skip
from timm.models.vision_transformer import checkpoint_filter_fn  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
CPU_INFO = Path("/proc/cpuinfo")
EARLIER = (1, 10)  # blocks before the last


@pytest.fixture(scope="module", params=[448, pytest.param(336, marks=pytest.mark.long)])
def parity(request, weights, images):
    """Pixels of real images, and the tokens that timm's own model gives for them, loaded by timm's own functions.

    By block: None is the last one, as timm returns it where no block is named.
    """
    side = request.param
    model = timm.create_model(DEFAULT_MODEL, pretrained=False, num_classes=0, img_size=side)
    model.load_state_dict(checkpoint_filter_fn(load_torch_file(str(weights.path)), model), strict=True)
    model.eval()
    pixels = np.stack([preprocess(image, side) for image in images[2:4] + images[-1:]])
    with torch.inference_mode():
        given = torch.from_numpy(pixels)
        tokens = {None: model.forward_features(given)[:, model.num_prefix_tokens :].numpy()}
        earlier = model.get_intermediate_layers(given, [block - 1 for block in EARLIER], norm=True)
        for block, own in zip(EARLIER, earlier, strict=True):
            tokens[block] = own.numpy()
    return SimpleNamespace(side=side, pixels=pixels, tokens=tokens)


@pytest.fixture(params=["openvino", "torch"])
def open_parity(request, parity, weights):
    """Opens a runtime of the fixture's input size that ends after a block."""
    if request.param == "openvino":
        return lambda block: OpenVinoRuntime(weights.path, parity.side, block=block)
    return lambda block: TorchRuntime(DEFAULT_MODEL, weights.path, parity.side, "cpu", block=block)


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, *EARLIER])
def test_tokens_of_both_runtimes_are_those_of_timms_own_forward_pass(open_parity, parity, block):
    runtime, expected = open_parity(block), parity.tokens[block]
    tokens = runtime.forward(parity.pixels)
    side = parity.side // 14
    assert (runtime.grid_hw, runtime.block) == ((side, side), block)
    assert tokens.shape == expected.shape == (len(parity.pixels), side * side, runtime.dim)
    assert tokens.dtype == np.float32
    ours, theirs = tokens.astype(np.float64), expected.astype(np.float64)
    cosine = (ours * theirs).sum(-1) / np.linalg.norm(ours, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosine.min() >= 0.99999
    # The cosine does not see a wrong scale.
    assert (np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)).max() < 1e-3

    # And so every score agrees to 1e-4: the first image is the memory bank, the others are judged by it.
    bank = PatchCoreMemory.build(expected[0].copy(), (side, side), 0.2)
    for one, other in zip(tokens[1:], expected[1:], strict=True):
        assert np.percentile(bank.distances(one), 99) == pytest.approx(
            np.percentile(bank.distances(other), 99), abs=1e-4
        )


@pytest.mark.slow
def test_tokens_of_several_blocks_are_those_of_each_side_by_side(parity, weights):
    """Both runtimes give what timm's own forward pass gives, of blocks 9 to 12 after the final norm."""
    model = timm.create_model(
        DEFAULT_MODEL,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights.path)},
        num_classes=0,
        img_size=parity.side,
    ).eval()
    with torch.inference_mode():
        expected = model.forward_intermediates(
            torch.from_numpy(parity.pixels), [8, 9, 10, 11], norm=True, output_fmt="NLC", intermediates_only=True
        )
    expected = np.concatenate([tokens.numpy() for tokens in expected], axis=-1)
    for runtime in (
        OpenVinoRuntime(weights.path, parity.side, blocks=RECOMMENDED_BLOCKS),
        TorchRuntime(DEFAULT_MODEL, weights.path, parity.side, "cpu", blocks=RECOMMENDED_BLOCKS),
        # BLOCK is of the contract's profile, and ends no network of several blocks.
        TorchRuntime(DEFAULT_MODEL, weights.path, parity.side, "cpu", block=10, blocks=RECOMMENDED_BLOCKS),
    ):
        tokens = runtime.forward(parity.pixels)
        assert (runtime.block, runtime.dim, tokens.shape) == ("9+10+11+12", 1536, expected.shape)
        for ours, theirs in zip(np.split(tokens, 4, axis=-1), np.split(expected, 4, axis=-1), strict=True):
            errors = np.linalg.norm(ours - theirs, axis=-1) / np.linalg.norm(theirs, axis=-1)
            assert errors.max() < 1e-3


@pytest.mark.slow
def test_the_last_block_is_the_network_without_a_block_to_the_last_bit(weights, images):
    pixels = preprocess(images[0], 112)[None]
    for named, unnamed in (
        (OpenVinoRuntime(weights.path, 112, block=12), OpenVinoRuntime(weights.path, 112)),
        (
            TorchRuntime(DEFAULT_MODEL, weights.path, 112, "cpu", block=12),
            TorchRuntime(DEFAULT_MODEL, weights.path, 112, "cpu"),
        ),
    ):
        assert named.block is unnamed.block is None
        assert np.array_equal(named.forward(pixels), unnamed.forward(pixels))


@pytest.mark.slow
def test_a_network_that_ends_earlier_computes_no_block_after_it(weights):
    whole, shorter = (
        {node.get_friendly_name() for node in build_vit(load_file(weights.path), 28, blocks=[n]).get_ops()}
        for n in (12, 10)
    )
    products = [len([name for name in names if name.startswith("MatMul")]) for names in (whole, shorter)]
    assert products == [12 * 8, 10 * 8]  # query, keys, values, logits, heads, projection, two of the MLP
    runtime = TorchRuntime(DEFAULT_MODEL, weights.path, 28, "cpu", block=10)
    assert len(runtime._model.blocks) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit.r160_in1k", "test_vit2.r160_in1k", "eva02_tiny_patch14_224.mim_in22k"])
def test_model_of_another_depth_ends_after_any_block_and_refuses_others(name, tmp_path):
    """A network with fewer or more blocks can end after each block it has; a larger number is a config error."""
    model = timm.create_model(name, num_classes=0, img_size=112).eval()  # random weights: the tokens need no meaning
    path = tmp_path / "own.safetensors"
    save_file(model.state_dict(), path)
    depth = len(model.blocks)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 112, 112)).astype(np.float32)
    for block in (1, depth - 1, depth):
        runtime = TorchRuntime(name, path, 112, "cpu", block=block)
        assert runtime.block == (None if block == depth else block)
        with torch.inference_mode():
            (expected,) = model.forward_intermediates(
                torch.from_numpy(pixels), [block - 1], norm=True, output_fmt="NLC", intermediates_only=True
            )
        assert np.abs(runtime.forward(pixels) - expected.numpy()).max() < 1e-4
    with pytest.raises(ConfigError, match=rf"BLOCK={depth + 1}: .* blocks 1 to {depth}$"):
        TorchRuntime(name, path, 112, "cpu", block=depth + 1)


@pytest.mark.slow
def test_block_setting_reaches_both_runtimes_and_an_unknown_one_is_refused(weights):
    for name in ("openvino", "torch"):
        opened, _ = open_runtime(Settings(runtime=name, device="cpu", input_size=28, block=10), weights)
        assert (opened.name, opened.block) == (name, 10)
    with pytest.raises(ConfigError, match=r"BLOCK=13: .* blocks 1 to 12$"):
        OpenVinoRuntime(weights.path, 28, block=13)


@pytest.mark.long
def test_12_real_images_score_the_same_from_openvino_and_torch(weights):
    """Distances agree to 1e-3 and scores to 1e-4."""
    files = sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))[:: 2624 // 16]
    pixels = [preprocess(cv2.imread(str(file)), 448) for file in files]
    assert len(pixels) >= 16
    banks, answers = [], []
    for runtime in (OpenVinoRuntime(weights.path, 448), TorchRuntime(DEFAULT_MODEL, weights.path, 448, "cpu")):
        tokens = [runtime.forward(image[None])[0] for image in pixels]
        banks.append(PatchCoreMemory.build(np.concatenate(tokens[:4]), (32, 32), 0.02))
        answers.append(np.stack([banks[-1].distances(own) for own in tokens[4:]]))
    assert np.abs(answers[0] - answers[1]).max() <= 1e-3
    scores = np.percentile(np.stack(answers), 99, axis=2)
    assert np.abs(scores[0] - scores[1]).max() <= 1e-4


@pytest.mark.slow
def test_bfloat16_tokens_stay_close_or_are_refused_without_cpu_support(weights, images):
    exact = OpenVinoRuntime(weights.path, 448)
    if not has_bfloat16():
        with pytest.raises(ConfigError, match="PRECISION=bfloat16"):
            OpenVinoRuntime(weights.path, 448, "bfloat16")
        return
    lowered = OpenVinoRuntime(weights.path, 448, "bfloat16")
    assert (lowered.precision, exact.precision) == ("bfloat16", "float32")
    pixels = np.stack([preprocess(image, 448) for image in images])
    tokens, expected = lowered.forward(pixels), exact.forward(pixels)
    cosine = (tokens * expected).sum(-1) / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(expected, axis=-1)
    # OpenVINO's own lowering rounds the residual stream and logits of 400 too: there are tokens of 0.95 and less then.
    assert cosine.min() >= 0.98
    assert 0.9995 <= cosine.mean() < 0.999999


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPU_INFO.exists(), reason="asks Linux on x86")
def test_bfloat16_is_there_where_the_cpu_lists_its_instructions():
    listed = set(CPU_INFO.read_text(encoding="utf-8").split())
    assert has_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & listed)


@pytest.mark.slow
def test_a_cpu_without_bfloat16_refuses_it_in_words(weights, monkeypatch):
    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    with pytest.raises(ConfigError, match=r"PRECISION=bfloat16.*float32"):
        OpenVinoRuntime(weights.path, 28, "bfloat16")
    assert OpenVinoRuntime(weights.path, 28).precision == "float32"


def test_float16_without_cuda_is_refused_in_words(weights, monkeypatch):
    monkeypatch.setattr(runtimes, "_nvidia_driver_sees_a_gpu", lambda: False)
    with pytest.raises(ConfigError, match=r"PRECISION=float16 needs CUDA"):
        open_runtime(Settings(precision="float16", input_size=28), weights)


@pytest.mark.slow
def test_torch_in_bfloat16_computes_in_bfloat16(weights, images):
    pixels = preprocess(images[0], 112)[None]
    exact = TorchRuntime(DEFAULT_MODEL, weights.path, 112, "cpu").forward(pixels)
    lowered = TorchRuntime(DEFAULT_MODEL, weights.path, 112, "cpu", "bfloat16").forward(pixels)
    assert lowered.dtype == np.float32
    deviation = np.linalg.norm(lowered - exact, axis=-1) / np.linalg.norm(exact, axis=-1)
    assert 1e-3 < np.median(deviation) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forward_pass_uses_the_threads_it_was_given(weights, threads):
    compiled = OpenVinoRuntime(weights.path, 28, threads=threads)._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert not compiled.get_property("ENABLE_CPU_PINNING"), "two processes would be pinned to the same cores"
    TorchRuntime(DEFAULT_MODEL, weights.path, 28, "cpu", threads=threads)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("side", [1, 2, 10, 16, 24, 32, 36, 37, 38, 50, 73, 146])
def test_the_position_grid_is_resampled_as_timm_resamples_it(weights, side):
    trained = load_file(weights.path)["pos_embed"]
    expected = resample_abs_pos_embed(torch.from_numpy(trained), [side, side], num_prefix_tokens=1).numpy()
    resampled = resample_position_grid(trained, side)
    assert resampled.shape == expected.shape == (1, 1 + side * side, 384)
    assert resampled.dtype == np.float32
    assert np.abs(resampled - expected).max() <= 1e-6  # the values reach 0.16


@pytest.mark.slow
def test_openvino_serves_the_default_model_without_importing_torch(weights):
    script = (
        "import sys, numpy; from backend.common.config import Settings; from backend.network.weights import Weights;"
        "from backend.network.runtimes import open_runtime; from pathlib import Path;"
        f"runtime, reason = open_runtime(Settings(input_size=28), Weights(Path({str(weights.path)!r}), '', ''));"
        "assert runtime.forward(numpy.zeros((1, 3, 28, 28), numpy.float32)).shape == (1, 4, 384);"
        "print(runtime.name, reason, sorted({'torch', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    clean = {name: value for name, value in os.environ.items() if name not in {"DEVICE", "RUNTIME"}}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**clean, "DEVICE": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "openvino None []"


@pytest.mark.slow
@pytest.mark.parametrize("runtime_name", ["auto", "torch"])
def test_cuda_asked_for_in_vain_runs_on_the_cpu_and_says_why(weights, monkeypatch, runtime_name):
    monkeypatch.setattr(runtimes, "_nvidia_driver_sees_a_gpu", lambda: False)
    opened, reason = open_runtime(Settings(device="cuda", runtime=runtime_name, input_size=28), weights)
    assert opened.device == "cpu"
    assert opened.name == ("torch" if runtime_name == "torch" else "openvino")
    assert reason is not None
    assert "CUDA" in reason
    assert "CPU" in reason


@pytest.mark.slow
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_cpu_that_was_allowed_needs_no_reason(weights, monkeypatch, device):
    monkeypatch.setattr(runtimes, "_nvidia_driver_sees_a_gpu", lambda: False)
    opened, reason = open_runtime(Settings(device=device, input_size=28), weights)
    assert (opened.name, opened.device, reason) == ("openvino", "cpu", None)


def test_runtime_openvino_on_device_cuda_says_that_openvino_runs_on_cpus(weights, monkeypatch):
    monkeypatch.setattr(runtimes, "_nvidia_driver_sees_a_gpu", lambda: True)
    opened, reason = open_runtime(Settings(device="cuda", runtime="openvino", input_size=28), weights)
    assert opened.name == "openvino"
    assert reason is not None
    assert "RUNTIME=openvino" in reason


@pytest.mark.parametrize("runtime_name", ["auto", "torch"])
def test_missing_torch_is_a_config_error_that_says_how_to_install_it(weights, monkeypatch, runtime_name):
    """The runtime is asked for, or needed by the model, and torch is not installed."""
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    settings = Settings(model_name="vit_x", weights=weights.path, weights_sha256=weights.sha256, runtime=runtime_name)
    with pytest.raises(ConfigError, match=r"requirements-torch\.txt"):
        open_runtime(settings, weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_name", "input_size"),
    [
        ("no_such_model", 448),
        ("resnet18", 448),  # no vision transformer
        ("vit_base_patch14_dinov2.lvd142m", 448),  # not the model of these weights
        (DEFAULT_MODEL, 450),  # not a multiple of its patches
    ],
)
def test_a_model_that_cannot_be_built_is_a_config_error_that_names_it(weights, model_name, input_size):
    with pytest.raises(ConfigError, match=model_name):
        TorchRuntime(model_name, weights.path, input_size, "cpu")


@pytest.mark.slow
def test_torch_weights_are_frozen(weights):
    runtime = TorchRuntime(DEFAULT_MODEL, weights.path, 28, "cpu")
    model = runtime._model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def numbered_tokens(prefix: int, n_patches: int) -> torch.Tensor:
    """[2, prefix + n_patches, 3]: prefix tokens are negative, patch tokens count from 0."""
    numbers = torch.arange(-prefix, n_patches, dtype=torch.float32)
    return numbers[None, :, None].expand(2, -1, 3)


@pytest.mark.parametrize("prefix", [0, 1, 5], ids=["no prefix", "class token", "class token and four registers"])
@pytest.mark.parametrize("grid_hw", [(2, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tokens: tokens,
        lambda tokens: {"x_norm_clstoken": tokens[:, 0], "x_norm_patchtokens": tokens, "x_prenorm": tokens + 100},
        lambda tokens: {"pooled": tokens[:, 0], "features": tokens, "masks": None},
    ],
    ids=["tensor", "dict as of Meta", "any dict"],
)
def test_patch_tokens_are_found_behind_their_prefix_in_a_tensor_or_a_dict(prefix, grid_hw, wrap):
    n_patches = grid_hw[0] * grid_hw[1]
    selected = select_patch_tokens(wrap(numbered_tokens(prefix, n_patches)), grid_hw)
    assert selected.shape == (2, n_patches, 3)
    assert selected[0, :, 0].tolist() == list(range(n_patches))


@pytest.mark.parametrize(
    "output",
    [
        numbered_tokens(1, 14),  # 15 tokens for 16 patches
        torch.zeros(2, 384),  # pooled
        torch.zeros(2, 384, 4, 4),  # a map of a convolutional network
        {"x_norm_patchtokens": numbered_tokens(0, 9)},
        {"pooled": torch.zeros(2, 384)},
        {},
    ],
    ids=["too few tokens", "pooled tensor", "map", "too few in a dict", "pooled dict", "empty dict"],
)
def test_output_without_the_patch_tokens_is_a_config_error(output):
    with pytest.raises(ConfigError, match="16 patch tokens"):
        select_patch_tokens(output, (4, 4))
