"""Tables, plots and one page of all records in the persistent directory: curves, RACU, and what they cost."""

from nlproar.report.cli import main

if __name__ == "__main__":
    main(__doc__)
