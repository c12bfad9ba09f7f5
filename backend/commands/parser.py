"""The parser of the command line: for an unknown argument, it suggests the probable one."""

import argparse
import difflib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from backend.common.config import Settings

_FOR_MORE_PATHS = {
    "calibrate": "give images of good parts with --ok, and of defective ones with --ng",
    "evaluate": "give one folder; for several data sets, give the folder that contains them",
}


class Parser(argparse.ArgumentParser):
    """Refuses arguments with a hint; the parsers of commands have the same class."""

    _given: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As in `argparse`; also keeps the given arguments for `error`."""
        self._given = [] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the usage, the error, and the probable argument; the exit status is 2."""
        hints = list(dict.fromkeys(self._hints()))
        command = next(iter(self._given), "")
        if not hints and message.startswith("unrecognized") and command in _FOR_MORE_PATHS:
            hints = [_FOR_MORE_PATHS[command]]
        argparse.ArgumentParser.error(self._commands().get(command, self), "\n".join([message, *hints]))

    def _hints(self) -> Iterator[str]:
        commands = self._commands()
        if not commands:
            yield from filter(None, map(self._about_option, self._given))
        elif self._given:
            first, *rest = self._given
            if first in commands:
                yield from filter(None, map(commands[first]._about_option, rest))
            elif close := difflib.get_close_matches(first, commands, n=1):
                yield f"{first!r} is not a command: did you mean {close[0]!r}?"

    def _about_option(self, argument: str) -> str | None:
        """The hint about an argument that looks like an option, but is unknown."""
        option = argument.partition("=")[0]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        if not option.startswith("--") or option in ("--", *known):
            return None
        setting = option[2:].replace("-", "_")
        if setting in Settings.model_fields:
            return f"{option} is a setting, not an option: set the environment variable {setting.upper()}"
        if close := difflib.get_close_matches(option.replace("_", "-"), known, n=1):
            return f"{option} is not an option: did you mean {close[0]}?"
        return f"{option} is not an option: --help lists them"

    def _commands(self) -> dict[str, "Parser"]:
        return {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)  # no other way tells them
            for name, parser in action.choices.items()
        }
