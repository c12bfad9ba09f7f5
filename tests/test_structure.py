"""tests/ mirrors backend/, and no test module leans on another."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
BACKEND = TESTS.parent / "backend"
# What drives whole servers, or tests what stands beside backend/.
BESIDE = {"benchmarks", "console", "fresh_clone", "harness", "integration", "soak"}


def imported(file):
    """The modules that a file may import, in full: what `from` names may be a module, too."""
    here = ("tests", *file.relative_to(TESTS).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (module, *(f"{module}.{name.name}" for name in node.names))


def is_test_module(name):
    path = TESTS.parent.joinpath(*name.split("."))
    return path.name.startswith("test_") and path.is_relative_to(TESTS) and path.with_suffix(".py").is_file()


def test_no_test_module_is_imported():
    found = {file: [name for name in imported(file) if is_test_module(name)] for file in sorted(TESTS.rglob("*.py"))}
    assert {str(file.relative_to(TESTS)): names for file, names in found.items() if names} == {}


def test_every_folder_mirrors_one_of_the_backend():
    rooms = [file.parent.relative_to(TESTS) for file in TESTS.rglob("__init__.py")]
    mirrored = [room for room in rooms if room.parts and room.parts[0] not in BESIDE]
    assert mirrored
    assert [str(room) for room in mirrored if not (BACKEND / room).is_dir()] == []


def test_names_of_tests_are_short_enough_to_be_read_at_a_glance():
    names = [
        node.name
        for file in TESTS.rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert [name for name in names if len(name) > 70] == []
