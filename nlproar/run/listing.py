"""`nlproar ls`: what was run, a line for each record."""

from __future__ import annotations

import sys

from nlproar import plugins
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.run import record
from nlproar.run.config import DEFAULT_EVALUATION, Options, all_but
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import (
    explanation_title,
    has_curves,
    metric_title,
    model_of,
    model_title,
    point_of,
    scores_of,
)
from nlproar.script import Parser, exit_codes
from nlproar.streams import require_output


def main(description: str, argv: list[str] | None = None) -> None:
    """Print a line for each record of a persistent directory; damaged ones are named on stderr."""
    with exit_codes("interrupted"):
        parser = Parser(description)
        add_flags(parser, Options, without=all_but("persistent_dir", "plugin"))
        plugins.load_named(argv)
        flags = parser.parse_args(argv)
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        records = []
        for path in layout.records():
            try:
                records.append(record.load(path))
            except UserError as error:
                print(f"warning: {error}", file=sys.stderr)
        if not records:
            raise UserError(f"there is no record in {layout.results}; name another folder with --persistent-dir")
        print(_table(records))
        require_output()


def _table(records: list[Record]) -> str:
    from tabulate import tabulate

    models = [model_of(one.config) for one in records]
    rows = []
    for one in records:
        point = point_of(one)
        is_shared_by_roar = point.series is None and point.evaluation == DEFAULT_EVALUATION
        rows.append(
            [
                one.identity["dataset"],
                model_title(model_of(one.config), models),
                point.seed,
                "" if is_shared_by_roar else metric_title(one),  # other metrics use that run, too
                "" if point.series is None else explanation_title(one),
                point.level if has_curves(point.evaluation) else "",
                ", ".join(f"{name} {value:.4f}" for name, value in scores_of(one).items()),
                f"{one.seconds:.0f} s",
                one.id,
            ]
        )
    headers = ["task", "model", "seed", "metric", "measure", "k", "test", "time", "id"]
    return str(tabulate(rows, headers, tablefmt="plain"))
