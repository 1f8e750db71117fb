"""`nlproar verify ID`: carry out a run again, from the raw files on, and compare it with its record.

The run and every model below it are made in a new folder, so nothing that is cached can stand in for them. On the same
kind of machine, with the same versions and number of threads, the numbers have to be the same.
"""

from __future__ import annotations

import importlib
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nlproar import plugins, process, storage
from nlproar.errors import UserError
from nlproar.flags import add_flags, check
from nlproar.model.recipes import Recipe
from nlproar.progress import show_log
from nlproar.run import record
from nlproar.run.config import Options, all_but, from_identity
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.script import Parser, exit_codes, importing, raise_at_sigterm

# Flags of a recipe whose values are files of the user. A record identifies them by their content.
_FILES = {"vectors": "the file of word vectors", "model": "the pretrained transformer, its folder or its name,"}


def main(description: str, argv: list[str] | None = None) -> None:
    """Verify a record. Exits with 0 where the numbers agree, with 1 where they do not, else as `exit_codes` says."""
    with exit_codes("interrupted; nothing was changed"):
        raise_at_sigterm()
        plugins.load_named(argv)
        parser = Parser(description)
        parser.add_argument("id", metavar="ID", help="the name of a record, or a part of it that no other record has")
        parser.add_argument(
            "--tolerance",
            type=float,
            default=0.0,
            help="how far a number may differ, for another processor or other versions (default: 0)",
        )
        for flag, what in _FILES.items():
            parser.add_argument(f"--{flag}", metavar="PATH", help=f"{what} that the run started from, if it did")
        add_flags(parser, Options, without=all_but("persistent_dir", "device", "num_workers", "threads", "plugin"))
        flags = vars(parser.parse_args(argv))
        name, tolerance = flags.pop("id"), flags.pop("tolerance")
        files = {flag: flags.pop(flag) for flag in _FILES}
        if not 0 <= tolerance < math.inf:
            raise UserError(f"--tolerance {tolerance:g}: it must be 0 or more, and a number")
        check(Options, flags)
        layout = Layout.at(flags.pop("persistent_dir", None))
        recorded = find(layout, name)
        threads = flags.pop("threads", None) or recorded.environment["threads"]
        show_log()
        process.prepare(threads)
        again = make_again(layout, recorded, Options(threads=threads, **flags), files)
        differences = compare(recorded, again)
        print(table(recorded, again))
    largest = max(differences.values())
    if largest > tolerance:
        print(f"differs: {recorded.id}: a number differs by {largest:.2g}, more than --tolerance {tolerance:g}")
        sys.exit(1)
    print(f"verified: {recorded.id}")


def find(layout: Layout, name: str) -> Record:
    """Return the record whose name is `name`, or has it as a part. Raises UserError for none, and for several."""
    names = {path.stem: path for path in layout.records()}
    found = [stem for stem in names if stem == name] or [stem for stem in names if name in stem]
    if not found:
        raise UserError(f"no record in {layout.results} has {name!r} in its name; `nlproar ls` lists them")
    if len(found) > 1:
        raise UserError(
            f"{len(found)} records have {name!r} in their name, such as {found[0]} and {found[1]}; name one"
        )
    return record.load(names[found[0]])


def make_again(layout: Layout, recorded: Record, options: Options, files: Mapping[str, str | None]) -> Record:
    """Carry out the run of a record, and all that it needs, in a new folder that is removed afterwards.

    `files` has the user's path for each flag in `_FILES`, or None. Raises UserError where the run started from a file
    that is not given, or another one is given.
    """
    from nlproar.run.run import run

    config = from_identity(recorded.identity)
    with importing():  # before the folder is there, as Ctrl-C meanwhile ends the process at once
        importlib.import_module("nlproar.run.context")
    with storage.owner_only(config.task.confidential), tempfile.TemporaryDirectory() as folder:
        if layout.raw.exists():
            (Path(folder) / "raw").symlink_to(layout.raw.resolve())
        own = replace(options, persistent_dir=folder, train_missing=True)
        recipe = config.recipe
        for flag, path in files.items():
            recipe = _with_file(recorded, recipe, flag, path, Layout.at(folder))
        return run(replace(config, recipe=recipe, options=own))


def _with_file(recorded: Record, recipe: Recipe, flag: str, path: str | None, layout: Layout) -> Recipe:
    """Return the recipe of a record with the file in its place that the user names by a flag.

    A record has the name of the file and a checksum of its content. Only the content has to be the same.
    """
    started_from = str(recorded.config.get(flag))
    _, is_from_file, checksum = started_from.rpartition("@")
    if not is_from_file:
        if path is not None:
            raise UserError(f"--{flag} {path}: {recorded.id} did not start from such a file; leave the flag out")
        return recipe
    if path is None:
        raise UserError(f"{recorded.id} started from {started_from}; say where that is: --{flag} PATH")
    named: dict[str, Any] = {flag: path}
    found: Recipe = replace(recipe, **named).completed(layout)
    if str(getattr(found, flag)).rpartition("@")[2] != checksum:
        raise UserError(f"--{flag} {path}: this is not {started_from}, from which {recorded.id} started")
    return found


def compare(recorded: Record, again: Record) -> Mapping[str, float]:
    """Return how far each number is from the recorded one, by the name that `numbers` gives it; infinity for a number
    that is not there again."""
    now = numbers(again)
    found = {}
    for name, value in numbers(recorded).items():
        found[name] = abs(value - now.get(name, math.inf))
    return found


def numbers(one: Record) -> dict[str, float]:
    """Return every result in a record, by name: its metrics, its diagnostics, and the shares of masked tokens."""
    found: dict[str, float] = {}
    for name, values in {**one.metrics, **one.diagnostics, "masked": one.masked}.items():
        for key, value in values.items():
            found[f"{name} {key}"] = float(value)
    return found


def table(recorded: Record, again: Record) -> str:
    """Return a line for each number: as recorded, and as it is now."""
    now = numbers(again)
    then = numbers(recorded)
    width = max(map(len, then)) + 2
    lines = [f"{'':<{width}}{'recorded':>12}{'again':>12}"]
    for name, value in then.items():
        lines.append(f"{name:<{width}}{value:>12.6f}{now.get(name, math.nan):>12.6f}")
    return "\n".join(lines)
