"""``python -m demo``: fit, calibrate and inspect real solar cells through the HTTP interface."""
