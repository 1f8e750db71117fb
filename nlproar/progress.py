"""What a user sees while it happens: bars with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30


class Bar(Protocol):
    """Something that counts steps."""

    def update(self, n: int, /) -> object:
        """Count `n` more steps."""
        ...


class _Lines:
    """Stands for the bar where nobody watches: now and then a line in the log."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self.started = self.last = time.monotonic()

    def update(self, n: int, /) -> None:
        self.done += n
        now = time.monotonic()
        if self.total and now - self.last > _SECONDS_BETWEEN_LINES:
            self.last = now
            left = (now - self.started) * (self.total - self.done) / max(self.done, 1)
            log.info("%s: %.0f %%, %.0f s left", self.description, 100 * self.done / self.total, left)


@contextmanager
def stage(description: str, total: int | None, unit: str) -> Iterator[Bar]:
    """Show the progress of one stage of a run; call `.update(n)` on what this yields."""
    from tqdm import tqdm

    started = time.monotonic()
    if sys.stderr.isatty():
        with tqdm(total=total, desc=description, unit=unit, leave=False, dynamic_ncols=True) as bar:
            yield bar
            done = bar.n
    else:
        lines = _Lines(description, total)
        yield lines
        done = lines.done
    log.info("%s: %s %s in %.1f s", description, f"{done:,}", unit, time.monotonic() - started)


class _AroundBars(logging.Handler):
    """Writes log lines above the bars instead of through them."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


class _Prefix(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"


def show_log() -> None:
    """Send the package's log to stderr. Scripts call this; the library itself never prints."""
    logger = logging.getLogger("nlproar")
    if not logger.handlers:
        handler = _AroundBars()
        handler.setFormatter(_Prefix())
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
