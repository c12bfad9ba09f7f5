"""Who keeps models in a folder neither imports nor needs the client of object stores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend.common.config import Settings
from backend.common.errors import ConfigError
from backend.service import stores

ROOT = Path(__file__).parents[1]
_PROGRAM = """
import sys
sys.modules["obstore"] = None  # as if it were not installed
import backend.app, backend.commands.main, backend.commands.models, backend.service.stores
backend.commands.main._parser()
loaded = [name for name, module in sys.modules.items() if module is not None]
print([name for name in loaded if name.startswith(("obstore", "backend.object_store"))])
"""


@pytest.mark.slow
def test_service_and_commands_import_nothing_of_object_stores():
    environment = {name: value for name, value in os.environ.items() if name != "MODELS_URL"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_store_without_its_client_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    for name in [name for name in sys.modules if name.startswith("backend.object_store")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install -r requirements/cluster\.txt"):
        stores.open_stores(Settings(models_url="s3://factory/models"))
