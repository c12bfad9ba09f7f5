"""``cluster serve``: the service in several replicas, on this machine."""

import argparse
import threading
from pathlib import Path

from backend.commands.arguments import Commands, add_command
from backend.commands.console import say
from backend.common.config import Settings

_CONFIG = Path("deploy/serve.yaml")
_TEXT = f"""
Starts Ray on 127.0.0.1, with its own processes and its own token, and deploys {_CONFIG} on it. PORT and all other
settings are environment variables, as for `serve`. Ctrl-C ends all processes that the command started."""
_EPILOG = """\
examples:
  %(prog)s
  MODELS_URL=s3://factory/models %(prog)s
"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "serve", run, "serve in several replicas on this machine", _TEXT, _EPILOG)
    parser.add_argument("--config", metavar="FILE", type=Path, default=_CONFIG, help=f"default: {_CONFIG}")
    parser.add_argument(
        "--stop-after-start",
        action="store_true",
        help="end when all replicas are ready, to check whether the service can start",
    )


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Serve until stopped.

    Raises:
        ConfigError: Ray is not installed, the file cannot be used, or the service cannot be deployed.
    """
    from backend.cluster.local import deploy, local_ray, read_config  # only here: other commands do not need Ray

    config = read_config(options.config)
    say("starting Ray and the replicas on 127.0.0.1; this takes about ten seconds")
    with local_ray(serves=True) as ray:
        deploy(ray, config, settings.port)
        say(what_next(settings.port))
        if not options.stop_after_start:
            threading.Event().wait()


def what_next(port: int) -> str:
    """The message when all replicas are ready.

    >>> print(what_next(8000))
    <BLANKLINE>
    Ready at http://127.0.0.1:8000, in several replicas. Next:
      curl http://127.0.0.1:8000/health     the state of the service
      make demo                             fit, calibrate and inspect real images
    Ctrl-C ends it.
    """
    address = f"http://127.0.0.1:{port}"
    demo = "make demo" if port == Settings.model_fields["port"].default else f"PORT={port} make demo"
    return (
        f"\nReady at {address}, in several replicas. Next:\n"
        f"  {f'curl {address}/health':<38}the state of the service\n"
        f"  {demo:<38}fit, calibrate and inspect real images\n"
        "Ctrl-C ends it."
    )
