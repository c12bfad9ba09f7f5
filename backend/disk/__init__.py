"""The files below MODELS_DIR; `storage` builds on this package."""
