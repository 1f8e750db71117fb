"""What every test and interval of the statistics has in common. Imports nothing."""

SIGNIFICANCE = 0.05  # a p value from which on two things are not told apart
LEVEL = 1 - SIGNIFICANCE  # of every interval
FEWEST_SEEDS = 3  # with which a difference that is not found says anything: of two, hardly any is found
