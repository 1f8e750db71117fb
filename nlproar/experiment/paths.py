"""Paths as a user types them."""

from __future__ import annotations

import os
import unicodedata

from nlproar.errors import UserError

_BREAK_A_LINE = ("Cc", "Zl", "Zp")  # Unicode's control characters, and its separators of lines and paragraphs


def user_path(flag: str, text: str) -> str:
    """The path `text`, which stands behind `flag` or in a variable of that name, with `~` as the home folder.

    A relative path stays relative to the folder the user stands in. Raises UserError for an empty path, and for
    characters that would break lines of logs, messages and job lists.
    """
    if not text:
        raise UserError(f"{flag} is empty; name a folder or file")
    for character in text:
        if unicodedata.category(character) in _BREAK_A_LINE:
            raise UserError(f"{flag} {text!r}: the path holds the control character {character!r}; rename it")
        if unicodedata.category(character) == "Cs":  # Python's stand-in for a byte that it cannot decode
            raise UserError(f"{flag} {text!r}: the path holds a byte that is no text here; rename it")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = text.partition("/")[0]
        raise UserError(f"{flag} {text}: there is no user {user[1:]}; write ./{text} for a name that begins with ~")
    return expanded
