"""``make bench-anomalib``: both tables with their defaults."""

import sys

from benchmarks.anomalib_side import coresets, engines

if __name__ == "__main__":
    for script in (engines, coresets):
        script.main([sys.argv[1]])
