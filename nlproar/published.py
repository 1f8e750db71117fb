"""Command lines of the published code, in the words of this package.

A user of the published repository can keep typing what they typed there, where it means the same here. Where it does
not, the message names the flag that does it. docs/from-the-original-code.md lists every flag and script.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from nlproar.errors import UserError

DATASETS = {"mimic-a": "mimic-anemia", "mimic-d": "mimic-diabetes"}  # names of data sets

_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no", "")


def in_our_words(argv: Sequence[str] | None = None) -> list[str]:
    """Return the words of a command line, with those of the published code replaced.

    For example, `--use-gpu True` becomes `--device cuda`. `argv` is by default that of the process. Raises UserError
    for a published flag that has no counterpart.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    found: list[str] = []
    position = 0
    while position < len(words):
        name, equals, after = words[position].partition("=")
        value = after if equals else None
        position += 1
        if name not in _TRANSLATED:
            found.append(words[position - 1])
            continue
        if not equals and position < len(words) and not words[position].startswith("--"):
            value = words[position]
            position += 1
        found += _TRANSLATED[name](value)
    return found


def _use_gpu(value: str | None) -> list[str]:
    if value is None or value.lower() in _TRUE:
        return ["--device", "cuda"]
    if value.lower() in _FALSE:
        return ["--device", "cpu"]
    raise UserError(f"--use-gpu {value}: choose True or False, or name a device with --device")


def _importance_caching(value: str | None) -> list[str]:
    """Importance is always cached here, under a key of everything that decides it, so there is nothing to choose."""
    if value in ("use", "build"):
        return []
    raise UserError(
        f"--importance-caching {value or ''}: choose use or build, or leave it out, as importance is always cached"
    )


_TRANSLATED = {
    "--use-gpu": _use_gpu,
    "--importance-caching": _importance_caching,
}
