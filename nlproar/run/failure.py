"""Why a run that was tried is not done: a small text that the next try, or its record, takes away."""

from __future__ import annotations

import logging

from nlproar import storage
from nlproar.errors import UserError, refusal
from nlproar.run.config import Config
from nlproar.run.layout import Layout

log = logging.getLogger(__name__)

_LONGEST = 2_000  # letters of a reason


def note(layout: Layout, config: Config, error: Exception | str) -> None:
    """Say that the run failed. Of a bug only the type is kept, as its message may hold a text of the data.

    Where not even that can be written, on a full disk for example, there is a warning and `error` stays what counts.
    """
    reason = _reason(error)
    path = layout.failure(config)
    try:
        with storage.owner_only(config.task.confidential), storage.whole_file(path) as file:
            file.write(_as_line(reason).encode())
    except (OSError, UserError) as problem:
        log.warning("why this run failed cannot be noted: %s", _reason(problem))


def _reason(error: Exception | str) -> str:
    if isinstance(error, OSError):
        error = refusal(error) or error
    if isinstance(error, (UserError, str)):
        return str(error)
    return f"unexpected {type(error).__name__}; its log has the traceback"


def _as_line(text: str) -> str:
    """One line that a terminal can show: a path in the text may hold anything."""
    line = " ".join(text.split())[:_LONGEST]
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def clear(layout: Layout, config: Config) -> None:
    """Remove the note, or what is in its place, but no folder."""
    path = layout.failure(config)
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)


def of(layout: Layout, config: Config) -> str | None:
    """Return the reason that `note` left, None where the run did not fail. It is one line that a terminal can show."""
    path = layout.failure(config)
    try:
        with storage.open_file(path) as file:
            text = file.read(10 * _LONGEST).decode()  # a letter is at most ten bytes, as \\U0010ffff
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        text = ""
    except storage.NotAFile as error:
        return str(error)
    return text if text and text.isprintable() else f"{path} is damaged and does not say why"
