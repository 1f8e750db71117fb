"""How `k` counts, by the name `--roar-strategy` takes: a number of tokens, or a percentage of them."""

STRATEGIES = ("count", "quantile")
