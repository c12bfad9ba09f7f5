"""The command line: ``roi-anomaly COMMAND``, or ``python -m backend COMMAND``; see `_parser`."""

import argparse
import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import FrameType

from tqdm.contrib.logging import logging_redirect_tqdm

from backend import __version__
from backend.commands.console import say
from backend.commands.parser import Parser
from backend.common.config import Settings, load_settings
from backend.common.errors import BackendError, InvalidRequest, StorageError, WeightsError
from backend.common.logs import configure_logging, tell_misspelt_settings
from backend.common.machine import STOP_SIGNAL
from backend.common.program import PROGRAM

_ABOUT = "Visual anomaly detection: a service, and its commands for whole folders of images."
_ABOUT_EPILOG = """\
Settings are environment variables (MODELS_DIR, DEVICE, WEIGHTS, ...); docs/settings.md lists them all.
`%(prog)s COMMAND --help` describes a command.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command of the command line.

    The exit status is 0; 1: it failed, or an image did; 2: its arguments are wrong; 130, 143: Ctrl-C, SIGTERM.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # Windows has code pages without ² or the letters of a path
        sys.stdout.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        parser = _parser()
        if not given:
            parser.print_help(sys.stderr)
            sys.exit(2)
        options = parser.parse_args(given)
        settings = load_settings()
        if options.command in ("serve", "weights"):
            configure_logging(settings.log_level, settings.log_format)
            options.run(settings, options)
        else:
            # Beside a progress bar what a log says at level info is noise, unless it was asked for.
            level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
            configure_logging(level, settings.log_format)
            tell_misspelt_settings()
            with logging_redirect_tqdm(), _stop_signal_stops(), _files_by_name():
                options.run(settings, options)
    except InvalidRequest as exc:
        say(str(exc))
        sys.exit(2)
    except WeightsError as exc:
        say(f"{exc} (WEIGHTS={settings.weights})" if settings.weights else str(exc))
        sys.exit(1)
    except BackendError as exc:
        say(f"{exc}{_which_folder(settings, options.command)}" if "the models folder" in str(exc) else str(exc))
        sys.exit(1)
    except KeyboardInterrupt as exc:
        sys.exit(_status_of(exc))
    except ImportError as exc:
        # A library in C makes this of the signal where it is being loaded.
        if not isinstance(exc.__cause__ or exc.__context__, KeyboardInterrupt):
            raise
        sys.exit(_status_of(exc.__cause__ or exc.__context__))


def _which_folder(settings: Settings, command: str) -> str:
    """The models folder in messages."""
    if settings.models_url is None or command == "models":
        return f" (MODELS_DIR={settings.models_dir.resolve()})"
    return f" (MODELS_URL is set: that is the local copy in {tempfile.gettempdir()})"


def _status_of(stop: BaseException | None) -> int:
    return 143 if isinstance(stop, _Terminated) else 130


class _Terminated(KeyboardInterrupt):
    """SIGTERM (on Windows Ctrl-Break), which stops a bulk command as cleanly as Ctrl-C."""


@contextlib.contextmanager
def _stop_signal_stops() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(STOP_SIGNAL, stop)
    try:
        yield
    finally:
        signal.signal(STOP_SIGNAL, before)


@contextlib.contextmanager
def _files_by_name() -> Iterator[None]:
    """Name the file or folder that cannot be read or written, if no inner handler did.

    Raises:
        StorageError: there is such a file.
    """
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            raise
        raise StorageError(f"{os.fsdecode(exc.filename)}: {exc.strerror}") from exc


def _parser() -> argparse.ArgumentParser:
    # These take a second to import: Ctrl-C ends that as it ends the rest.
    from backend.commands import calibrate, doctor, feedback, fit, infer, models, serve, versions
    from backend.commands.arguments import HelpFormatter
    from backend.commands.cluster import command as cluster
    from backend.commands.evaluate import command as evaluate
    from backend.commands.inspection import command as inspection
    from backend.commands.migrate import command as migrate
    from backend.commands.watch import command as watch

    parser = Parser(
        prog=PROGRAM,
        description=_ABOUT,
        epilog=_ABOUT_EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (
        serve,
        inspection,
        fit,
        calibrate,
        infer,
        watch,
        feedback,
        evaluate,
        versions,
        migrate,
        models,
        cluster,
        doctor,
    ):
        command.add_to(commands)
    return parser
