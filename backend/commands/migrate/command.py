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
The command copies stored images with their metadata, keeps old calibrations as history, and takes over the locked
scales of recipes. It refits every ROI that has at least MIN_OK_SAMPLES stored good images. Old models have features of
another kind, so they are never copied or compared. Old files stay unchanged, and OLD_MODELS_DIR may be MODELS_DIR
itself. If you give the same command again, it resumes where it stopped.

It prints a report of what was found and what was done. The exit status is 1 if anything failed."""
_EPILOG = """\
examples:
  %(prog)s old-models/ --dry-run
  %(prog)s old-models/
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "migrate", run, "migrate the models folder of an older backend into MODELS_DIR", _TEXT, _EPILOG
    )
    parser.add_argument("old", metavar="OLD_MODELS_DIR", type=Path, help="models folder of the older backend")
    parser.add_argument("--dry-run", action="store_true", help="write nothing, and only report what would be done")
    parser.add_argument("--no-refit", action="store_true", help="do not refit, and do not load the network")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Migrate; the exit status is 1 if anything failed."""
    if settings.models_url is not None:
        raise ConfigError(
            "migrate writes into a folder: unset MODELS_URL, and copy the folder into the store afterwards with "
            f"`{PROGRAM} models push`"
        )
    if migrate(settings, options.old, dry_run=options.dry_run, refit=not options.no_refit):
        sys.exit(1)
