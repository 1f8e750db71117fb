"""`python -m nlproar` is the command `nlproar`."""

from nlproar.cli import main

main()
