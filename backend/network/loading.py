"""The running extractor: how it is loaded, and which models it can be compared with."""

import time
from typing import Any

import structlog

from backend.common.config import Settings
from backend.common.machine import limit_threads, usable_cores
from backend.common.profiles import CONTRACT, RECOMMENDED, RECOMMENDED_BLOCKS, ProfileName
from backend.features import DinoV2Features
from backend.network.runtimes import open_runtime
from backend.network.weights import find_weights

log: Any = structlog.get_logger(__name__)


def open_features(settings: Settings, profile: ProfileName = CONTRACT) -> tuple[DinoV2Features, str | None]:
    """Find the weights and load the network of a profile.

    Returns:
        The extractor, and what `open_runtime` says of it.

    Raises:
        ConfigError: no verified weights, or a runtime that is not installed.
    """
    weights = find_weights(settings)
    start = time.perf_counter()
    threads = settings.threads or usable_cores()
    blocks = RECOMMENDED_BLOCKS if profile == RECOMMENDED else None
    runtime, reason = open_runtime(settings, weights, threads, blocks)
    limit_threads(threads)
    features = DinoV2Features(runtime, settings.model_name, weights.sha256, settings.input_size)
    log.info(
        "extractor.loaded",
        profile=profile,
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
