"""Fetch, verify and encode all public data, and say what MIMIC-III still needs. Does what is missing, no more."""

from nlproar.experiment.prepare import main

if __name__ == "__main__":
    main(__doc__)
