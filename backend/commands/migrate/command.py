"""``migrate`` on the command line."""

import argparse
import sys
from pathlib import Path

from backend.commands.arguments import Commands, add_command
from backend.commands.migrate.migration import migrate
from backend.common.config import Settings
from backend.common.errors import ConfigError
from backend.common.program import PROGRAM

_TEXT = """
Copies stored images with their metadata, keeps old calibrations as history, takes over what recipes are locked to, and
fits anew, from stored images, every ROI that has MIN_OK_SAMPLES good ones. Old models hold features of another kind:
they are never copied or compared. Old files stay as they are, and OLD_MODELS_DIR may be MODELS_DIR itself. Given again,
the command leaves what is done and goes on where it stopped.

Prints a report: what was found, and what was done. The exit status is 1 if anything failed."""
_EPILOG = """\
examples:
  %(prog)s old-models/ --dry-run
  %(prog)s old-models/
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "migrate", run, "bring what an older backend stored into MODELS_DIR", _TEXT, _EPILOG)
    parser.add_argument("old", metavar="OLD_MODELS_DIR", type=Path, help="models folder of the older backend")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, and report what would be done")
    parser.add_argument("--no-refit", action="store_true", help="fit nothing anew, and load no network")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Migrate; the exit status is 1 if anything failed."""
    if settings.models_url is not None:
        raise ConfigError(
            "migrate writes into a folder: unset MODELS_URL, and bring the folder into the store afterwards, with "
            f"`{PROGRAM} models push`"
        )
    if migrate(settings, options.old, dry_run=options.dry_run, refit=not options.no_refit):
        sys.exit(1)
