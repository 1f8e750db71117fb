"""The missing chains of a study as lists for job arrays: one line a chain, one list for each task and stage.

A line of a list is

    name of the chain <tab> its command, a JSON array <tab> checksum of both

An element of an array finds its line, checks it and becomes that command; no shell ever reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nlproar import plugins, process, storage
from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.progress import show_log
from nlproar.run.config import Config
from nlproar.run.layout import Layout
from nlproar.script import exit_codes
from nlproar.study.grid import Chain
from nlproar.study.status import Status

log = logging.getLogger(__name__)

_WRITABLE_BY_OTHERS = 0o022  # the group, and everybody


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
    awaited = {config for chain in bases for config in chain.configs}
    new = tuple(chain for chain in missing if name(chain) not in queued)
    base = tuple(chain for chain in new if chain.stage == "base")
    waiting = tuple(chain for chain in new if chain.stage != "base" and not awaited.isdisjoint(chain.needs))
    ready = tuple(chain for chain in new if chain not in base + waiting)
    after = {queued[name(chain)] for chain in bases if name(chain) in queued}
    one_to_one = not after and len(waiting) == len(base)
    for one, other in zip(waiting, base, strict=False):
        one_to_one = one_to_one and set(one.needs) <= set(other.configs)
    return [
        JobList(task, "base", base),
        JobList(task, "measures", ready),
        JobList(task, "measures", waiting, "aftercorr" if one_to_one else "afterok", tuple(sorted(after))),
    ]


def name(chain: Chain) -> str:
    """The same while levels of the chain get done."""
    return chain.configs[-1].id


# What Slurm still has


def in_queue(layout: Layout, elements: Iterable[str]) -> dict[str, str]:
    """Which chains Slurm still has, and in which job, from lines "job index" of its queue.

    Elements that were not submitted from here, or whose list is gone, are left out. What cannot be understood is left
    out as well, with a warning: such a chain may be submitted a second time.
    """
    submissions = _submissions(layout)
    found = {}
    strange = []
    damaged: Counter[Path] = Counter()  # elements of each list that cannot be read
    for element in elements:
        words = element.split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(r"[0-9]+", words[0]):
            strange.append(element.strip())
            continue
        job, index = words
        submission = submissions.get(job)
        if submission is None or not re.fullmatch(r"[0-9]+", index):  # "N/A" is no element of an array
            continue
        name_of_chain = submission.name_of(int(index))
        if name_of_chain is None:
            damaged[submission.file] += 1
        else:
            found[name_of_chain] = job
    for file, number in damaged.items():
        log.warning("%s is damaged: %d of its chains that are in the queue may be submitted again", file, number)
    if strange:
        log.warning("%d lines of squeue's output are not understood, the first is %r", len(strange), strange[0][:80])
    return found


@dataclass(frozen=True)
class _Submission:
    """A job that was submitted from here."""

    file: Path  # of its list
    names: list[str | None]  # of its chains, in the order of its elements; None in place of one that cannot be read

    def name_of(self, element: int) -> str | None:
        """Return the name of a chain; None where the list does not tell it."""
        return self.names[element] if element < len(self.names) else None


def _submissions(layout: Layout) -> dict[str, _Submission]:
    """Every job that was submitted from here and whose list is not gone, by its number."""
    found: dict[str, _Submission] = {}
    record = submitted(layout)
    if not storage.is_there(record):
        return found
    strange = 0
    for line in storage.read_bytes(record).split(b"\n"):
        cells = os.fsdecode(line).split("\t")
        if cells == [""]:
            continue
        whole = len(cells) == 3 or (len(cells) == 4 and cells[3] == _checksum(cells[:3]))
        if not whole or not re.fullmatch(r"[0-9]+", cells[0]) or not re.fullmatch(r"[0-9]+", cells[2]):
            strange += 1
            continue
        job, name_of_file, start = cells[:3]
        file = Path(name_of_file)
        if storage.is_there(file):
            found[job] = _Submission(file, _names_in(file)[int(start) :])
    if strange:
        log.warning("%s: %d lines are damaged and ignored; what they name may be submitted again", record, strange)
    return found


def _names_in(file: Path) -> list[str | None]:
    """The names of the chains in a list, None in place of one that cannot be read; nothing where that is no file."""
    if not file.is_file():
        return []
    return [one.name if one else None for one in _read(storage.read_bytes(file))]


def submitted(layout: Layout) -> Path:
    """The record of all submissions: lines of job, list, first line of it and checksum, separated by tabs."""
    return layout.logs / "slurm" / "submitted.tsv"


def note_submitted(layout: Layout, job: str, file: Path, start: int) -> None:
    """Add a job to the record of submissions."""
    cells = [job, str(file), str(start)]
    line = _line(cells)
    with writable_by_owner_only(), storage.open_log(submitted(layout)) as out:
        # The newline in front ends a line that a killed process left half written.
        out.write(b"\n" + line if _ends_midway(submitted(layout)) else line)
        out.flush()
        os.fsync(out.fileno())


def _ends_midway(path: Path) -> bool:
    content = storage.read_bytes(path)
    return bool(content) and not content.endswith(b"\n")


# The lists


def write(layout: Layout, lists: Sequence[JobList], status: Status) -> list[str]:
    """Write each list, a line for each chain; returns a line for each list: task, stage, file, number of lines, waits,
    after (jobs, separated by colons, or "-"), record of submissions."""
    shown = []
    for job_list, file in zip(lists, write_lists(layout, lists, status), strict=True):
        after = ":".join(job_list.after) or "-"
        lines = len(job_list.chains)
        cells = (job_list.task, job_list.stage, file, lines, job_list.waits, after, submitted(layout).absolute())
        shown.append("\t".join(map(str, cells)))
    return shown


def write_lists(layout: Layout, lists: Sequence[JobList], status: Status) -> list[Path]:
    """Write each list; returns their absolute paths. Nobody but their owner can write to them."""
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    files = []
    for number, job_list in enumerate(lists):
        file = layout.logs.absolute() / "slurm" / job_list.task / f"{stamp}-{number}-{job_list.stage}.jobs"
        content = b"".join(_line(_cells(layout, chain, status.missing(chain))) for chain in job_list.chains)
        confidential = load_task(job_list.task).confidential
        with writable_by_owner_only(), storage.owner_only(confidential), storage.whole_file(file) as out:
            out.write(content)
        files.append(file)
    return files


@contextmanager
def writable_by_owner_only() -> Iterator[None]:
    """While this lasts, nobody else can write to files and folders that are made, whatever the user's umask."""
    before = os.umask(0)
    os.umask(before | _WRITABLE_BY_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def _cells(layout: Layout, chain: Chain, missing: Sequence[Config]) -> list[str]:
    return [name(chain), json.dumps(_command(layout, chain, missing), ensure_ascii=False)]


def _line(cells: Sequence[str]) -> bytes:
    """A line of a list or of the record of submissions. Paths stand in it with the bytes they have on the disk, so that
    a process with another encoding finds the same files."""
    return os.fsencode("\t".join([*cells, _checksum(cells)]) + "\n")


def _checksum(cells: Sequence[str]) -> str:
    return hashlib.sha256(os.fsencode("\t".join(cells))).hexdigest()[:8]


def _command(layout: Layout, chain: Chain, missing: Sequence[Config]) -> list[str]:
    """The words of the command that carries out `missing`. It is the same in any folder: every path is absolute."""
    here = Chain(tuple(_with_absolute_paths(layout, config) for config in chain.configs))
    program, *words = here.arguments([_with_absolute_paths(layout, config) for config in missing])
    if program != "-m":  # a script
        program = str(Path(program).absolute())
    return [sys.executable, program, *words]


def _with_absolute_paths(layout: Layout, config: Config) -> Config:
    options = replace(config.options, persistent_dir=str(layout.root.absolute()))
    if options.plugin is not None:
        named = options.plugin.split(os.pathsep)
        options = replace(options, plugin=os.pathsep.join(plugins.load(name) for name in named))
    return replace(config, options=options, recipe=config.recipe.with_absolute_paths())


# An element of an array


@dataclass(frozen=True)
class Element:
    """A line of a list."""

    name: str
    command: list[str]


def main(argv: Sequence[str]) -> None:
    """What batch_jobs/job.py runs, with the arguments of job.sh: a list, and its first line that is in this array."""
    with exit_codes("stopped"):
        show_log()
        if len(argv) != 2:
            raise UserError("name a job list and the first line of the array in it: bash batch_jobs/job.sh LIST START")
        become(*argv)


def become(list_file: str, start: str) -> None:
    """Become the command on line `start` + $SLURM_ARRAY_TASK_ID of a list, both from 0. Raises UserError where that
    line is not there, is damaged, or may have been written by somebody else."""
    index = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not re.fullmatch(r"[0-9]+", index) or not re.fullmatch(r"[0-9]+", start):
        raise UserError(
            f"SLURM_ARRAY_TASK_ID is {index!r} and the first line {start!r}; both must be whole numbers. This script"
            " is an element of an array, which batch_jobs/submit.sh submits"
        )
    command = _of_element(Path(list_file), int(start) + int(index)).command
    cores = process.leading_number("SLURM_CPUS_PER_TASK")
    os.environ["OMP_NUM_THREADS"] = str(cores or 1)
    os.environ["PYTHONSAFEPATH"] = "1"  # a file numpy.py in the current folder is not the library
    print(shlex.join(command), flush=True)
    try:
        os.execv(command[0], command)  # in place of this process, so that the signal before the time limit reaches it
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror}; submit again") from error


