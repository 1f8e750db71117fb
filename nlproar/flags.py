"""Flags of the command line, declared as fields of dataclasses. Imports no torch.

What decides a run is spread over a few small dataclasses: the training recipe of a model, the parameters of an
importance measure, the parameters of an evaluation, and the options of a process. Each of them stands beside the code
that uses it. A field made by `flag` is a flag of every script, a part of the identity of a run (unless its dataclass is
`Options`), and a column of the tables; nothing else has to be edited.

    @dataclass(frozen=True)
    class Points:
        riemann_samples: int = flag(30, "points on the path of an integrated gradient", limits=(1, 1000))
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field
from numbers import Integral, Real
from typing import Any

from nlproar.errors import UserError

_KEY = "flag"  # of our entry in the metadata of a field


@dataclasses.dataclass(frozen=True)
class Flag:
    """What the command line has to know about a field."""

    help: str
    convert: Callable[[str], Any]  # from the word that the user typed
    choices: tuple[str, ...] | None
    limits: tuple[float, float] | None  # the least and the largest value that is allowed
    metavar: str | None
    many: bool  # the flag takes several values, and each of them makes a run


def flag(
    default: Any,
    help: str,
    *,
    convert: Callable[[str], Any] | None = None,
    choices: Iterable[str] | None = None,
    limits: tuple[float, float] | None = None,
    metavar: str | None = None,
    many: bool = False,
) -> Any:
    """Return a dataclass field that is also a flag. `convert` is the type of the default, unless it is given."""
    if convert is None:
        convert = type(default) if default is not None else str
    chosen = tuple(choices) if choices is not None else None
    entry = Flag(help, convert, chosen, limits, metavar, many)
    return dataclasses.field(default=default, metadata={_KEY: entry})


_flags_of: dict[type, Mapping[str, Field[Any]]] = {}  # a study resolves thousands of runs, and each looks at all flags


def flags_of(declaring: type | None) -> Mapping[str, Field[Any]]:
    """Return the fields of a dataclass that are flags, by name. None has no flags."""
    if declaring is None:
        return {}
    if declaring not in _flags_of:
        fields = dataclasses.fields(declaring)
        _flags_of[declaring] = {field.name: field for field in fields if _KEY in field.metadata}
    return _flags_of[declaring]


def flag_of(field: Field[Any]) -> Flag:
    """Return what `flag` noted about a field."""
    entry: Flag = field.metadata[_KEY]
    return entry


def spelled(name: str) -> str:
    """Return the flag of a field: "roar_strategy" is `--roar-strategy`."""
    return "--" + name.replace("_", "-")


def choose(usual: Any, values: Mapping[str, Any]) -> Any:
    """Return a dataclass instance like `usual`, changed to those of `values` that are flags of it; None for None.

    A value of None leaves what is usual. Raises UserError for a value that is not allowed.
    """
    if usual is None:
        return None
    flags = flags_of(type(usual))
    own = {name: value for name, value in values.items() if name in flags and value is not None}
    check(type(usual), own)
    return dataclasses.replace(usual, **{name: as_declared(flags[name], value) for name, value in own.items()})


def check(declaring: type, values: Mapping[str, Any]) -> None:
    """Raise UserError for the first of `values` that is a flag of a dataclass and is not allowed."""
    for name, field in flags_of(declaring).items():
        value = values.get(name)
        if value is None:
            continue
        entry = flag_of(field)
        value = as_declared(field, value)
        if entry.choices is not None and value not in entry.choices:
            raise UserError(f"{spelled(name)} {value}: choose from {', '.join(entry.choices)}")
        if entry.limits is not None:
            check_range(spelled(name), value, *entry.limits)
        if value == "":
            raise UserError(f"{spelled(name)} is empty; leave it out, or name a file or folder")


def as_declared(field: Field[Any], value: Any) -> Any:
    """Return a value with the type that the command line gives this flag, so that 0 and 0.0 are the same run.

    numpy's numbers become Python's, and paths become text. Raises UserError for a value of another kind.
    """
    name = spelled(field.name)
    if getattr(value, "ndim", None) == 0:  # a number of numpy or torch, and no array
        value = value.item()
    convert = bool if isinstance(field.default, bool) else flag_of(field).convert
    if convert is bool:
        if not isinstance(value, bool):
            raise UserError(f"{name} {value!r}: must be True or False")
        return value
    if convert in (int, float):
        is_number = isinstance(value, Integral if convert is int else Real) and not isinstance(value, bool)
        if not is_number:
            raise UserError(f"{name} {value!r}: must be a {'whole ' if convert is int else ''}number")
        return convert(value)
    if convert is str:
        if not isinstance(value, (str, os.PathLike)):
            raise UserError(f"{name} {value!r}: must be a text")
        return os.fspath(value)
    return value


def check_range(flag_name: str, value: float, least: float, most: float) -> None:
    """Raise UserError, naming the flag, for a value that is not between two bounds."""
    if not least <= value <= most:
        raise UserError(f"{flag_name} {value}: must be from {least} to {most}")


def values_of(chosen: Any) -> dict[str, Any]:
    """Return all flags of a dataclass instance with their values, as JSON can hold them; nothing for None."""
    if chosen is None:
        return {}
    return {name: getattr(chosen, name) for name in flags_of(type(chosen))}


def changed(chosen: Any, usual: Any) -> dict[str, Any]:
    """Return the flags of a dataclass instance that differ from those of `usual`; nothing for None."""
    if chosen is None:
        return {}
    return {name: value for name, value in values_of(chosen).items() if value != getattr(usual, name)}


def add_flags(parser: argparse._ActionsContainer, declaring: type, without: Iterable[str] = ()) -> None:
    """Give `parser` the flags of a dataclass. A flag that another dataclass has declared already is not repeated.

    A flag that is not given is absent from the result of the parser, so that each dataclass applies its own default.
    """
    known = parser._option_string_actions
    for name, field in flags_of(declaring).items():
        if name in without or spelled(name) in known:
            continue
        entry = flag_of(field)
        if isinstance(field.default, bool):
            action = argparse.BooleanOptionalAction
            parser.add_argument(spelled(name), action=action, default=argparse.SUPPRESS, help=_help(field))
            continue
        parser.add_argument(
            spelled(name),
            type=entry.convert,
            choices=entry.choices,
            metavar=entry.metavar or (name.upper() if entry.choices is None else None),
            nargs="+" if entry.many else None,
            default=argparse.SUPPRESS,
            help=_help(field),
        )


def _help(field: Field[Any]) -> str:
    """Return the help of a flag with its default, unless the help itself says what the default is."""
    text = flag_of(field).help.replace("%", "%%")
    if field.default is None or "default" in text:
        return text
    shown = ("yes" if field.default else "no") if isinstance(field.default, bool) else field.default
    return f"{text} (default: {shown})"
