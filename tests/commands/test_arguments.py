"""Arguments follow the rules of HTTP."""

import pytest

from backend.service.inspection import InspectionService
from tests.commands.parts import ROI


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["infer", "", "Pattern", "--mm-per-px", "1", "parts"], "ROLE: must not be empty"),
        (["fit", "A", "x" * 129, "--mm-per-px", "1", "parts"], "ROI: must have at most 128 characters"),
        (["infer", "A", "B", "--mm-per-px", "0", "parts"], "--mm-per-px: must be at least 0.000001"),
        (["infer", "A", "B", "--mm-per-px", "nan", "parts"], "--mm-per-px: must be a number, and neither"),
        (["infer", "A", "B", "--mm-per-px", "wide", "parts"], "--mm-per-px: must be a number"),
        (["infer", *ROI, "parts", "--shape", '{"kind":"oval"}'], "shape: "),
        (["infer", *ROI, "parts", "--shape", '{"kind":"circle","cx":1,"cy":1,"r":-1}'], "shape: circle.r: "),
        (["infer", *ROI, "parts", "--out", "r.xml"], "r.xml: the extension names the format; use .jsonl or .csv"),
        (["infer", *ROI, "parts", "--heatmaps", "parts"], "give --heatmaps another folder"),
        (["infer", *ROI, "parts", "missing"], "missing: no such file or folder"),
        (
            ["calibrate", *ROI, "--ok", "parts", "--score-percentile", "0"],
            "--score-percentile: must be above 0",
        ),
        (["calibrate", *ROI, "--ok", "parts", "--area-mm2-thr", "-1"], "--area-mm2-thr: must be at least 0"),
        (["calibrate", *ROI, "--ok", "parts", "--shape", "{"], "shape: "),
        (["fit", "é" * 100, "B", "--mm-per-px", "1", "parts"], "nor longer than 240 bytes encoded"),
    ],
)
def test_arguments_follow_http_rules_and_are_refused_in_one_sentence(run, monkeypatch, arguments, says):
    """The refusal comes before the network is loaded, except for ids that only the store knows to be too long."""
    if "é" not in arguments[1]:  # the store knows that limit
        monkeypatch.setattr(InspectionService, "open", lambda _settings: pytest.fail("the network was loaded"))
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    n_folders_said = 3 if "é" in arguments[1] else 0
    assert err.count("\n") == n_folders_said + 1
