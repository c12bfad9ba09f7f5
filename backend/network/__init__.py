"""The frozen network: its weights, its runtimes, and the queue for it."""
