"""Which event loop serves, and how many connections it can watch."""

import asyncio
import importlib
import sys

import uvicorn

from backend.api.connections import bounded
from backend.commands.serve import event_loop
from backend.common import machine


def test_windows_is_served_by_a_loop_that_outlives_reset_connections(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    loop = event_loop()
    monkeypatch.undo()
    assert uvicorn.Config("backend.app:app", loop=loop).get_loop_factory() is asyncio.SelectorEventLoop
    assert event_loop() == ("asyncio:SelectorEventLoop" if sys.platform == "win32" else "auto")


def test_connections_on_windows_are_fewer_than_its_loop_can_watch(monkeypatch):
    """There is no module `resource`, and `select` watches 512 sockets."""
    load = importlib.import_module

    def without_resource(name, *arguments):
        if name == "resource":
            raise ImportError(name)
        return load(name, *arguments)

    monkeypatch.setattr(machine.importlib, "import_module", without_resource)
    assert machine.raise_open_files() == 512
    assert bounded(1).max_connections == 256
