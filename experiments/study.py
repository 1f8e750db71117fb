"""A grid of runs: every level of every measure, strategy, seed and task that is named, in the order they need."""

from nlproar.experiment.study import main

if __name__ == "__main__":
    main(__doc__)
