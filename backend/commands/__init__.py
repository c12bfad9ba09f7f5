"""`roi-anomaly COMMAND`: a file or a folder for each command."""
