"""ROAR on bAbI questions 1, 2 or 3: mask, retrain, test one level of one measure."""

from nlproar.experiment.cli import main

if __name__ == "__main__":
    main(__doc__, ("--task", {"1": "babi-1", "2": "babi-2", "3": "babi-3"}))
