"""`python -m nlproar` is the command `nlproar`."""

from nlproar.cli import main

if __name__ == "__main__":
    main()
