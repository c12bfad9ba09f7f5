"""What goes around every request, one concern a file."""
