"""Trained weights that no run of a study needs any more, which are removed as the study goes on. Imports no torch.

A run needs the weights of another run while it is not done and looks at that model: it explains it, tests it, or
continues from its explanation. A run that has failed, or that is left for another stage, is not done. The removal of
one checkpoint is atomic for its readers and for a process that is killed, see `checkpoint.discard`.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable

from nlproar import storage
from nlproar.errors import UserError
from nlproar.model import checkpoint
from nlproar.run import prerequisites
from nlproar.run.config import Config
from nlproar.run.layout import Layout

log = logging.getLogger(__name__)

KEEP = ("all", "needed")


def refuse_jobs(keep: str, jobs: str) -> None:
    """Raise UserError if only some weights are kept (`keep`, see `KEEP`) and other processes, the `jobs`, carry out the
    runs."""
    if keep == "needed":
        raise UserError(
            f"--keep-checkpoints needed does not go with {jobs}, as it is not known when those runs end; once they"
            " have, nlproar study with this flag removes what is not needed"
        )


class Unneeded:
    """Removes the weights of those of `runs`, all of a study, that are `done` and that no other one needs."""

    def __init__(self, layout: Layout, runs: Iterable[Config], done: Iterable[Config]) -> None:
        self.layout = layout
        self.done = set(done)
        self.users: dict[Config, set[Config]] = defaultdict(set)  # the run of a model -> the runs that still need it
        for config in set(runs) - self.done:
            for needed in config.needs():
                self.users[needed].add(config)
        self.locked: list[Config] = []  # could not be removed yet, as a process had the lock of the run
        self.removed = 0  # checkpoints
        self.bytes = 0  # of their weights

    def run_is_done(self, config: Config) -> None:
        """Note that a run is done. Remove the weights that only this run still needed, and its own if no run does."""
        self.done.add(config)
        needs = config.needs()
        for needed in needs:
            self.users[needed].discard(config)
        were_locked = self.locked
        self.locked = []  # `remove` adds those that still are
        self.remove([config, *needs, *were_locked])

    def remove_all(self) -> None:
        """Remove the weights of every run that is done and that no other run needs."""
        self.remove(self.done)

    def remove(self, configs: Iterable[Config]) -> None:
        """Remove the weights of those of `configs` that are done and that no other run needs."""
        for config in configs:
            if config in self.done and not self.users.get(config):
                try:
                    self._remove(config)
                except OSError as error:  # the study goes on
                    log.warning("%s: the weights cannot be removed (%s)", config.id, error)

    def _remove(self, config: Config) -> None:
        """Remove the weights of a run, or note that a process has its lock."""
        folder = self.layout.checkpoint(config)
        if not checkpoint.is_any_left(folder):
            return
        with storage.lock_if_free(self.layout.record(config)) as held:
            if not held:  # its worker has written the record just now, or a process is making the run again
                self.locked.append(config)
                return
            self.bytes += checkpoint.discard(folder)
            self.removed += 1


def gone(layout: Layout, left: Collection[Config]) -> list[Config]:
    """Return the finished runs whose models those that are `left` look at, and whose weights were deleted."""
    to_do = set(left)
    needed: dict[Config, None] = {}  # in the order of those that are left, each once
    for config in left:
        needed |= dict.fromkeys(config.needs())
    finished = [config for config in needed if config not in to_do]
    return [config for config in finished if prerequisites.is_gone(layout, config)]
