"""``cluster``: serving, archives and fits on many machines, with Ray."""

from backend.commands.arguments import Commands, add_command
from backend.commands.cluster import fit, infer, serve

_TEXT = """
This needs Ray: pip install -r requirements/ray.txt. docs/scale.md explains the commands."""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "cluster", _without_action, "serve, judge archives and fit on many machines, with Ray", _TEXT
    )
    actions = parser.add_subparsers(dest="action", required=True)
    serve.add_to(actions)
    infer.add_to(actions)
    fit.add_to(actions)


def _without_action(*_: object) -> None:
    raise AssertionError("the parser requires an action")
