"""The middleware around every request, one concern a file."""
