"""Evaluate one importance measure by one metric on Stanford Natural Language Inference, at one or several levels."""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.run.cli import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(__doc__, "snli")
