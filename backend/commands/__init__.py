"""The commands of `roi-anomaly COMMAND`: a file or a folder for each."""
