"""What submit.sh runs: submit what is missing of a study as Slurm arrays."""

import sys
from pathlib import Path

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.study.submit import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(Path(__file__).parent)
