"""A grid of runs: every level of every measure, strategy, seed and task that is named, in the order they need."""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.study.cli import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(__doc__)
