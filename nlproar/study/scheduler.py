"""Carry out the chains of a study, several at a time, each once what it needs is done. Imports no torch."""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence

from nlproar import process
from nlproar.run import failure, overwrite, record
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.record import Record
from nlproar.run.series import has_curves, scores_of
from nlproar.study import workers
from nlproar.study.checkpoints import Unneeded
from nlproar.study.display import Display
from nlproar.study.grid import Chain
from nlproar.study.status import Estimates, Status, duration, kind_of, kinds_of, time_left
from nlproar.study.workers import Worker

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.05  # a worker whose chain takes half a second waits for the next one that long


class Scheduler:
    """The state of a study while it runs. `status` is kept up to date; what failed or was skipped stays missing.

    With `unneeded`, weights are removed as soon as no run of the study needs them.
    """

    def __init__(
        self, layout: Layout, chains: Sequence[Chain], status: Status, jobs: int, unneeded: Unneeded | None = None
    ) -> None:
        self.layout = layout
        self.status = status
        self.jobs = jobs
        self.unneeded = unneeded
        self.threads = process.share_of_threads(jobs)
        self.estimates = Estimates(status.records.values())
        self.runs = sum(len(chain.configs) for chain in chains)
        self.skipped: list[Config] = []
        self.running: list[Worker] = []
        # Chain -> those of its runs that are not done, in the order in which chains are started.
        self.waiting: dict[Chain, list[Config]] = {}
        for chain in sorted(_in_turn(chains), key=self._place_in_order):
            missing = status.missing(chain)
            if missing:
                self.waiting[chain] = missing
        self.unusable: dict[Config, str] = {}  # runs whose record is of no use, and why
        self.old = dict(status.replaces)  # runs that are not done while they have the record of this stamp
        self.awaited = set(_runs_of(self.waiting.values()))  # not done, and not failed yet
        self.kinds_left = kinds_of(self.awaited)

    def _place_in_order(self, chain: Chain) -> tuple[bool, float]:
        """Return what chains are sorted by: first what others wait for, then the longest, so that none is left alone at
        the end. Those that are equal stay in turn, see `_in_turn`."""
        is_for_others = chain.stage == "base"
        seconds, _ = self.estimates.total(kinds_of(self.status.missing(chain)))
        return not is_for_others, -seconds

    def carry_out(self) -> None:
        """Run everything. However this ends, no worker is left behind."""
        to_do = _runs_of(self.waiting.values())
        for config in to_do:
            why = self.status.failures.pop(config, None)
            if why is not None:
                self._try_again(config, why)
        done = self.runs - len(to_do)
        with Display(self.runs, done, min(self.jobs, len(self.waiting))) as display:
            try:
                while self.waiting or self.running:
                    self._start_what_can()
                    if display.live:
                        display.show([worker.doing() for worker in self.running])
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    for worker in list(self.running):
                        self._look_at(worker, display)
            finally:
                workers.stop(self.running)

    def _try_again(self, config: Config, why: str) -> None:
        """Forget why a run has failed. A record that is there is of no use, so the run is not done as long as it has
        that one."""
        failure.clear(self.layout, config)
        stamp = record.stamp(self.layout.record(config))
        if stamp is not None:
            self.unusable[config] = why
            self.old[overwrite.name(config)] = stamp

    def _start_what_can(self) -> None:
        """Start chains whose prerequisites are done, as many as may run, and skip those whose prerequisites failed."""
        for chain, todo in list(self.waiting.items()):
            if len(self.running) == self.jobs:
                return
            needs = chain.needs
            if any(needed in self.status.failures or needed in self.skipped for needed in needs):
                del self.waiting[chain]
                self.skipped += todo
                self._await_no_longer(todo)
            elif self.awaited.isdisjoint(needs):
                del self.waiting[chain]
                self.running.append(workers.start(self.layout, chain, todo, self.threads))

    def _look_at(self, worker: Worker, display: Display) -> None:
        """Take note of the records that a worker has written, and of its end."""
        ended = worker.process.poll() is not None  # asked first: what it wrote before it ended is seen below
        for config, done in workers.new_records(self.layout, worker, self.old):
            self.status.records[config] = done
            self._await_no_longer([config])
            self.estimates.add(done)
            if self.unneeded is not None:
                self.unneeded.run_is_done(config)
            left = time_left(self.estimates, self.kinds_left, self.jobs)
            display.done(_result(worker.chain, config, done), left)
        if ended:
            self.running.remove(worker)
            if worker.todo:
                self._failed(worker)

    def _failed(self, worker: Worker) -> None:
        """Note what a worker that ended left undone; a base that failed lets nobody wait any longer."""
        failed, *rest = worker.todo
        noted = failure.of(self.layout, failed)
        why = noted or workers.reason(worker)
        if worker.process.returncode == 0 and failed in self.unusable:  # the worker has read that record without a word
            why = self.unusable[failed]
        self.status.failures[failed] = why
        self.skipped += rest
        self._await_no_longer(worker.todo)
        if noted is None:  # the worker could not say so itself
            failure.note(self.layout, failed, why)
        log.error("%s, k = %d: %s; see %s", worker.chain.title, failed.at_level, why, worker.log)

    def _await_no_longer(self, configs: Iterable[Config]) -> None:
        """Note that these runs are done, have failed, or are skipped."""
        for config in configs:
            if config in self.awaited:
                self.awaited.remove(config)
                self.kinds_left[kind_of(config.values)] -= 1


def _in_turn(chains: Iterable[Chain]) -> list[Chain]:
    """Return the first chain of every task and seed, then the second one of each, and so on.

    Chains of one seed may need the same importance, such as the limits of normalised erasure: one of them computes it,
    and the others would wait.
    """
    of_seeds: dict[tuple[str, int], list[Chain]] = defaultdict(list)
    for chain in chains:
        first = chain.configs[0]
        of_seeds[first.dataset, first.seed].append(chain)
    rounds = itertools.zip_longest(*of_seeds.values())
    return [chain for of_round in rounds for chain in of_round if chain is not None]


def _runs_of(lists: Iterable[Sequence[Config]]) -> list[Config]:
    """Return the runs of all these lists, in order."""
    return list(itertools.chain.from_iterable(lists))


def _result(chain: Chain, config: Config, done: Record) -> str:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in scores_of(done).items()) or "no score"
    level = f", k = {config.at_level}" if has_curves(config.evaluation) else ""
    return f"{chain.title}{level}: test {scores}, {duration(done.seconds)}"
