import json

import pytest

from backend.app import create_app
from backend.common.config import Settings, misspelt_settings


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SCORE_PERCENTIL", "SCORE_PERCENTILE"),
        ("score_percentil", "SCORE_PERCENTILE"),
        ("SCORE_PRECENTILE", "SCORE_PERCENTILE"),
        ("AREA_MM2_THRES", "AREA_MM2_THR"),
        ("MODEL_DIR", "MODELS_DIR"),
        ("CORESETRATE", "CORESET_RATE"),
        ("MAX_FIT", "MAX_FITS"),
    ],
)
def test_a_variable_within_two_edits_of_a_setting_is_misspelt(name, meant):
    assert misspelt_settings([name]) == {name: meant}


@pytest.mark.parametrize(
    "name",
    ["SCORE_PERCENTILE", "score_percentile", "HOTS", "PORTS", "DEVICES", "SCORE_PERCEN", "PATH", "MAX_FILES", ""],
)
def test_settings_short_names_and_others_are_not(name):
    assert misspelt_settings([name]) == {}


def test_no_setting_is_taken_for_another_and_each_is_found():
    names = [name.upper() for name in Settings.model_fields]
    assert misspelt_settings(names) == {}
    long = {f"{name}X": name for name in names if len(name) >= 8}
    assert misspelt_settings(long) == long


def told_at_the_start_with(settings, capfd):
    create_app(settings)
    entries = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    return {entry["event"]: entry for entry in entries if entry["event"].startswith("setting.")}


def test_the_service_names_misspelt_and_doubtful_settings_at_its_start(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("SCORE_PERCENTIL", "98")
    told = told_at_the_start_with(Settings(models_dir=tmp_path, score_percentile=0.99, log_format="json"), capfd)
    assert told["setting.unknown"]["name"] == "SCORE_PERCENTIL"
    assert "SCORE_PERCENTILE" in told["setting.unknown"]["hint"]
    assert told["setting.doubtful"]["reason"].startswith("SCORE_PERCENTILE 0.99 is read as percent")
    assert {entry["level"] for entry in told.values()} == {"warning"}


def test_the_service_says_nothing_of_ordinary_settings(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("MODELS_DIR", str(tmp_path))
    assert told_at_the_start_with(Settings(log_format="json"), capfd) == {}
