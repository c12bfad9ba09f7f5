"""``make bench``: every claim, one after the other."""

from benchmarks import coreset, runtimes, stages

if __name__ == "__main__":
    for script in (runtimes, coreset, stages):
        script.main()
