"""One script per claim; each compares side by side in one run and prints medians and ratios."""
