"""The command `nlproar`. Most of its subcommands are also scripts in `experiments/`.

Imports only what the subcommand needs, so that the help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import nlproar
from nlproar.interrupts import end_at_ctrl_c

COMMANDS = {
    "run": "make one run, or the runs at several levels of a curve",
    "study": "make the runs of a whole grid, several at a time",
    "importance": "write the importance of every token of a data set as a table",
    "report": "write tables, figures and a page of everything that was run",
    "ls": "list what was run",
    "verify": "carry out a finished run again, and compare it with its record",
    "pack": "put all results into one archive, without models and raw files",
    "prepare": "download and encode data ahead of the runs",
    "synthetic": "show on a synthetic task why ROAR is made recursive",
    "migrate": "convert records and models of earlier versions",
}

_USAGE = """usage: nlproar COMMAND [flags]

Measures how faithful explanations of text classifiers are.

commands:
{commands}

"nlproar COMMAND --help" lists the flags of a command.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand. Exits as that one says, with 2 for one that does not exist."""
    words = list(sys.argv[1:] if argv is None else argv)
    end_at_ctrl_c()  # until the command handles it, see `script.exit_codes`
    if not words or words[0] not in COMMANDS:
        _without_command(words)
        return
    name, *rest = words
    command = _command(name)
    from nlproar.script import Parser

    Parser.command = f"nlproar {name}"
    command(_sentence(COMMANDS[name]), rest)


def _without_command(words: Sequence[str]) -> None:
    """Print the help or the version. Exits with 2 for a command that does not exist."""
    from nlproar.errors import UserError
    from nlproar.script import exit_codes
    from nlproar.streams import require_output

    with exit_codes("interrupted"):
        if not words or words[0] in ("-h", "--help"):
            listed = "\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())
            print(_USAGE.format(commands=listed), end="")
        elif words[0] in ("-V", "--version"):
            print(f"nlproar {nlproar.__version__}")
        else:
            raise UserError(f"there is no command {words[0]!r}; choose from {', '.join(COMMANDS)}")
        require_output()


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _command(name: str) -> Callable[[str, list[str]], None]:
    """Return the function behind a subcommand: it takes a description and the words that follow."""
    if name == "run":
        from nlproar.run.cli import main_of_any_task as command
    elif name == "study":
        from nlproar.study.cli import main as command
    elif name == "importance":
        from nlproar.run.importance_table import main as command
    elif name == "report":
        from nlproar.report.cli import main as command
    elif name == "ls":
        from nlproar.run.listing import main as command
    elif name == "verify":
        from nlproar.run.verify import main as command
    elif name == "pack":
        from nlproar.run.pack import main as command
    elif name == "prepare":
        from nlproar.prepare import main as command
    elif name == "migrate":
        from nlproar.run.migrate import main as command
    else:
        from nlproar.synthetic import main as command
    return command


if __name__ == "__main__":
    main()
