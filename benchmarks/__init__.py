"""One script for each claim. Each script compares side by side in one run, and prints medians and ratios."""
