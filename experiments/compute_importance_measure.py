"""The importance of every token of a data set, as a table: explain the model of k = 0, or of another level."""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.run.importance_table import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(__doc__)
