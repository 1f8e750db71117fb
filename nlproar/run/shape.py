"""Checks of the shape of JSON values, which say in words where a value is not what it should be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class WrongShape(ValueError):
    """What is wrong, as a clause: "metrics.test.accuracy is missing"."""


@dataclass(frozen=True)
class Kind:
    """A kind of value: what it is called in messages, and whether a value is one."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Every:
    """A JSON object in which every value has the same shape, whatever the names are."""

    shape: Any


@dataclass(frozen=True)
class Listed:
    """A JSON list of at least so many entries, in which every entry has the same shape."""

    shape: Any
    least: int = 0


@dataclass(frozen=True)
class OrNull:
    """A value that may be null."""

    shape: Any


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number that fits into eight bytes. True and False are not numbers here."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return is_number(value) and isinstance(value, int)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool)) or is_number(value)


_ROUNDING = 1e-6  # by which a mean of single precision may exceed 1

TEXT = Kind("a text", lambda value: isinstance(value, str) and value != "")
TRUTH = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a finite number", is_number)
AMOUNT = Kind("a finite number of 0 or more", lambda value: is_number(value) and value >= 0)
SHARE = Kind("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1 + _ROUNDING)
COUNT = Kind("a whole number of 0 or more", lambda value: _is_whole(value) and value >= 0)
POSITIVE = Kind("a whole number of 1 or more", lambda value: _is_whole(value) and value >= 1)
PLAIN = Kind("a text, a number, true, false or null", _is_plain)


def check(value: Any, shape: Any, place: str = "") -> None:
    """Raise WrongShape where `value`, found at `place`, has not this shape.

    A shape is one of the classes above or a dictionary: a JSON object that has at least these names.
    """
    if isinstance(shape, OrNull):
        if value is not None:
            check(value, shape.shape, place)
        return
    if isinstance(shape, Kind):
        if not shape.holds(value):
            raise WrongShape(f"{place} is {shown(value)}, not {shape.words}")
        return
    if isinstance(shape, Listed):
        _check_list(value, shape, place)
        return
    _check_object(value, shape, place)


def _check_list(value: Any, shape: Listed, place: str) -> None:
    if not isinstance(value, list):
        raise WrongShape(f"{place} is {shown(value)}, not a list")
    if len(value) < shape.least:
        raise WrongShape(f"{place} has {len(value)} entries, not {shape.least} or more")
    for number, entry in enumerate(value):
        check(entry, shape.shape, f"{place}[{number}]")


def _check_object(value: Any, shape: Any, place: str) -> None:
    if not isinstance(value, dict):
        raise WrongShape(f"{place or 'it'} is {shown(value)}, not an object")
    if isinstance(shape, Every):
        shape = dict.fromkeys(value, shape.shape)
    for name, inner in shape.items():
        inside = f"{place}.{name}" if place else name
        if name not in value:
            raise WrongShape(f"{inside} is missing")
        check(value[name], inner, inside)


def shown(value: Any) -> str:
    """Return a value for a message, shortened where it is long."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= 100 else text[:97] + "..."
