"""ROAR on MIMIC-III discharge summaries: mask, retrain, test one level of one measure."""

from nlproar.experiment.cli import main

if __name__ == "__main__":
    main(__doc__, ("--subset", {"diabetes": "mimic-diabetes", "anemia": "mimic-anemia"}))
