"""The command line of the scripts. Imports no torch until a run really starts."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from nlproar.errors import UserError
from nlproar.experiment.config import Config, flag_fields, resolve

_USERS_ERRNO = {  # what the machine refuses, not a bug of ours
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"error: {message} (see --help)\n")


def parser(description: str, choice: tuple[str, Mapping[str, str]] | None, sources: tuple[str, ...]) -> _Parser:
    """All flags of `Config`, the flag that chooses among the script's tasks, and --source where there are two."""
    found = _Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    if choice:
        found.add_argument(choice[0], dest="choice", choices=tuple(choice[1]), default=next(iter(choice[1])), help="which task")
    if len(sources) > 1:
        found.add_argument("--source", choices=sources, default=sources[0], help="where the data come from")
    for field in flag_fields():
        extra: dict[str, Any] = dict(field.metadata["argparse"])
        if isinstance(field.default, bool):
            extra["action"] = argparse.BooleanOptionalAction
        default = argparse.SUPPRESS if field.default is None else field.default
        name = f"--{field.name.replace('_', '-')}"
        found.add_argument(name, default=default, help=_help(field.metadata["help"], extra), **extra)
    return found


def _help(text: str, extra: Mapping[str, Any]) -> str:
    text = text.replace("%", "%%")
    return f"{text}: {', '.join(extra['choices'])}" if "metavar" in extra and "choices" in extra else text


def main(description: str, dataset: str | tuple[str, Mapping[str, str]], argv: list[str] | None = None) -> None:
    """Run a script: `dataset` is its task, or the flag and the values that choose one of its tasks.

    Exits 0 when the record is there, 2 with one line for what the user can mend, 130 on Ctrl-C.
    """
    from nlproar.dataset import load_task

    choice = None if isinstance(dataset, str) else dataset
    first = dataset if isinstance(dataset, str) else next(iter(dataset[1].values()))
    flags = vars(parser(description, choice, tuple(load_task(first).sources)).parse_args(argv))
    name = choice[1][flags.pop("choice")] if choice else first
    try:
        _run(resolve(name, **flags))
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in _USERS_ERRNO:
            raise
        _fail(f"{error.strerror}: {error.filename or Config.__name__}" if error.filename else str(error.strerror))
    except KeyboardInterrupt:
        print("interrupted; the same command starts this run again", file=sys.stderr)
        sys.exit(130)


def _run(config: Config) -> None:
    from nlproar.progress import show_log

    show_log()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before torch: reproducible products on a GPU
    from nlproar.experiment import curve
    from nlproar.experiment.layout import Layout
    from nlproar.experiment.run import run

    layout = Layout.of(config)
    content = run(config)
    print(f"record: {layout.record(config)}")
    print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in content["metrics"]["test"].items()))
    print(curve.show(layout, config))


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
