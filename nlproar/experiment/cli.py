"""The command line of the scripts. Imports no torch until a run really starts."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from nlproar import process
from nlproar.errors import UserError, refusal
from nlproar.experiment.config import Config, flag_fields, resolve
from nlproar.experiment.parent import end_with_parent
from nlproar.experiment.streams import lost_output, prepare_streams

Choice = tuple[str, Mapping[str, str]]  # a flag, and the task behind each of its values


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"error: {_on_one_line(message)} (see --help)\n")


def parser(description: str, choice: Choice | None, sources: tuple[str, ...]) -> Parser:
    """All flags of `Config`, the flag that chooses among the script's tasks, and --source where there are two."""
    found = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    if choice:
        found.add_argument(
            choice[0], dest="choice", choices=tuple(choice[1]), default=next(iter(choice[1])), help="which task"
        )
    if len(sources) > 1:
        found.add_argument("--source", choices=sources, default=sources[0], help="where the data come from")
    add_options(found, *(field.name for field in flag_fields()))
    return found


def add_options(found: Parser, *names: str) -> None:
    """The flags of these fields of `Config`."""
    for field in flag_fields():
        if field.name not in names:
            continue
        extra: dict[str, Any] = dict(field.metadata["argparse"])
        if "nargs" in extra:  # one run for each value
            extra["default"] = [field.default]
        if isinstance(field.default, bool):
            extra["action"] = argparse.BooleanOptionalAction
        extra.setdefault("default", argparse.SUPPRESS if field.default is None else field.default)
        name = f"--{field.name.replace('_', '-')}"
        found.add_argument(name, help=_help(field.metadata["help"], extra), **extra)


def _help(text: str, extra: Mapping[str, Any]) -> str:
    text = text.replace("%", "%%")
    return f"{text}: {', '.join(extra['choices'])}" if "metavar" in extra and "choices" in extra else text


def parse(description: str, dataset: str | Choice, argv: list[str] | None = None) -> list[Config]:
    """The runs a command line asks for, one for each --k. Exits or raises UserError where it contradicts itself."""
    from nlproar.dataset import load_task

    choice = None if isinstance(dataset, str) else dataset
    name = dataset if isinstance(dataset, str) else next(iter(dataset[1].values()))
    flags = vars(parser(description, choice, tuple(load_task(name).sources)).parse_args(argv))
    if choice:
        name = choice[1][flags.pop("choice")]
    levels = flags.pop("k")
    return [resolve(name, k=k, **flags) for k in sorted(set(levels))]


def main(description: str, dataset: str | Choice, argv: list[str] | None = None) -> None:
    """Run a script: `dataset` is its task, or the flag and the values that choose one of its tasks. Exits 0 when
    the records are there, else as `exit_codes` says."""
    with exit_codes("interrupted; the same command goes on from here"):
        end_with_parent()
        _run(parse(description, dataset, argv))


class Terminated(BaseException):
    """The process was asked to end by SIGTERM. A handler of that signal raises this."""


@contextmanager
def exit_codes(stopped: str) -> Iterator[None]:
    """Around all that a script does: prepare its streams, and end it as the README says.

    Exit code 2 and one line for what the user can mend; 130 and the line `stopped` on Ctrl-C; 143 and the same line on
    SIGTERM, where a handler raises `Terminated`. A bug keeps its traceback. Output that was lost costs a warning only,
    as the records are there; see `streams.require_output` for commands whose result is their output.
    """
    prepare_streams()
    try:
        with users_errors():
            yield
    except UserError as error:
        print(f"error: {_on_one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _ignore_ctrl_c()
        print(stopped, file=sys.stderr)
        sys.exit(130)
    except Terminated:
        print(stopped, file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    problem = lost_output()
    if problem:
        print(f"warning: standard output cannot be written: {problem}", file=sys.stderr)


def _on_one_line(text: str) -> str:
    """What the user typed, or a library says, may hold breaks of lines."""
    return " ".join(text.splitlines())


def _ignore_ctrl_c() -> None:
    """An impatient second Ctrl-C must not end in a traceback while Python shuts down."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(configs: Sequence[Config]) -> None:
    from nlproar.progress import show_log

    show_log()
    process.prepare(configs[0].threads)
    from nlproar.experiment import curve
    from nlproar.experiment.layout import Layout
    from nlproar.experiment.run import run_all

    layout = Layout.of(configs[0])
    for config, content in run_all(configs):
        print(f"record: {layout.record(config)}", flush=True)
        print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in content["metrics"]["test"].items()))
    print(curve.show(layout, configs[-1], content["data"]))


@contextmanager
def users_errors() -> Iterator[None]:
    """Turn what the machine refuses (no space, no permission, no memory) into a UserError; bugs keep their
    traceback."""
    try:
        yield
    except MemoryError as error:
        raise UserError(f"there is not enough memory for this: {error}".removesuffix(": ")) from error
    except ModuleNotFoundError as error:
        if (error.name or "nlproar").partition(".")[0] == "nlproar":
            raise
        raise UserError(
            f"the package {error.name} is not installed for {sys.executable}; activate the environment in which nlproar"
            " is installed, or install it with: pip install -c constraints.txt -e ."
        ) from error
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error
