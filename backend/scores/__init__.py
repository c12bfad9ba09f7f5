"""Statistics of scores, as pure functions of numbers."""
