"""The use cases: one file, one public function. No HTTP, no file formats."""
