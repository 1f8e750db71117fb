"""Chains carried out by worker processes: started, watched through the disk, and stopped. Imports no torch.

A worker is the very command that `--list` prints. What it has done is read from its records, what it is doing from the
last line of its log; so a worker that is killed, with or without the study, costs the level it was at and no more.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlproar import storage
from nlproar.errors import UserError
from nlproar.run import overwrite, record
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.run.overwrite import Stamps
from nlproar.run.record import Record
from nlproar.study import processes
from nlproar.study.grid import Chain
from nlproar.study.processes import WorkerProcess

_PATIENCE = 10  # seconds in which a worker has to stop by itself
_TAIL = 4096  # bytes of a log that are looked at


@dataclass
class Worker:
    """The process of a chain. `todo` are the levels it is to do, in order."""

    chain: Chain
    todo: list[Config]
    process: WorkerProcess
    log: Path

    def doing(self) -> str:
        """The level it is at, and what it said last."""
        level = f"k = {self.todo[0].at_level}" if self.todo else "ending"
        return f"{self.chain.title}, {level}: {last_line(self.log)}"


def start(layout: Layout, chain: Chain, todo: list[Config], threads: int) -> Worker:
    """Start the process of `chain`, with its share of the cores."""
    log = layout.log(chain.configs[-1])
    process = processes.start(chain.arguments(todo), log, chain.configs[0].task.confidential, threads)
    return Worker(chain, list(todo), process, log)


def new_records(layout: Layout, worker: Worker, old: Stamps) -> list[tuple[Config, Record]]:
    """The levels that are done since this was last asked, with their records. Those whose record still has the stamp of
    the `old` one are not done."""
    found = []
    while worker.todo:
        config = worker.todo[0]
        stamp = record.stamp(layout.record(config))
        is_missing = stamp is None
        is_the_old_one = stamp == old.get(overwrite.name(config))
        if is_missing or is_the_old_one:
            break
        try:
            content = record.read(layout.record(config), config)
        except UserError:  # the worker meets it too, and says so
            break
        if not content:
            break
        found.append((worker.todo.pop(0), content))
    return found


def reason(worker: Worker) -> str:
    """Why a worker that ended did not do all of its levels."""
    code = worker.process.returncode
    assert code is not None
    if code < 0:
        return f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
    text = last_line(worker.log)
    return text.removeprefix("error: ") if text.startswith("error: ") else f"exit code {code}: {text}"


def stop(running: Sequence[Worker]) -> None:
    """End all, politely first."""
    for worker in running:
        worker.process.terminate()
    deadline = time.monotonic() + _PATIENCE
    for worker in running:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def last_line(path: Path) -> str:
    """Of a log that may be growing."""
    try:
        file = storage.open_file(path)
    except (FileNotFoundError, storage.NotAFile):  # somebody tidied up meanwhile
        return "its log is gone"
    with file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
