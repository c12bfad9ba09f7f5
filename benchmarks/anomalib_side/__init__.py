"""Our engine beside anomalib's, each in a process and a virtual environment of its own, on the same images."""