def _of_element(path: Path, number: int) -> Element:
    elements = _read(_own_content(path))
    if number >= len(elements):
        raise UserError(f"{path} has {len(elements)} lines, and this is the element of line {number + 1}; submit again")
    element = elements[number]
    if element is None:
        raise UserError(f"{path}, line {number + 1}, is damaged; submit again")
    return element


def _own_content(path: Path) -> bytes:
    """The content of a list, after a look at who could have written it."""
    try:
        file = storage.open_file(path)
    except FileNotFoundError as error:
        raise UserError(f"the job list {path} is gone; submit again") from error
    with file:
        about = os.fstat(file.fileno())
        if about.st_uid != os.geteuid():
            raise UserError(f"the job list {path} belongs to another user (number {about.st_uid}); submit your own")
        if about.st_mode & _WRITABLE_BY_OTHERS:
            raise UserError(f"others can write to the job list {path}; look at it, then: chmod go-w, or submit again")
        return file.read()


def _read(content: bytes) -> list[Element | None]:
    """The elements of a list, None for a line that is damaged. What follows the last newline is a line cut short."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [_element(line) for line in lines]


def _element(line: bytes) -> Element | None:
    cells = os.fsdecode(line).split("\t")
    if len(cells) != 3 or cells[2] != _checksum(cells[:2]):
        return None
    return Element(cells[0], json.loads(cells[1]))
