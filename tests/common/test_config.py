"""Settings as the environment gives them: defaults, limits, and what is said of bad values."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from backend.common.config import DEFAULT_MODEL, Settings, load_settings
from backend.common.errors import ConfigError

OWN_MODEL = {"WEIGHTS": "/w/own.safetensors", "WEIGHTS_SHA256": "0f" * 32}

# For every variable: a text that a user may set, and what it means. None is the default.
TEXTS = {
    "model_name": ("vit_base_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m"),
    "device": ("CPU", "cpu"),
    "runtime": ("torch", "torch"),
    "input_size": ("336", 336),
    "block": ("10", 10),
    "coreset_rate": ("0.05", 0.05),
    "coreset_max": ("30000", 30000),
    "profile": ("recommended", "recommended"),
    "detail": ("3", 3),
    "models_dir": ("/srv/models", Path("/srv/models")),
    "weights": ("w.safetensors", Path("w.safetensors")),
    "weights_sha256": ("0f" * 32, "0f" * 32),
    "weights_cache": ("/var/cache/w", Path("/var/cache/w")),
    "models_url": ("s3://factory/models", "s3://factory/models"),
    "models_url_insecure": ("1", True),
    "models_fresh_s": ("2.5", 2.5),
    "score_percentile": ("99.9", 99.9),
    "blur_sigma": ("0", 0.0),
    "area_mm2_thr": ("2.5", 2.5),
    "drift_reject_rate": ("0.05", 0.05),
    "keep_versions": ("0", 0),
    "history": ("100", 100),
    "min_ok_samples": ("3", 3),
    "max_file_mb": ("8.5", 8.5),
    "max_request_mb": ("100", 100.0),
    "max_json_mb": ("8", 8.0),
    "body_timeout_s": ("2.5", 2.5),
    "max_files": ("10", 10),
    "max_pixels": ("1000000", 1_000_000),
    "max_queue": ("4", 4),
    "cors_origins": ("http://a:1, https://b ,", ("http://a:1", "https://b")),
    "api_keys": ("a-key-of-the-line-1,another-key-of-it", SecretStr("a-key-of-the-line-1,another-key-of-it")),
    "infer_keys": ("a-key-of-the-line-2", SecretStr("a-key-of-the-line-2")),
    "api_keys_file": ("/run/secrets/keys", Path("/run/secrets/keys")),
    "rate_limit_per_s": ("2.5", 2.5),
    "allowed_hosts": ("a.example, *.b.example,[::1],", ("a.example", "*.b.example", "[::1]")),
    "precision": ("BFloat16", "bfloat16"),
    "threads": ("3", 3),
    "max_fits": ("7", 7),
    "log_level": ("Debug", "debug"),
    "log_format": ("JSON", "json"),
    "trace": ("false", False),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("9000", 9000),
}

BAD_TEXTS = {
    "device": ["gpu", "cuda:0", "1"],
    "runtime": ["onnx"],
    "precision": ["int4", "bf16"],
    "threads": ["-1", "1.5", "all", "9999"],
    "input_size": ["13", "0", "-448", "2045", "448.5", "big", "nan"],
    "block": ["0", "-1", "13", "10.5", "last"],
    "profile": ["best", "Recommended"],
    "detail": ["0", "6", "1.5", "all", "Auto"],
    "coreset_rate": ["0", "-0.1", "1.01", "2%", "nan", "inf"],
    "coreset_max": ["0", "-1", "1.5", "many", "1" + 400 * "0"],
    "weights_sha256": ["abc", "0" * 63, "0" * 65, "g" * 64],
    "models_url_insecure": ["maybe", "2"],
    "models_fresh_s": ["-1", "nan", "inf", "3601", "10s"],
    "score_percentile": ["0", "-1", "100.1", "nan", "p99"],
    "blur_sigma": ["-0.1", "nan", "inf", "1e9"],
    "area_mm2_thr": ["-1", "nan", "inf"],
    "drift_reject_rate": ["0", "1", "-0.1", "nan", "10%"],
    "keep_versions": ["-1", "1.5", "1001", "all"],
    "history": ["-1", "1.5", "100001", "all"],
    "min_ok_samples": ["0", "-1", "1.5"],
    "max_file_mb": ["0", "-1", "nan", "inf", "64MB"],
    "max_request_mb": ["0", "nan", "inf", "-inf"],
    "max_json_mb": ["0", "nan", "-1"],
    "body_timeout_s": ["0", "nan", "inf", "1h"],
    "max_files": ["0", "-1", "1.5"],
    "max_pixels": ["0", "1e6x", "-1"],
    "max_queue": ["0", "-1", "many", "100000"],
    "max_fits": ["0", "-1", "101"],
    "rate_limit_per_s": ["-1", "nan", "inf", "2/s"],
    "allowed_hosts": ["a.example:8000", "http://a.example", "*a.example", "a.*", "a b", "::1"],
    "log_level": ["verbose"],
    "log_format": ["xml"],
    "trace": ["maybe", "2"],
    "port": ["-1", "65536", "http"],
}
# Any text is one: paths are judged when they are used, and keys by `backend.api.api_keys`.
ANY_TEXT = {"models_dir", "weights", "weights_cache", "cors_origins", "host", "api_keys", "infer_keys", "api_keys_file"}
ANY_TEXT |= {"models_url"}  # judged when the store is opened, so that no message repeats credentials in it


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_read_from_the_variable_of_its_name_in_capitals(name, monkeypatch):
    text, meaning = TEXTS[name]
    if name == "model_name":
        for variable, value in OWN_MODEL.items():
            monkeypatch.setenv(variable, value)
    assert getattr(load_settings(), name) != meaning
    monkeypatch.setenv(name.upper(), text)
    read = getattr(load_settings(), name)
    assert read == meaning
    assert type(read) is type(meaning)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_the_default(name, monkeypatch):
    default = getattr(load_settings(), name)
    monkeypatch.setenv(name.upper(), "")
    assert getattr(load_settings(), name) == default


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD_TEXTS.items() for text in texts])
def test_unusable_value_is_a_config_error_that_names_the_variable(name, text, monkeypatch):
    monkeypatch.setenv(name.upper(), text)
    with pytest.raises(ConfigError, match=rf"\b{name.upper()}\b") as caught:
        load_settings()
    assert text in str(caught.value)


def test_a_models_folder_that_is_a_file_is_a_config_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    assert load_settings().models_dir == tmp_path
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MODELS_DIR", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"MODELS_DIR.*file"):
        load_settings()


def test_no_setting_is_forgotten_here():
    assert BAD_TEXTS.keys() | ANY_TEXT | {"model_name"} == set(Settings.model_fields)


def test_all_bad_values_are_named_at_once(monkeypatch):
    monkeypatch.setenv("INPUT_SIZE", "big")
    monkeypatch.setenv("DEVICE", "gpu")
    with pytest.raises(ConfigError, match=r"INPUT_SIZE") as caught:
        load_settings()
    assert "DEVICE" in str(caught.value)


def test_the_defaults_are_the_playbooks():
    settings = load_settings()
    assert settings.model_name == DEFAULT_MODEL == "vit_small_patch14_dinov2.lvd142m"
    assert settings.device == "auto"
    assert settings.input_size == 448
    assert settings.coreset_rate == 0.02
    assert settings.models_dir == Path("models")
    assert settings.score_percentile == 99
    assert settings.blur_sigma == 1.0


def test_input_size_snaps_to_the_nearest_multiple_of_14(monkeypatch):
    multiples = range(14, 2045, 14)
    for size in range(14, 2045, 9):  # which gives every remainder
        monkeypatch.setenv("INPUT_SIZE", str(size))
        snapped = load_settings().input_size
        assert snapped in multiples
        assert abs(snapped - size) == min(abs(multiple - size) for multiple in multiples)


def test_the_default_model_needs_nothing_else(monkeypatch):
    monkeypatch.setenv("MODEL_NAME", DEFAULT_MODEL)
    monkeypatch.setenv("RUNTIME", "openvino")
    assert load_settings().model_name == DEFAULT_MODEL


@pytest.mark.parametrize("missing", OWN_MODEL)
def test_another_model_needs_its_weights_and_their_hash(missing, monkeypatch):
    monkeypatch.setenv("MODEL_NAME", "vit_base_patch14_dinov2.lvd142m")
    for variable, value in OWN_MODEL.items():
        monkeypatch.setenv(variable, value)
    load_settings()
    monkeypatch.delenv(missing)
    with pytest.raises(ConfigError, match=r"MODEL_NAME.*WEIGHTS and WEIGHTS_SHA256"):
        load_settings()


def test_openvino_serves_the_default_model_only(monkeypatch):
    monkeypatch.setenv("MODEL_NAME", "vit_base_patch14_dinov2.lvd142m")
    for variable, value in OWN_MODEL.items():
        monkeypatch.setenv(variable, value)
    for runtime in ("auto", "torch"):
        monkeypatch.setenv("RUNTIME", runtime)
        assert load_settings().runtime == runtime
    monkeypatch.setenv("RUNTIME", "openvino")
    with pytest.raises(ConfigError, match=r"RUNTIME=openvino.*MODEL_NAME"):
        load_settings()


def test_what_the_caller_gives_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("PORT", "9000")
    assert load_settings(port=9001).port == 9001


def test_settings_never_show_a_key(monkeypatch):
    for name in ("API_KEYS", "INFER_KEYS"):
        monkeypatch.setenv(name, "a-key-of-the-line")
    settings = load_settings()
    shown = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()]
    monkeypatch.setenv("MODEL_NAME", "another one without weights")
    with pytest.raises(ConfigError) as caught:
        load_settings()
    shown += [str(caught.value), str(caught.value.__cause__), repr(caught.value.__cause__)]
    assert not any("a-key-of-the-line" in text for text in shown)


def test_settings_do_not_change():
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.port = 1
