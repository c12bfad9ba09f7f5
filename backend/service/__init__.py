"""The use cases: one subject a file, as functions. No HTTP, no file formats."""
