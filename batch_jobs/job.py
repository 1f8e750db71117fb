"""What job.sh runs: become the command of one element of an array."""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.study.job_lists import main
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

if __name__ == "__main__":
    main(sys.argv[1:])
