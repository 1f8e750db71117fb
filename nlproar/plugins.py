"""Measures, tasks, models and evaluations of your own, from a file that is not a part of the package.

A plug-in is a Python file or an importable module. It adds entries to the registries when it is imported:

    from nlproar.explain import MEASURES, Measure

    MEASURES["first-token"] = Measure("my_measures:FirstToken", needs_model=False)

`--plugin my_measures.py` (or $NLPROAR_PLUGINS, with several separated by a colon) loads it before flags are parsed, so
that what it adds is on the command line, in studies and in the report. Imports no torch by itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from nlproar.errors import UserError

VARIABLE = "NLPROAR_PLUGINS"  # in the environment; the processes of a study inherit it

_loaded: set[str] = set()


def load_named(argv: Sequence[str] | None = None) -> None:
    """Load the plug-ins that a command line and the environment name, and let processes that are started find them."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    given = []
    for position, word in enumerate(words):
        if word == "--plugin" and position + 1 < len(words):
            given.append(words[position + 1])
        elif word.startswith("--plugin="):
            given.append(word.removeprefix("--plugin="))
    if len(given) > 1:  # the commands that are printed would have the last one only
        raise UserError(f"--plugin is given {len(given)} times; give it once: --plugin {os.pathsep.join(given)}")
    for one in given:
        names += one.split(os.pathsep)
    named = [load(name) for name in dict.fromkeys(names)]
    if named:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(named))


def load_all(names: str) -> None:
    """Load the plug-ins that a value of `--plugin` names, if they are not loaded yet."""
    for name in names.split(os.pathsep):
        load(name)


def load(name: str) -> str:
    """Load one plug-in, a file or a module, and return the name by which another process finds it.

    Raises UserError where it is not there, or is not Python. What goes wrong while it runs keeps its traceback: it is
    the user's code.
    """
    if not name:
        raise UserError("--plugin is empty; name a Python file or a module")
    path = Path(name).expanduser()
    if path.suffix != ".py" and not path.is_file():
        return _import_module(name)
    if not path.is_file():
        raise UserError(f"--plugin {name}: there is no such file; name a Python file or a module")
    place = str(path.resolve())
    if place not in _loaded:
        specification = importlib.util.spec_from_file_location(path.stem, place)
        if specification is None or specification.loader is None:
            raise UserError(f"--plugin {name}: this is not a Python file")
        _check_is_free(path.stem, name)
        module = importlib.util.module_from_spec(specification)
        sys.modules[path.stem] = module  # where the registries look for what it has registered
        try:
            with _syntax_errors_named(name):
                specification.loader.exec_module(module)
        except BaseException:
            del sys.modules[path.stem]
            raise
        _loaded.add(place)
    return place


def imported(module: str, what: str) -> ModuleType:
    """Return the module that the entry of a registry names for `what`, as in "task films".

    Raises UserError if there is no such module, as when the file of a plug-in was given another name.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        is_of_module = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        if not is_of_module or not _loaded:
            raise
        files = ", ".join(sorted(Path(place).name for place in _loaded))
        raise UserError(
            f"the entry {module!r} of {what} names no module; the plug-in is {files}, so write its name without .py"
        ) from error


def _check_is_free(stem: str, name: str) -> None:
    """Raise UserError if a module of this name is loaded, which a plug-in would take the place of."""
    if stem in sys.modules:
        raise UserError(f"--plugin {name}: another module is called {stem}; give the file another name")


def _import_module(name: str) -> str:
    """Import a module, and return the name by which another process finds it.

    That is its file where it can be: the module may lie in the current folder, where workers do not look.
    """
    if name not in _loaded:
        _import_for_the_first_time(name)
    file = getattr(sys.modules[name], "__file__", None)
    if file is None or Path(file).stem != name:
        return name
    place = str(Path(file).resolve())
    _loaded.add(place)
    return place


def _import_for_the_first_time(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"--plugin {name}: there is no such module and no such file")
    try:
        with _syntax_errors_named(name):
            importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        raise UserError(f"--plugin {name}: there is no such module and no such file") from error
    _loaded.add(name)


@contextmanager
def _syntax_errors_named(name: str) -> Iterator[None]:
    """Turn a SyntaxError into a UserError with the file and the line."""
    try:
        yield
    except SyntaxError as error:
        place = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"--plugin {name}: {error.filename or name}{place}: {error.msg}; correct the file") from error
    except ValueError as error:
        if "null bytes" not in str(error):  # of the plug-in's own code
            raise
        # Python before 3.11.4 says so of a file that is no text, and later ones by a SyntaxError.
        raise UserError(f"--plugin {name}: {error}; correct the file") from error
