"""Evaluate one importance measure by one metric on bAbI question 1, 2 or 3, at one or several levels."""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.run.cli import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(__doc__, ("--task", {"1": "babi-1", "2": "babi-2", "3": "babi-3"}))
