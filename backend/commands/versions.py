"""``versions`` and ``rollback``: earlier versions of a model."""

import argparse
import json
from typing import Any

from backend.api.schemas.common import RoiIds
from backend.api.schemas.versions import RollbackRequest, version_reply
from backend.commands.arguments import Commands, add_command, add_ids, fields_of, key_of, natural_number
from backend.commands.console import print_line, say
from backend.commands.models_folder import what_is_fitted
from backend.common.config import Settings
from backend.service.inspection import InspectionService
from backend.service.roll_back import roll_back as roll_back_model
from backend.service.stores import open_stores

_VERSIONS = """
Prints one JSON line for each version, the newest first: its number, when and by what it was replaced, what it was built
from, and its threshold."""
_ROLLBACK = """
Serves an earlier model again, with its calibration, and prints what is served now. The replaced model is kept as the
newest version, so the same command without --version restores it."""
_ROLLBACK_EPILOG = """\
examples:
  %(prog)s Master1 Pattern
  %(prog)s Master1 Pattern --version 3
"""


def add_to(commands: Commands) -> None:
    """Add both to the command line."""
    add_ids(add_command(commands, "versions", _run_versions, "list the earlier versions of a model", _VERSIONS))
    rollback = add_command(
        commands, "rollback", _run_rollback, "restore an earlier model of a ROI", _ROLLBACK, _ROLLBACK_EPILOG
    )
    add_ids(rollback)
    rollback.add_argument(
        "--version", dest="number", metavar="N", type=natural_number, help="number of the version; default: the newest"
    )


def _run_versions(settings: Settings, options: argparse.Namespace) -> None:
    fields = fields_of(RoiIds, options)
    found = versions(settings, fields)
    for version in found:
        print_line(json.dumps(version))
    if not found:
        there = what_is_fitted(settings)
        say(f"no earlier model of {fields.role_id!r}, {fields.roi_id!r} is kept; {there}")


def _run_rollback(settings: Settings, options: argparse.Namespace) -> None:
    fields = fields_of(RollbackRequest, options, version=options.number)
    print_line(json.dumps(roll_back(settings, fields)))


def versions(settings: Settings, fields: RoiIds) -> list[dict[str, Any]]:
    """The earlier versions of the model of a ROI, as in the reply of ``/versions``; loads no network.

    Raises:
        BackendError: as `ModelStore.versions`.
    """
    found = open_stores(settings).models.versions(key_of(fields))
    return [version_reply(version, calibration).model_dump(exclude_none=True) for version, calibration in found]


def roll_back(settings: Settings, fields: RollbackRequest) -> dict[str, Any]:
    """Restore an earlier model of a ROI.

    Returns:
        The model that is served now, without missing members.

    Raises:
        BackendError: as `roll_back` of the service.
    """
    version, fitted = roll_back_model(InspectionService.open(settings), key_of(fields), fields.version)
    return {
        "version": version.number,
        "memory_id": fitted.memory_id,
        "calibration": fitted.calibration_state,
        **({"threshold": fitted.calibration.threshold} if fitted.calibration else {}),
        "coreset_size": len(fitted.memory.embeddings),
        "token_shape": list(fitted.memory.token_hw),
    }
