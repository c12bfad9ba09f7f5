"""The engine in this process as the one who judges: what it says where something is missing."""

from types import SimpleNamespace

import pytest

from backend.commands.watch.engine_judge import EngineJudge
from backend.common.config import Settings
from backend.common.errors import LayoutNotFound
from backend.disk.gui_layouts import GuiLayoutStore


@pytest.mark.parametrize(("url", "where"), [(None, "in MODELS_DIR=models:"), ("s3://factory/models", "in MODELS_URL:")])
def test_layout_that_is_missing_is_missed_where_it_was_looked_for(tmp_path, url, where):
    service = SimpleNamespace(settings=Settings(models_url=url), layouts=GuiLayoutStore(tmp_path))
    with pytest.raises(LayoutNotFound) as missing:
        EngineJudge(service).layout("line 9")
    assert where in str(missing.value)
