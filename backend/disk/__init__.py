"""What lies below MODELS_DIR, under `storage`."""
