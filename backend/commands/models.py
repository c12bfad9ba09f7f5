"""``models``: copies MODELS_DIR to an object store and back, and maintains the store."""

import argparse
import json
import sys
from typing import Any

from backend.commands.arguments import Commands, add_command
from backend.commands.console import print_line, say
from backend.common.config import Settings
from backend.common.errors import ConfigError

_ACTIONS = ("push", "pull", "check", "gc")
_TEXT = """
push  copies MODELS_DIR into the store. The same ROIs, recipes and data sets in the store are replaced.
pull  copies the store into MODELS_DIR, as the files that the service keeps there. Files of the same ROI,
      recipe or data set that the store does not have are deleted. No service may use the folder meanwhile.
check reads everything in the store, and lists objects whose bytes have changed since they were stored.
gc    deletes objects that no model, data set or recipe uses any more, a day after they were written.

If a command is stopped, the same command resumes it. Each prints what was done as JSON; the exit status is 1 if
anything is wrong. Credentials are those of the AWS tools: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or
the role of the machine. AWS_ENDPOINT_URL is the address of a store other than AWS."""
_EPILOG = """\
examples:
  %(prog)s push s3://factory/models
  MODELS_DIR=/srv/restored %(prog)s pull s3://factory/models
  %(prog)s check s3://factory/models
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "models", run, "copy models to an object store and back, check and tidy it", _TEXT, _EPILOG
    )
    parser.add_argument("action", choices=_ACTIONS, help="see above")
    parser.add_argument("url", metavar="URL", help="s3://BUCKET/PREFIX")


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Run one of the four actions; the exit status is 1 if anything is wrong."""
    done = transfer(settings, options.action, options.url)
    print_line(json.dumps(done))
    if done["problems"]:
        sys.exit(1)


def transfer(settings: Settings, action: str, url: str) -> dict[str, Any]:
    """Run one of the four actions; returns what was done.

    Args:
        settings: with ``MODELS_DIR`` and ``MODELS_URL_INSECURE``.
        action: ``"push"``, ``"pull"``, ``"check"`` or ``"gc"``.
        url: of the store.

    Raises:
        ConfigError: the URL cannot be used, or the client of object stores is not installed.
        StorageError: the store or the folder cannot be used.
    """
    try:
        from backend.object_store import transfer as between  # here alone: others need no client of object stores
        from backend.object_store.opening import open_bucket
    except ModuleNotFoundError as exc:
        if exc.name != "obstore":
            raise
        raise ConfigError("this needs the client of object stores: pip install -r requirements/cluster.txt") from exc
    bucket = open_bucket(url, insecure=settings.models_url_insecure)
    if action == "push":
        if not settings.models_dir.is_dir():
            raise ConfigError(f"MODELS_DIR={settings.models_dir} does not exist: nothing was pushed")
        counts = between.push(settings.models_dir, bucket, say)
    elif action == "pull":
        counts = between.pull(bucket, settings.models_dir, say)
    elif action == "check":
        counts = between.check(bucket, say)
    else:
        counts = between.collect_garbage(bucket, say)
    return {
        "action": action,
        "units": counts.units,
        "changed": counts.changed,
        "files": counts.files,
        "bytes": counts.n_bytes,
        "problems": len(counts.problems),
    }
