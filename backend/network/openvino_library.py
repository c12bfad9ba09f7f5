"""OpenVINO without its usage statistics; everything that needs OpenVINO imports it from here.

`import openvino` reports to a public analytics service and writes a client id into the home folder. Only a file in that
home folder or variables of build machines such as ``CI`` would stop it. It uses the package ``openvino_telemetry``, and
works without it if it cannot be imported: None in ``sys.modules`` makes the import fail, whether the package is
installed or not.
"""

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402, TID251  (after what keeps it quiet)
from openvino import opset13 as op  # noqa: E402, TID251

__all__ = ["op", "ov"]
