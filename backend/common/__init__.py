"""Modules that every package may use: settings, errors, logs, the machine, files."""
