"""Help describes every command."""

import pytest


@pytest.mark.parametrize("command", [[], ["serve"], ["weights"], ["fit"], ["calibrate"], ["infer"], ["migrate"]])
def test_help_describes_every_command(run, command):
    status, out, _ = run(*command, "--help")
    assert status == 0
    assert f"usage: roi-anomaly {' '.join(command)}".rstrip() in out
    if command and command[0] in ("fit", "calibrate", "infer"):
        assert f"roi-anomaly {command[0]} Master1 Pattern" in out, "an example"
