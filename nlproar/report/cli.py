"""The command line of `experiments/report.py`."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nlproar import plugins, storage
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.paths import user_path
from nlproar.run import record
from nlproar.run.config import Options, all_but
from nlproar.run.layout import Layout
from nlproar.script import Parser, exit_codes, importing

if TYPE_CHECKING:
    from nlproar.report.examples import Example
    from nlproar.report.results import Results

log = logging.getLogger(__name__)


def main(description: str, argv: list[str] | None = None) -> None:
    """Write tables, plots and the page of what is in the persistent directory, and of those to compare with it."""
    parser = Parser(description)
    add_flags(parser, Options, without=all_but("persistent_dir", "device", "plugin"))
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="DIR", help="other persistent directories, shown beside this one"
    )
    parser.add_argument(
        "--out",
        default=argparse.SUPPRESS,
        metavar="DIR",
        help="where tables, plots, report.html and the cache of convergence are written; nothing is written elsewhere"
        " (default: the persistent directory)",
    )
    parser.add_argument(
        "--metric-shown",
        choices=record.SHARES,
        help="the test metric of curves and RACU, where all records of a task have it (default: that of the task)",
    )
    parser.add_argument(
        "--convergence",
        default=True,
        action=argparse.BooleanOptionalAction,
        help="measure how many points integrated gradient needs (once per model, under a minute)",
    )
    parser.add_argument(
        "--example",
        nargs=2,
        action="append",
        default=[],
        metavar=("TASK", "NUMBER"),
        help="also write a test observation, by its number from 0, token by token as LaTeX; may be given several times",
    )
    with exit_codes("interrupted; what was written is whole"):
        plugins.load_named(argv)
        flags = parser.parse_args(argv)
        own = Layout.at(getattr(flags, "persistent_dir", None))
        others = [Layout(Path(user_path("--compare", name))) for name in flags.compare]
        output = Layout(Path(user_path("--out", flags.out))) if "out" in flags else own
        _check(own, others, output)
        device = getattr(flags, "device", "auto")
        _report([own, *others], output, device, flags.convergence, flags.example, flags.metric_shown)


def _check(own: Layout, others: list[Layout], output: Layout) -> None:
    """Raise UserError if a folder is named twice, is none, or cannot be looked into."""
    roots = [one.root.resolve() for one in [own, *others]]
    for other in others:
        if roots.count(other.root.resolve()) > 1:
            raise UserError(f"--compare {other.root}: this directory is named twice; name others")
    for one in [own, *others]:
        if not _is_folder(one.root):
            raise UserError(f"{one.root} is not a folder; name a persistent directory in which experiments were run")
    if output.root.resolve() in roots[1:]:
        raise UserError(f"--out {output.root}: directories to compare with are only read; name another folder")
    if output.root != own.root and not _is_folder(output.root) and os.path.lexists(output.root):
        raise UserError(f"--out {output.root}: this is not a folder; name another one")
    output.check()


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"{path} cannot be looked into: {error.strerror}") from error


def _report(
    layouts: list[Layout],
    output: Layout,
    device: str,
    with_convergence: bool,
    asked: list[list[str]],
    metric: str | None,
) -> None:
    from nlproar.progress import show_log
    from nlproar.report import frame

    show_log()
    studies = frame.load(layouts).studies
    if any(study.confidential for study in studies):
        os.umask(0o077)  # no text is shown, but what derives from confidential texts is for its owner only
    with importing():
        from nlproar.report import examples, formats, tables
        from nlproar.report.results import collect

    shown_in_latex = examples.wanted(asked)
    for example in shown_in_latex:
        examples.check(example, studies)
    with _writing(output, layouts[0]), storage.lock(output.report):
        output.sweep()
        found = frame.load(layouts, metric)  # again: the report that held the lock may have taken minutes
        for reason in found.left_out.values():
            log.warning("left out: %s", reason)
        results = collect(found, device, output if with_convergence else None)
        paths = [*write(results, output), *write_examples(shown_in_latex, results, output)]
    shown = tables.racu(results.racu, found.studies)
    print(formats.markdown(shown) if len(shown) else "no RACU yet")
    for note in results.notes:
        print(f"note: {note}")
    for path in paths:
        print(f"written: {frame.printable(str(path))}", flush=True)


@contextmanager
def _writing(output: Layout, own: Layout) -> Iterator[None]:
    """Name --out to those who may not write where the records are."""
    try:
        yield
    except OSError as error:
        if output.root != own.root or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise UserError(
            f"{output.root} cannot be written to ({error.strerror}: {error.filename}); name another folder with --out"
        ) from error


def write(results: Results, layout: Layout) -> list[Path]:
    """All files of the report, for the holder of `lock(layout.report)`; returns the folders and the page."""
    with importing():
        from nlproar.report import formats, page, panels, tables
        from nlproar.report.figures import save

    pictures = panels.everything(results)
    for name, frame in {
        "curves": results.points,
        "racu_by_seed": results.racu_by_seed,
        "racu": results.racu,
        "differences": results.differences,
        "agreement": results.agreement,
        "agreement_taus": results.taus,
        "agreement_cost": results.cost_of_metrics,
        "trust": results.trust,
        "trust_truth": results.orders,
        "trust_plan": results.plan,
        "leakage": results.leaks,
        "bias": results.biases,
        "outside": results.outside,
        "randomisation": results.randomisation,
        "tasks": results.tasks,
        "cost": results.cost,
        "sparsity": results.sparsity,
        "convergence": tables.converging(results.convergence),
    }.items():
        formats.write(layout.tables / f"{name}.csv", frame.to_csv(index=False))
    for name, frame in tables.to_read(results).items():
        formats.write(layout.tables / f"{name}.md", formats.markdown(frame))
        formats.write(layout.tables / f"{name}.tex", formats.latex(frame))
    for picture in pictures:
        save(picture, layout.plots)
    formats.write(layout.report, page.render(results, pictures))
    return [layout.tables, layout.plots, layout.report]


def write_examples(wanted: Sequence[Example], results: Results, layout: Layout) -> list[Path]:
    """Write the observations that were asked for, for the holder of `lock(layout.report)`; returns their files."""
    from nlproar.report import examples, formats

    folder = layout.root / "examples"
    return [formats.write(folder / one.file, examples.render(one, results.caches)) for one in wanted]
