"""What goes around every request, one class a file."""
