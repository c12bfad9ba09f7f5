"""``cluster``: the commands for many machines."""
