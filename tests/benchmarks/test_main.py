"""Every benchmark is run by ``make bench``, or its list names it."""

import re
from pathlib import Path

import pytest

from benchmarks import __main__ as bench

SCRIPTS = [
    path.stem
    for path in Path(bench.__file__).parent.glob("[a-z]*.py")
    if 'if __name__ == "__main__"' in path.read_text()
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_is_run_by_make_bench_or_listed(name):
    assert hasattr(bench, name) or re.search(rf"^- ``{name}``: ", bench.__doc__ or "", re.MULTILINE)
