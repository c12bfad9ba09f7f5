"""How this program is called, for messages and help texts with a command."""

import sys
from collections.abc import Sequence
from pathlib import PurePath


def program(arguments: Sequence[str]) -> str:
    """What to type before the name of a command.

    Args:
        arguments: of the process, as in ``sys.argv``.

    >>> program(["/opt/roi-anomaly/.venv/bin/roi-anomaly", "fit"])
    'roi-anomaly'
    >>> program(["/opt/roi-anomaly/backend/__main__.py", "fit"])
    'python -m backend'
    """
    started_as_module = PurePath(*arguments[:1]).parts[-2:] == ("backend", "__main__.py")
    return "python -m backend" if started_as_module else "roi-anomaly"


PROGRAM = program(sys.argv)
"""``roi-anomaly``, also in a server that somebody else started, or ``python -m backend`` where it was started so."""
