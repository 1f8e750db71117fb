"""Fetch and encode data ahead of the runs, where there is a network: on a login node, for example."""

from __future__ import annotations

import logging
import sys

from nlproar import plugins, storage
from nlproar.dataset import PLANTED, TASKS, load_task
from nlproar.errors import UserError
from nlproar.flags import add_flags, check
from nlproar.run.config import Options, all_but, resolve
from nlproar.run.layout import Layout
from nlproar.script import Parser, exit_codes, raise_at_sigterm, users_errors

log = logging.getLogger(__name__)


def main(description: str, argv: list[str] | None = None) -> None:
    """Prepare the data sets that are named, or all.

    Exits with 0 when they are ready, with 1 when a public one, or a named one, could not be had, else as `exit_codes`
    says.
    """
    with exit_codes("interrupted; run the same command again to continue"):
        raise_at_sigterm()  # so that an unfinished download is removed
        failed = _main(description, argv)
    sys.exit(1 if failed else 0)


def _main(description: str, argv: list[str] | None) -> bool:
    """Prepare what is asked for, and return whether a data set could not be had that should have been."""
    plugins.load_named(argv)
    parser = Parser(description)
    text = f"{', '.join(TASKS)} (default: all that are not planted)"
    parser.add_argument("dataset", nargs="*", metavar="DATASET", help=text)
    parser.add_argument("--model", help="also fetch this transformer, and encode the data with its tokenizer")
    add_flags(parser, Options, without=all_but("persistent_dir", "num_workers", "plugin"))
    flags = parser.parse_args(argv)
    check(Options, vars(flags))
    unknown = sorted(set(flags.dataset) - set(TASKS))
    if unknown:
        parser.error(f"unknown data set {unknown[0]}: choose from {', '.join(TASKS)}")
    layout = Layout.at(getattr(flags, "persistent_dir", None))
    num_workers = getattr(flags, "num_workers", Options().num_workers)
    failed = False
    for name in flags.dataset or [task for task in TASKS if task not in PLANTED]:
        problem = _prepare(name, layout, num_workers, flags.model)
        print(f"{name}: {problem or 'ready'}", flush=True)
        if problem and (name in flags.dataset or not load_task(name).confidential):
            failed = True
    return failed


def _prepare(name: str, layout: Layout, num_workers: int, model: str | None) -> str | None:
    """Bring everything that a run of data set `name` reads into place: for the BiLSTM, or for the transformer `model`.

    Returns what is in the way, if something is.
    """
    from nlproar.dataset import encoding, pretrained
    from nlproar.progress import show_log

    show_log()
    task = load_task(name)
    try:
        with users_errors(), storage.owner_only(task.confidential):
            if model is not None:
                pretrained.fetch(model, layout)
            recipe = resolve(name, model=model, persistent_dir=str(layout.root)).recipe
            dataset = encoding.load(task, "official", layout.raw, layout.cache, num_workers, recipe.subwords())
            recipe.fetch(layout.raw, layout.cache)
            if recipe.is_from_file:
                recipe.files_identity(task, dataset, 0, layout)  # cuts the vectors to the vocabulary
    except UserError as error:
        return str(error).replace("\n", " ")
    except Exception as error:  # a bug in one data set must not cost the others; its message may hold a text
        return f"unexpected {type(error).__name__}, please report it (run its script to see where)"
    return None
