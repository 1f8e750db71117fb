"""What every script does: parse flags, prepare its streams, and end with the exit codes that are documented.

Imports nothing that takes time.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NoReturn

from nlproar.errors import UserError, refusal
from nlproar.interrupts import end_at_ctrl_c, raise_at_ctrl_c
from nlproar.streams import lost_output, prepare_streams, require_output

# Packages that every installation has, by the names under which they are imported.
REQUIRED = (
    "numpy", "pooch", "pytorch_lightning", "requests", "safetensors", "spacy", "tabulate", "torch", "torchmetrics",
    "tqdm",
)  # fmt: skip

# Packages that a plain installation leaves out, by the extra of setup.py that brings them.
_EXTRAS = {
    **dict.fromkeys(("jinja2", "matplotlib", "pandas", "scipy", "sklearn", "threadpoolctl"), "report"),
    "gensim": "word2vec",
    **dict.fromkeys(("huggingface_hub", "tokenizers", "transformers"), "transformers"),
}

_commands: list[str] = []  # what the command that is at work says on Ctrl-C; empty where no command is


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which takes no abbreviations of flags."""

    command: ClassVar[str | None] = None  # as which this process was called, such as "nlproar study"; None for a script

    def __init__(self, description: str | None, prog: str | None = None) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        prog = prog or self.command
        super().__init__(prog=prog, description=description, formatter_class=formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Exit with one line, without the usage."""
        self.exit(2, f"error: {on_one_line(message)} (see --help)\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit. Raises UserError where the help was asked for, and is lost."""
        if status == 0:
            require_output()
        super().exit(status, message)


class Terminated(BaseException):
    """The process was asked to end by SIGTERM, see `raise_at_sigterm`."""


def raise_at_sigterm() -> None:
    """Let SIGTERM raise `Terminated` from now on, so that what is open is tidied up."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> NoReturn:
    raise Terminated


@contextmanager
def exit_codes(stopped: str) -> Iterator[None]:
    """Around all that a script does: prepare its streams, and end it as docs/running.md says.

    Exit code 2 and one line for what the user can mend; 130 and the line `stopped` on Ctrl-C; 143 and the same line on
    SIGTERM, after `raise_at_sigterm`. A bug keeps its traceback. Output that was lost costs a warning only,
    as the records are there; see `streams.require_output` for commands whose result is their output.

    Before this is entered, while the command imports what it needs, `interrupts.end_at_ctrl_c` handles Ctrl-C.
    """
    try:
        raise_at_ctrl_c()
        prepare_streams()
        _commands.append(stopped)
        try:
            with users_errors():
                yield
        finally:
            _commands.pop()
    except UserError as error:
        print(f"error: {on_one_line(str(error))}", file=sys.stderr)
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


def is_command() -> bool:
    """Return whether a command is at work, within `exit_codes`. Otherwise the process is that of a caller."""
    return bool(_commands)


@contextmanager
def importing() -> Iterator[None]:
    """Around imports that take seconds: in a command, Ctrl-C ends the process as `interrupts.end_at_ctrl_c` says.

    Outside a command this changes nothing, as the process is not ours to end.
    """
    if is_command():
        end_at_ctrl_c()
    try:
        yield
    finally:
        raise_at_ctrl_c()


def on_one_line(text: str) -> str:
    """Return a text without breaks of lines, which what the user typed, or what a library says, may hold."""
    return " ".join(text.splitlines())


def _ignore_ctrl_c() -> None:
    """An impatient second Ctrl-C must not end in a traceback while Python shuts down."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def users_errors() -> Iterator[None]:
    """Turn what the machine refuses (no space, no permission, no memory) into a UserError; bugs keep their
    traceback."""
    try:
        yield
    except MemoryError as error:
        raise UserError(f"there is not enough memory for this: {error}".removesuffix(": ")) from error
    except RuntimeError as error:
        # torch has a class of its own for a GPU without memory, and none for a CPU.
        if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            "there is not enough memory on the device; take fewer --jobs, another --device or, if it happened in"
            " training, a smaller --batch-size"
        ) from error
    except ModuleNotFoundError as error:
        package = (error.name or "nlproar").partition(".")[0]
        if package not in REQUIRED and package not in _EXTRAS:  # of a plug-in, for example
            raise
        what = f"'.[{_EXTRAS[package]}]'" if package in _EXTRAS else "."
        raise UserError(
            f"the package {package} is not installed for {sys.executable}; activate the environment in which nlproar"
            f" is installed, or install it with: pip install -c constraints.txt -e {what}"
        ) from error
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error
