"""The extractor that runs: how it is loaded, and which models it can be compared with."""

import time
from typing import Any

import structlog

from backend.common.config import Settings
from backend.common.resources import limit_threads, usable_cores
from backend.features import DinoV2Features
from backend.network.runtimes import open_runtime
from backend.network.weights import find_weights
from backend.storage import FittedRoi

log: Any = structlog.get_logger(__name__)


def open_features(settings: Settings) -> tuple[DinoV2Features, str | None]:
    """Find the weights and load the network.

    Returns:
        The extractor, and why it does not run where ``DEVICE`` asked for, if so.

    Raises:
        ConfigError: no verified weights, or a runtime that is not installed.
    """
    weights = find_weights(settings)
    start = time.perf_counter()
    threads = settings.threads or usable_cores()
    runtime, reason = open_runtime(settings, weights, threads)
    limit_threads(threads)
    features = DinoV2Features(runtime, settings.model_name, weights.sha256, settings.input_size)
    log.info(
        "extractor.loaded",
        model=settings.model_name,
        runtime=runtime.name,
        device=runtime.device,
        precision=runtime.precision,
        threads=threads,
        token_shape=list(runtime.grid_hw),
        weights=weights.source,
        seconds=round(time.perf_counter() - start, 2),
        **({"reason": reason} if reason else {}),
    )
    return features, reason


def differences_from(features: DinoV2Features, fitted: FittedRoi) -> list[str]:
    """What keeps an extractor from being compared with a model, in words; empty where nothing does."""
    running = {"block": "last", **features.identity.as_dict()}  # a memory bank that names no block is of the last one
    recorded = fitted.metadata.get("extractor")
    built_by = {"block": "last", **(recorded if isinstance(recorded, dict) else {})}
    differences = [
        f"{name} {built_by[name]!r} instead of {value!r}"
        for name, value in running.items()
        if name in built_by and built_by[name] != value
    ]
    dim = fitted.memory.embeddings.shape[1]
    if dim != features.dim:
        differences.append(f"{dim} numbers per embedding instead of {features.dim}")
    if fitted.memory.token_hw != features.token_hw:
        differences.append(f"a token grid of {fitted.memory.token_hw} instead of {features.token_hw}")
    return differences
