"""`python -m backend COMMAND`: a file or a folder for each command."""
