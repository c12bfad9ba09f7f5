"""``cluster``: many machines."""
