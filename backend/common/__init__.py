"""What every room may use: settings, errors, logs, the machine, files."""
