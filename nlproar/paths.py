"""Paths as a user types them, and names that become parts of paths."""

from __future__ import annotations

import os
import re
import unicodedata

from nlproar.errors import UserError

_BREAK_A_LINE = ("Cc", "Zl", "Zp")  # Unicode's control characters, and its separators of lines and paragraphs
_NAME = re.compile(r"\w[\w.-]*")  # no hidden file, no other folder, and no flag


def as_utf8(path: str) -> str:
    """A path as it reads in UTF-8, whatever the encoding of this process; a byte that is no UTF-8 as `\\xff`."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def user_path(flag: str, text: str) -> str:
    """The path `text`, which stands behind `flag` or in a variable of that name, with `~` as the home folder.

    A relative path stays relative to the folder the user stands in. Raises UserError for an empty path, and for
    characters that would break lines of logs, messages and job lists.
    """
    if not text:
        raise UserError(f"{flag} is empty; name a folder or file")
    for character in as_utf8(text):
        if unicodedata.category(character) in _BREAK_A_LINE:
            raise UserError(f"{flag} {text!r}: the path holds the control character {character!r}; rename it")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = text.partition("/")[0]
        raise UserError(f"{flag} {text}: there is no user {user[1:]}; write ./{text} for a name that begins with ~")
    return expanded


def check_name(what: str, name: str) -> None:
    """Raise UserError for a name of `what` ("task") that must not be a part of the name of a file."""
    if _NAME.fullmatch(name) is None:
        raise UserError(f"{what} {name!r}: give it a name of letters, digits, _ and, after the first one, - and .")
