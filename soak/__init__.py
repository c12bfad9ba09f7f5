"""Long runs that try to break what the service promises.

Each prints a Markdown table, and fails if a promise is broken.
"""
