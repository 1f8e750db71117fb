"""What a user sees of a study: on a terminal a bar and a line for each worker, elsewhere plain lines."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Sequence

log = logging.getLogger(__name__)


class Display:
    """Shows `done` of `runs` runs, and what up to `workers` workers do."""

    def __init__(self, runs: int, done: int, workers: int) -> None:
        from tqdm import tqdm

        self.runs, self.count, self.live = runs, done, sys.stderr.isatty()
        self.bar = tqdm(
            total=runs, initial=done, unit="run", disable=not self.live, dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} runs{postfix}, {elapsed} so far",
        )  # fmt: skip
        self.lines = [
            tqdm(total=0, position=i, bar_format="{desc}", leave=False, disable=not self.live)
            for i in range(1, workers + 1)
        ]

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        for line in reversed(self.lines):
            line.close()
        self.bar.close()

    def show(self, doing: Sequence[str]) -> None:
        """What each worker does now, on a terminal."""
        self.bar.refresh()
        width = shutil.get_terminal_size().columns - 1
        for line, text in zip(self.lines, [*doing, *[""] * len(self.lines)], strict=False):
            line.set_description_str(text[:width])

    def done(self, text: str, time_left: str) -> None:
        """One run more is done."""
        self.count += 1
        self.bar.set_postfix_str(f"{time_left} left", refresh=False)
        self.bar.update(1)
        log.info("%d/%d runs, %s left: %s", self.count, self.runs, time_left, text)
