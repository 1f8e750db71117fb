"""Fetch and encode data ahead of the runs, where there is a network: on a login node, say."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from typing import NoReturn

from nlproar import storage
from nlproar.dataset import MODULES, load_task
from nlproar.dataset.sources import VECTORS
from nlproar.errors import UserError
from nlproar.experiment.cli import Parser, Terminated, add_options, exit_codes, users_errors
from nlproar.experiment.layout import Layout

log = logging.getLogger(__name__)


def main(description: str, argv: list[str] | None = None) -> None:
    """Prepare the data sets that are named, or all. Exits 0 when they are ready, 1 when a public one, or a named one,
    could not be had, else as `exit_codes` says."""
    with exit_codes("interrupted; the same command goes on from here"):
        signal.signal(signal.SIGTERM, _terminate)
        failed = _main(description, argv)
    sys.exit(1 if failed else 0)


def _terminate(number: int, frame: object) -> NoReturn:
    """End by an exception, so that an unfinished download is removed."""
    raise Terminated


def _main(description: str, argv: list[str] | None) -> bool:
    """Whether a data set could not be had that should have been."""
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("dataset", nargs="*", metavar="DATASET", help=f"default: all of {', '.join(MODULES)}")
    add_options(parser, "persistent_dir", "num_workers")
    flags = parser.parse_args(argv)
    unknown = sorted(set(flags.dataset) - set(MODULES))
    if unknown:
        parser.error(f"unknown data set {unknown[0]}: choose from {', '.join(MODULES)}")
    layout = Layout.at(getattr(flags, "persistent_dir", None))
    failed = False
    for name in flags.dataset or MODULES:
        problem = _prepare(name, layout, flags.num_workers)
        print(f"{name}: {problem or 'ready'}", flush=True)
        if problem and (name in flags.dataset or not load_task(name).confidential):
            failed = True
    return failed


def _prepare(name: str, layout: Layout, num_workers: int) -> str | None:
    """Everything a run of data set `name` reads, into place. Returns what is in the way, if something is."""
    from nlproar.dataset import encoding, vectors
    from nlproar.progress import show_log

    show_log()
    task = load_task(name)
    try:
        with users_errors(), storage.owner_only(task.confidential):
            dataset = encoding.load(task, "official", layout.raw, layout.cache, num_workers)
            if task.vectors in VECTORS:
                file = vectors.find(task.vectors, layout.raw, layout.cache)
                vectors.from_file(file, dataset.vocabulary, layout.cache)
    except UserError as error:
        return str(error).replace("\n", " ")
    except Exception as error:  # a bug in one data set must not cost the others; its message may hold a text
        return f"unexpected {type(error).__name__}, please report it (run its script to see where)"
    return None
