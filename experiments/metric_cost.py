"""CPU seconds of the same curves by each metric: a study by masked fine-tuning and by ROAR, and what each has cost.

The flags are those of a study. Without others, the study is recursive and has both metrics; `--metric` names others.
Runs that are done are not repeated, so that a study that was stopped goes on, and a finished one is only counted.
"""

import sys

try:
    from nlproar.interrupts import end_at_ctrl_c

    end_at_ctrl_c()
    from nlproar.run.layout import Layout
    from nlproar.script import exit_codes
    from nlproar.study import cli
except ModuleNotFoundError as error:
    print(f"error: {error}; activate the environment of nlproar (Python 3.11 or later)", file=sys.stderr)
    sys.exit(2)

METRICS = ("masked-fine-tuning", "roar")


def study_arguments(words: list[str]) -> list[str]:
    """Return the arguments of the study: of these metrics, and with recursion unless `words` say otherwise."""
    is_said = not {"--recursive", "--no-recursive", "--both"}.isdisjoint(words)
    kind = [] if is_said else ["--recursive"]
    return [*kind, "--metric", *METRICS, *words]


def main() -> None:
    """Run the study, and print what each metric has cost, as the report counts it."""
    arguments = study_arguments(sys.argv[1:])
    cli.main(__doc__, arguments)
    with exit_codes("interrupted; run the same command again"):
        from nlproar.report import agreement, frame  # they import pandas, which --help need not wait for

        grid, flags = cli.parse(__doc__, arguments)
        ids = {config.id for chain in grid.chains() for config in chain.configs}
        found = frame.load([Layout.at(getattr(flags, "persistent_dir", None))])
        costs = agreement.cost(frame.of_runs(found.studies, ids))
        costs = costs[["study", "metric", "runs", "trainings", "cpu_seconds"]]
        highest = costs.groupby("study")["cpu_seconds"].transform("max")
        costs["of the most expensive"] = costs["cpu_seconds"] / highest
        print(costs.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
