"""Why a run that was tried is not done: a small text that the next try, or its record, takes away."""

from __future__ import annotations

import logging

from nlproar import storage
from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.experiment.config import Config
from nlproar.experiment.layout import Layout

log = logging.getLogger(__name__)


def note(layout: Layout, config: Config, error: Exception | str) -> None:
    """Say that the run failed. Of a bug only the type is kept, as its message may hold a text of the data.

    A disk without room even for that does not hide `error`: it is only warned of.
    """
    known = isinstance(error, (UserError, str))
    reason = str(error) if known else f"unexpected {type(error).__name__}; its log has the traceback"
    try:
        with (
            storage.owner_only(load_task(config.dataset).confidential),
            storage.whole_file(layout.failure(config)) as file,
        ):
            file.write(reason.replace("\n", " ").encode())
    except OSError as problem:
        log.warning("%s cannot be noted: %s", layout.failure(config), problem)


def clear(layout: Layout, config: Config) -> None:
    layout.failure(config).unlink(missing_ok=True)


def of(layout: Layout, config: Config) -> str | None:
    """The reason that `note` left, None where the run did not fail."""
    path = layout.failure(config)
    return path.read_text(encoding="utf-8") if path.exists() else None
