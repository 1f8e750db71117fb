"""Why recursion: ROAR and Recursive ROAR on 16 redundant features whose true importance is known."""

from nlproar.experiment.synthetic import main

if __name__ == "__main__":
    main(__doc__)
