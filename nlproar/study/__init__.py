"""A study: the runs of a whole grid, what is done of them, and how the rest is carried out."""
