"""Long runs of hostile input against a real server; not part of the service."""
