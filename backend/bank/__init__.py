"""From images to a memory bank. No files of models, no HTTP."""
