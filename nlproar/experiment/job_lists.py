"""The missing chains of a study as lists for job arrays: one line a chain, one list for each task and stage."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nlproar import storage
from nlproar.dataset import load_task
from nlproar.experiment.config import Config
from nlproar.experiment.grid import Chain
from nlproar.experiment.layout import Layout
from nlproar.experiment.status import Status


@dataclass(frozen=True)
class JobList:
    """An array to submit. `waits`: "no"; "afterok", for the whole base list of its task and for the jobs `after`;
    "aftercorr", where line i waits for line i of that list only."""

    task: str
    stage: str  # base, measures
    chains: tuple[Chain, ...]
    waits: str = "no"
    after: tuple[str, ...] = ()


def plan(chains: Iterable[Chain], status: Status, queued: dict[str, str]) -> list[JobList]:
    """What is missing and not queued. `queued`: name of a chain -> job that has it (see `in_queue`)."""
    of_task: dict[str, list[Chain]] = {}
    for chain in chains:
        if status.missing(chain):
            of_task.setdefault(chain.configs[0].dataset, []).append(chain)
    return [found for task, missing in of_task.items() for found in _plan_task(task, missing, queued) if found.chains]


def _plan_task(task: str, missing: Sequence[Chain], queued: dict[str, str]) -> list[JobList]:
    bases = [chain for chain in missing if chain.stage == "base"]
    awaited = {chain.configs[0] for chain in bases}
    new = tuple(chain for chain in missing if name(chain) not in queued)
    base = tuple(chain for chain in new if chain.stage == "base")
    waiting = tuple(chain for chain in new if chain.base in awaited)
    ready = tuple(chain for chain in new if chain not in base + waiting)
    after = {queued[name(chain)] for chain in bases if name(chain) in queued}
    one_to_one = not after and [chain.base for chain in waiting] == [chain.configs[0] for chain in base]
    return [
        JobList(task, "base", base),
        JobList(task, "measures", ready),
        JobList(task, "measures", waiting, "aftercorr" if one_to_one else "afterok", tuple(sorted(after))),
    ]


def name(chain: Chain) -> str:
    """The same while levels of the chain get done."""
    return chain.configs[-1].id


def in_queue(layout: Layout, elements: Iterable[str]) -> dict[str, str]:
    """Which chains Slurm still has, and in which job, from lines "job index" of its queue.

    Elements that were not submitted from here, or whose list is gone, are left out.
    """
    lists = {}
    if _submitted(layout).exists():
        for line in _submitted(layout).read_text(encoding="utf-8").splitlines():
            job, file, start = line.split("\t")
            if Path(file).exists():
                names = [line.split("\t")[0] for line in Path(file).read_text(encoding="utf-8").splitlines()]
                lists[job] = names[int(start) :]
    found = {}
    for job, index in (line.split() for line in elements if line.strip()):
        if index.isdigit() and int(index) < len(lists.get(job, [])):
            found[lists[job][int(index)]] = job
    return found


def _submitted(layout: Layout) -> Path:
    """Written by batch_jobs/submit.sh: lines of job, list and first line of it, separated by tabs."""
    return layout.logs / "slurm" / "submitted.tsv"


def write(layout: Layout, lists: Sequence[JobList], status: Status) -> list[str]:
    """Write each list, a line "name <tab> command" for each chain; returns what submit.sh reads, a line for each list:
    task, stage, file, number of lines, waits, after (jobs, separated by colons, or "-"), record of submissions."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    shown = []
    for number, found in enumerate(lists):
        file = layout.logs.absolute() / "slurm" / found.task / f"{stamp}-{number}-{found.stage}.jobs"
        lines = [f"{name(chain)}\t{_command(chain, status.missing(chain))}\n" for chain in found.chains]
        with storage.owner_only(load_task(found.task).confidential), storage.whole_file(file) as out:
            out.write("".join(lines).encode())
        after = ":".join(found.after) or "-"
        cells = (found.task, found.stage, file, len(lines), found.waits, after, _submitted(layout).absolute())
        shown.append("\t".join(map(str, cells)))
    return shown


def _command(chain: Chain, missing: Sequence[Config]) -> str:
    return shlex.join(["python", *chain.arguments(missing)])
