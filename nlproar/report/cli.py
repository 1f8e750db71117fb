"""The command line of `experiments/report.py`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nlproar.errors import UserError
from nlproar.experiment.cli import Parser, add_options, exit_codes
from nlproar.experiment.layout import Layout

if TYPE_CHECKING:
    from nlproar.report.results import Results


def main(description: str, argv: list[str] | None = None) -> None:
    """Write tables, plots and the page of what is in the persistent directory, and of those to compare with it."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    add_options(parser, "persistent_dir", "device")
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="DIR", help="other persistent directories, shown beside this one"
    )
    parser.add_argument(
        "--convergence",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="measure how many points integrated gradient needs (once per model, under a minute)",
    )
    flags = parser.parse_args(argv)
    with exit_codes("interrupted; what was written is whole"):
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        _report(layout, [Layout(Path(name)) for name in flags.compare], flags.device, flags.convergence)


def _report(layout: Layout, others: list[Layout], device: str, convergence: bool) -> None:
    layouts = [layout, *others]
    roots = [one.root.resolve() for one in layouts]
    for one in layouts:
        if roots.count(one.root.resolve()) > 1:
            raise UserError(f"--compare {one.root}: this directory is named twice; name others")
        one.check()
        if not one.root.is_dir():
            raise UserError(f"{one.root} is no folder; name a persistent directory in which experiments were run")
    from nlproar.progress import show_log
    from nlproar.report import frame

    show_log()
    layout.sweep()
    studies = frame.load(layouts)
    if any(study.confidential for study in studies):
        os.umask(0o077)  # no text is shown, but what derives from confidential texts is for its owner only
    from nlproar.report.results import collect

    results = collect(studies, device, convergence)
    paths = write(results, layout)
    from nlproar.report import tables

    print(tables.markdown(tables.racu(results.racu, studies)) if len(results.racu) else "no RACU yet")
    for note in results.notes:
        print(f"note: {note}")
    print("\n".join(f"written: {path}" for path in paths), flush=True)


def write(results: Results, layout: Layout) -> list[Path]:
    """All files of the report; returns the folders and the page."""
    from nlproar.report import page, panels, tables
    from nlproar.report.figures import save

    pictures = panels.everything(results)
    for name, frame in {
        "curves": results.points,
        "racu_by_seed": results.racu_by_seed,
        "racu": results.racu,
        "differences": results.differences,
        "tasks": results.tasks,
        "cost": results.cost,
        "sparsity": results.sparsity,
    }.items():
        tables.write(layout.tables / f"{name}.csv", frame.to_csv(index=False))
    for name, frame in tables.to_read(results).items():
        tables.write(layout.tables / f"{name}.md", tables.markdown(frame))
        tables.write(layout.tables / f"{name}.tex", tables.latex(frame))
    for picture in pictures:
        save(picture, layout.plots)
    tables.write(layout.report, page.render(results, pictures))
    return [layout.tables, layout.plots, layout.report]
