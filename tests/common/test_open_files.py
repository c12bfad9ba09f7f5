"""Files that somebody has open, as on Windows: they cannot be replaced, renamed or deleted until they are closed."""

import ast
import errno
import os
import threading
import time
from pathlib import Path

import pytest

from backend.common import files
from backend.common.files import (
    delete,
    delete_folder,
    open_to_read,
    read_small,
    rename_on_windows,
    replace,
    write_atomic,
)

pytestmark = pytest.mark.usefixtures("windows_files")


@pytest.fixture
def held(tmp_path):
    """A file that is open, and is closed 50 ms after the test asks for it; its path, its close."""
    path = tmp_path / "held"
    path.write_bytes(b"before")
    file = path.open("rb")
    closing = threading.Timer(0.05, file.close)

    def close_soon():
        closing.start()
        return time.monotonic() + 0.05

    yield path, close_soon
    file.close()
    closing.cancel()


def test_file_that_is_open_is_replaced_once_it_is_closed(held):
    path, close_soon = held
    with pytest.raises(PermissionError):
        path.unlink()  # or the test would show nothing
    closed_at = close_soon()
    write_atomic({path: b"after"})
    assert time.monotonic() >= closed_at - 0.01
    assert path.read_bytes() == b"after"
    assert [file.name for file in path.parent.iterdir()] == ["held"]


@pytest.mark.parametrize("rename", [replace, rename_on_windows])
def test_file_that_is_open_is_renamed_once_it_is_closed(held, rename):
    path, close_soon = held
    close_soon()
    rename(path, path.with_name("other"))
    assert [file.name for file in path.parent.iterdir()] == ["other"]


def test_file_that_is_open_is_deleted_once_it_is_closed(held):
    path, close_soon = held
    close_soon()
    delete(path)
    assert not path.exists()
    delete(path)  # nothing is there


def test_folder_with_an_open_file_is_renamed_and_deleted_once_it_is_closed(tmp_path, held):
    path, close_soon = held
    folder = tmp_path / "version"
    os.link(path, tmp_path / "kept")
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    file = (folder / "a").open("rb")
    threading.Timer(0.05, file.close).start()
    replace(folder, tmp_path / "renamed")
    assert file.closed
    os.link(path, tmp_path / "renamed" / "linked")  # another name of a file that is open
    close_soon()
    delete_folder(tmp_path / "renamed")
    assert not (tmp_path / "renamed").exists()
    assert (tmp_path / "kept").read_bytes() == b"before"


def test_file_that_stays_open_is_left_as_it_was_and_named(held, monkeypatch):
    path, _ = held
    monkeypatch.setattr(files, "_REPLACE_PATIENCE_S", 0.05)
    with pytest.raises(PermissionError):
        write_atomic({path: b"after"})
    assert path.read_bytes() == b"before"
    assert [file.name for file in path.parent.iterdir()] == ["held"], "nothing is left behind"


def test_file_that_is_about_to_be_deleted_is_opened_once_it_may_be(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    opened, refusals = Path.open, iter(range(3))

    def refusing_thrice(path, *mode):
        if next(refusals, None) is not None:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *mode)

    monkeypatch.setattr(Path, "open", refusing_thrice)
    assert read_small(tmp_path / "a", 100) == b"content"
    assert next(refusals, None) is None, "it was asked more than three times"


def test_file_that_nobody_may_read_is_not_waited_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_OPEN_PATIENCE_S", 0.05)

    def refusing(*_arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refusing)
    asked = iter(range(1000))
    monkeypatch.setattr(files.time, "monotonic", lambda: next(asked) / 100)
    with pytest.raises(PermissionError):
        open_to_read(tmp_path / "a")
    assert next(asked) == 7, "it was given up after 0.05 s: the clock is asked once before, and once a try"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, "gone")])
def test_what_does_not_pass_is_not_tried_again(error, tmp_path, monkeypatch):
    calls = []

    def failing(*arguments):
        calls.append(arguments)
        raise error

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match=error.strerror):
        replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


def test_what_other_systems_refuse_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WINDOWS", False)
    calls = []

    def refusing(*arguments):
        calls.append(arguments)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refusing)
    with pytest.raises(PermissionError):
        replace(tmp_path / "a", tmp_path / "b")
    assert len(calls) == 1


def test_files_that_others_may_have_open_are_handled_with_patience():
    """In what reads and writes MODELS_DIR while others do; a list of runs that is asked for again need not wait."""
    backend = Path(files.__file__).parents[1]
    paths = [backend / "storage.py", *(backend / "disk").glob("*.py"), *(backend / "service").glob("*.py")]
    at_once = {
        (path.name, node.func.attr)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if node.func.attr in {"read_bytes", "read_text", "unlink", "rename", "rmtree"} or loads_by_path(node)
    }
    assert at_once == {("progress.py", "unlink")}


def loads_by_path(call):
    """Whether numpy is to open a file itself."""
    return ast.unparse(call.func) == "np.load" and ast.unparse(call.args[0]) != "file"
