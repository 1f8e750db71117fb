"""Why a run that was tried is not done: a small text that the next try, or its record, takes away."""

from __future__ import annotations

import logging

from nlproar import storage
from nlproar.errors import UserError, refusal
from nlproar.run.config import Config
from nlproar.run.layout import Layout

log = logging.getLogger(__name__)


def note(layout: Layout, config: Config, error: Exception | str) -> None:
    """Say that the run failed. Of a bug only the type is kept, as its message may hold a text of the data.

    Where not even that can be written, on a full disk for example, there is a warning and `error` stays what counts.
    """
    reason = _reason(error)
    path = layout.failure(config)
    try:
        with storage.owner_only(config.task.confidential), storage.whole_file(path) as file:
            file.write(reason.replace("\n", " ").encode(errors="backslashreplace"))
    except (OSError, UserError) as problem:
        log.warning("why this run failed cannot be noted: %s", _reason(problem))


def _reason(error: Exception | str) -> str:
    if isinstance(error, OSError):
        error = refusal(error) or error
    if isinstance(error, (UserError, str)):
        return str(error)
    return f"unexpected {type(error).__name__}; its log has the traceback"


def clear(layout: Layout, config: Config) -> None:
    """Remove the note. Whatever of another kind is in its place stays, unless it is a link."""
    path = layout.failure(config)
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)


def of(layout: Layout, config: Config) -> str | None:
    """Return the reason that `note` left, None where the run did not fail."""
    try:
        text = storage.read_bytes(layout.failure(config)).decode(errors="replace")
        return text.strip() or f"{layout.failure(config)} says nothing"
    except FileNotFoundError:
        return None
    except storage.NotAFile as error:
        return str(error)
