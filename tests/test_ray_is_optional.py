"""Who serves from one machine neither imports nor needs Ray, and who has it reports nothing with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.cluster.local import check_cores
from backend.cluster.ray_library import close, import_ray
from backend.common.errors import ConfigError

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import sys
sys.modules["ray"] = sys.modules["pyarrow"] = None  # as if they were not installed
import backend.app, backend.commands.main, backend.service.stores
backend.commands.main._parser()
loaded = [name for name, module in sys.modules.items() if module is not None]
print([name for name in loaded if name.startswith(("ray.", "pyarrow", "backend.cluster"))])
"""


@pytest.mark.slow
def test_service_and_commands_import_nothing_of_ray():
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_cluster_without_ray_says_what_to_install(monkeypatch, command_line):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.serve.schema", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "as before")
    with pytest.raises(ConfigError, match=r"pip install -r requirements/ray\.txt"):
        import_ray()
    assert (os.environ["RAY_USAGE_STATS_ENABLED"], os.environ["RAY_AUTH_MODE"]) == ("0", "token")
    status, _, err = command_line("cluster", "serve")
    assert status == 1
    assert "pip install -r requirements/ray.txt" in err


def test_nothing_is_reported_whatever_the_environment_says():
    environment = {"RAY_USAGE_STATS_ENABLED": "1", "RAY_AUTH_MODE": "disabled", "RAY_DEDUP_LOGS": "1"}
    close(environment)
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["RAY_USAGE_STATS_REPORT_URL"].startswith("http://127.0.0.1:")
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_DEDUP_LOGS"] == "1", "what is no danger is the user's"


def test_cluster_that_is_too_small_is_an_error_and_no_wait():
    class Ray:
        def cluster_resources(self):
            return {"CPU": 2.0}

    check_cores(Ray(), 2)
    with pytest.raises(ConfigError, match="need 3 cores together, but the cluster has 2"):
        check_cores(Ray(), 3)
