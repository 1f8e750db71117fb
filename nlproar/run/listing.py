"""`nlproar ls`: what was run, a line for each record."""

from __future__ import annotations

import sys

from nlproar import plugins
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.run import record
from nlproar.run.config import Options, all_but
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import metric_title, model_of, model_title, point_of
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


def _measure(one: Record) -> str:
    """Return the measure of a record with what differs from its defaults: "gradient (transform blur)"."""
    name = one.identity["importance_measure"]
    if name is None:
        return ""
    notes = [f"{parameter.replace('_', ' ')} {value}" for parameter, value in one.identity["measure"].items()]
    return f"{name} ({', '.join(notes)})" if notes else str(name)


def _table(records: list[Record]) -> str:
    from tabulate import tabulate

    models = [model_of(one.config) for one in records]
    rows = []
    for one in records:
        point = point_of(one)
        metric = str(one.task["metric"]).replace("_", " ")
        row = [one.identity["dataset"], model_title(model_of(one.config), models), point.seed]
        row += [metric_title(one) if point.panel else "", _measure(one), point.level]
        rows.append([*row, f"{metric} {one.performance:.4f}", f"{one.seconds:.0f} s", one.id])
    headers = ["task", "model", "seed", "metric", "measure", "k", "test", "time", "id"]
    return str(tabulate(rows, headers, tablefmt="plain"))
