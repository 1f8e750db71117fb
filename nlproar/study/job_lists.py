"""Job lists: files with the missing chains of a study, for Slurm's job arrays. Each task and stage has its own list.

A list has one line for each chain:

    name of the chain <tab> its command, a JSON array <tab> checksum of both

An element of a job array finds its line in the list, checks it, and replaces its process by the command of that line.
No shell reads the command, so that nothing in it is expanded.
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

_WRITABLE_BY_OTHERS = 0o022  # bits of a file mode: writable by the group, or by everybody

_WHOLE_NUMBER = r"[0-9]+"


@dataclass(frozen=True)
class JobList:
    """The chains of one job array that is to be submitted, and what the array waits for.

    `waits` is one of Slurm's dependencies:

    - "no": the array starts at once.
    - "afterok": it starts when the whole list of base chains of its task is done, and the jobs `after`.
    - "aftercorr": each line starts when the line of the same number in the list of base chains is done.
    """

    task: str
    stage: str  # "base" or "measures"
    chains: tuple[Chain, ...]
    waits: str = "no"
    after: tuple[str, ...] = ()  # numbers of jobs that are queued already


def plan(chains: Iterable[Chain], status: Status, queued: dict[str, str], study: Iterable[Chain] = ()) -> list[JobList]:
    """Return lists of the chains that have missing runs and are not queued, up to three lists for each task.

    `queued` maps the name of a chain to the job that will carry it out, see `in_queue`. `study` has all chains of the
    study, also those that --stage leaves out: their base chains may be queued, and are then waited for.
    """
    missing: dict[str, list[Chain]] = {}
    for chain in chains:
        if status.missing(chain):
            missing.setdefault(_task(chain), []).append(chain)
    queued_bases: dict[str, list[Chain]] = {}
    for chain in study:
        if chain.stage == "base" and name(chain) in queued:
            queued_bases.setdefault(_task(chain), []).append(chain)
    lists = []
    for task, missing_chains in missing.items():
        known = [*missing_chains, *(base for base in queued_bases.get(task, []) if base not in missing_chains)]
        for job_list in _plan_task(task, known, queued):
            if job_list.chains:
                lists.append(job_list)
    return lists


def _task(chain: Chain) -> str:
    return chain.configs[0].dataset


def _plan_task(task: str, considered: Sequence[Chain], queued: dict[str, str]) -> list[JobList]:
    """Return three lists, any of which may be empty: base chains, chains that can start, and chains that have to wait.

    `considered` are the chains that lack runs, and base chains that are queued although they lack none, as these are
    made again. A chain waits if it needs a run of one of these base chains, whether that one is queued or new.
    """
    awaited: set[Config] = set()  # the runs of all base chains that are missing or queued
    jobs_to_await: set[str] = set()  # the jobs of base chains that are queued
    new_bases: list[Chain] = []
    for chain in considered:
        if chain.stage != "base":
            continue
        awaited.update(chain.configs)
        if name(chain) in queued:
            jobs_to_await.add(queued[name(chain)])
        else:
            new_bases.append(chain)

    ready: list[Chain] = []
    waiting: list[Chain] = []
    for chain in considered:
        if chain.stage == "base" or name(chain) in queued:
            continue
        if awaited.isdisjoint(chain.needs):
            ready.append(chain)
        else:
            waiting.append(chain)

    # Waiting for single lines lets a curve start as soon as its own model is trained. Slurm offers it only for two
    # arrays of the same length.
    waits = "afterok"
    if not jobs_to_await and _need_only_the_same_line(waiting, new_bases):
        waits = "aftercorr"
    return [
        JobList(task, "base", tuple(new_bases)),
        JobList(task, "measures", tuple(ready)),
        JobList(task, "measures", tuple(waiting), waits, tuple(sorted(jobs_to_await))),
    ]


def _need_only_the_same_line(waiting: Sequence[Chain], bases: Sequence[Chain]) -> bool:
    """Return whether the chain on each line of `waiting` needs no runs but those on the same line of `bases`."""
    if len(waiting) != len(bases):
        return False
    pairs = zip(waiting, bases, strict=True)
    return all(set(chain.needs) <= set(base.configs) for chain, base in pairs)


def name(chain: Chain) -> str:
    """Return the name of a chain in a list: the id of its last run, and a hash of all of them.

    So chains with other levels have other names, and so has one with --overwrite. The name of a chain that is carried
    out in part does not change.
    """
    last = chain.configs[-1]
    facts = [[config.id for config in chain.configs], last.options.overwrite]
    return f"{last.id}~{storage.digest(facts)[:8]}"


# What Slurm still has


def in_queue(layout: Layout, elements: Iterable[str]) -> dict[str, str]:
    """Return the chains that are in Slurm's queue: name of a chain -> number of its job.

    `elements` are lines "job index" of the queue. Elements that were not submitted from this directory, or whose list
    is gone, are left out. Lines and lists that cannot be understood are left out as well, with a warning: their chains
    may be submitted a second time.
    """
    submissions = _submissions(layout)
    queued = {}
    not_understood = []
    damaged: Counter[Path] = Counter()  # list -> number of its elements that cannot be read
    for element in elements:
        words = element.split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(_WHOLE_NUMBER, words[0]):
            not_understood.append(element.strip())
            continue
        job, index = words
        submission = submissions.get(job)
        # The index of a job that is no array is "N/A".
        if submission is None or not re.fullmatch(_WHOLE_NUMBER, index):
            continue
        name_of_chain = submission.name_of(int(index))
        if name_of_chain is None:
            damaged[submission.file] += 1
        else:
            queued[name_of_chain] = job
    _warn_of_queue(damaged, not_understood)
    return queued


def _warn_of_queue(damaged: Mapping[Path, int], not_understood: Sequence[str]) -> None:
    """Warn of lists that are damaged, and of lines of the queue that are not understood."""
    for file, number in damaged.items():
        consequence = "of its chains that are in the queue may be submitted again"
        log.warning("%s is damaged: %d %s", file, number, consequence)
    if not_understood:
        message = "%d lines of squeue's output are not understood, the first is %r"
        log.warning(message, len(not_understood), not_understood[0][:80])


@dataclass(frozen=True)
class _Submission:
    """A job array that was submitted from this directory."""

    file: Path  # the job list
    names: list[str | None]  # of the chains, by index of the element; None if it cannot be read

    def name_of(self, index: int) -> str | None:
        """Return the name of the chain of an element; None if the list has no such line, or it cannot be read."""
        if index >= len(self.names):
            return None
        return self.names[index]


def _submissions(layout: Layout) -> dict[str, _Submission]:
    """Return the arrays that were submitted from this directory, by job number, without those whose list is gone."""
    submissions: dict[str, _Submission] = {}
    record = submitted(layout)
    if not storage.is_there(record):
        return submissions
    damaged = 0
    for line in storage.read_bytes(record).split(b"\n"):
        cells = os.fsdecode(line).split("\t")
        if cells == [""]:
            continue
        if not _is_submission(cells):
            damaged += 1
            continue
        job = cells[0]
        file = Path(cells[1])
        start = int(cells[2])
        if storage.is_there(file):
            submissions[job] = _Submission(file, _names_in(file)[start:])
    if damaged:
        message = "%s: %d lines are damaged and ignored; what they name may be submitted again"
        log.warning(message, record, damaged)
    return submissions


def _is_submission(cells: Sequence[str]) -> bool:
    """Return whether `cells` are those of a line of the record of submissions: job, list, first line and checksum.

    A line may lack the checksum, which earlier versions did not write.
    """
    if len(cells) not in (3, 4):
        return False
    if len(cells) == 4 and cells[3] != _checksum(cells[:3]):
        return False
    job, _, start = cells[:3]
    return bool(re.fullmatch(_WHOLE_NUMBER, job) and re.fullmatch(_WHOLE_NUMBER, start))


def _names_in(file: Path) -> list[str | None]:
    """Return the names of the chains in a list, with None in the place of a line that cannot be read.

    The result is empty if `file` is no file, for example a folder.
    """
    if not file.is_file():
        return []
    names: list[str | None] = []
    for element in _parse(storage.read_bytes(file)):
        names.append(None if element is None else element.name)
    return names


def submitted(layout: Layout) -> Path:
    """Return the path of the record of submissions. A line has the job, its list, the first line of the array in the
    list, and a checksum, separated by tabs."""
    return layout.logs / "slurm" / "submitted.tsv"


def note_submitted(layout: Layout, job: str, file: Path, start: int) -> None:
    """Add a job to the record of submissions. Its array begins at line `start` of the list `file`, counted from 0."""
    record = submitted(layout)
    line = _line([job, str(file), str(start)])
    with writable_by_owner_only(), storage.open_log(record) as out:
        if _ends_midway(record):
            line = b"\n" + line  # ends the line that a killed process left half written
        out.write(line)
        out.flush()
        os.fsync(out.fileno())


def _ends_midway(path: Path) -> bool:
    """Return whether the last line of a file lacks its newline."""
    content = storage.read_bytes(path)
    return bool(content) and not content.endswith(b"\n")


# The lists


def write(layout: Layout, lists: Sequence[JobList], status: Status) -> list[str]:
    """Write each list to a file. Return a line of seven cells, separated by tabs, for each list.

    The cells are task, stage, file, number of lines, `waits`, `after` (jobs, separated by colons, or "-"), and the
    record of submissions.
    """
    descriptions = []
    files = write_lists(layout, lists, status)
    for job_list, file in zip(lists, files, strict=True):
        cells = [
            job_list.task,
            job_list.stage,
            str(file),
            str(len(job_list.chains)),
            job_list.waits,
            ":".join(job_list.after) or "-",
            str(submitted(layout).absolute()),
        ]
        descriptions.append("\t".join(cells))
    return descriptions


def write_lists(layout: Layout, lists: Sequence[JobList], status: Status) -> list[Path]:
    """Write each list to a file to which only its owner can write. Return the absolute paths of the files."""
    # Two commands at the same time must not write the same file.
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder = layout.logs.absolute() / "slurm"
    files = []
    for number, job_list in enumerate(lists):
        file = folder / job_list.task / f"{stamp}-{number}-{job_list.stage}.jobs"
        lines = []
        for chain in job_list.chains:
            command = _command(layout, chain, status.missing(chain))
            lines.append(_line([name(chain), json.dumps(command, ensure_ascii=False)]))
        confidential = load_task(job_list.task).confidential
        with (
            writable_by_owner_only(),
            storage.owner_only(confidential),
            storage.whole_file(file) as out,
        ):
            out.write(b"".join(lines))
        files.append(file)
    return files


@contextmanager
def writable_by_owner_only() -> Iterator[None]:
    """Let only the owner write to the files and folders that are made in this context, whatever the umask was."""
    earlier = os.umask(0)  # the system tells the umask only when it is set
    os.umask(earlier | _WRITABLE_BY_OTHERS)
    try:
        yield
    finally:
        os.umask(earlier)


def _line(cells: Sequence[str]) -> bytes:
    """Return a line of a list or of the record of submissions, with its checksum and newline.

    The bytes of a path are those on the disk, so that a process with another encoding finds the same file.
    """
    text = "\t".join([*cells, _checksum(cells)]) + "\n"
    return os.fsencode(text)


def _checksum(cells: Sequence[str]) -> str:
    """Return the first 8 hexadecimal digits of the SHA-256 of the cells of a line."""
    content = os.fsencode("\t".join(cells))
    return hashlib.sha256(content).hexdigest()[:8]


def _command(layout: Layout, chain: Chain, missing: Sequence[Config]) -> list[str]:
    """Return the words of the command that carries out `missing`, some runs of `chain`.

    All paths in it are absolute, so that the command is the same in any folder.
    """
    configs = tuple(_with_absolute_paths(layout, config) for config in chain.configs)
    missing_configs = [_with_absolute_paths(layout, config) for config in missing]
    program, *words = Chain(configs).arguments(missing_configs)
    if program != "-m":  # a script, and not `python -m nlproar`
        program = str(Path(program).absolute())
    return [sys.executable, program, *words]


def _with_absolute_paths(layout: Layout, config: Config) -> Config:
    """Return the same run with absolute paths of the persistent directory, the plugins and the files of the model."""
    options = replace(config.options, persistent_dir=str(layout.root.absolute()))
    if options.plugin is not None:
        paths = [plugins.load(path) for path in options.plugin.split(os.pathsep)]
        options = replace(options, plugin=os.pathsep.join(paths))
    return replace(config, options=options, recipe=config.recipe.with_absolute_paths())


# An element of an array


@dataclass(frozen=True)
class Element:
    """A line of a list, which one element of a job array carries out."""

    name: str  # of the chain
    command: list[str]  # the words of the command, of which the first is the program


def main(argv: Sequence[str]) -> None:
    """Carry out one element of a job array, for batch_jobs/job.py.

    `argv` has the path of a list, and the first line of the array in that list.
    """
    with exit_codes("stopped"):
        show_log()
        if len(argv) != 2:
            advice = "bash batch_jobs/job.sh LIST START"
            raise UserError(f"name a job list and the first line of the array in it: {advice}")
        list_file, start = argv
        become(list_file, start)


def become(list_file: str, start: str) -> None:
    """Replace this process by the command on line `start` + $SLURM_ARRAY_TASK_ID of a list, both counted from 0.

    Raises UserError if that line does not exist, is damaged, or may have been written by somebody else.
    """
    index = os.environ.get("SLURM_ARRAY_TASK_ID", "")
    if not re.fullmatch(_WHOLE_NUMBER, index) or not re.fullmatch(_WHOLE_NUMBER, start):
        raise UserError(
            f"SLURM_ARRAY_TASK_ID is {index!r} and the first line {start!r}; both must be whole"
            " numbers. This script is an element of an array, which batch_jobs/submit.sh submits"
        )
    element = _element_of(Path(list_file), int(start) + int(index))
    command = element.command
    cores = process.leading_number("SLURM_CPUS_PER_TASK")
    os.environ["OMP_NUM_THREADS"] = str(cores or 1)
    # Without this, Python would import a file numpy.py in the current folder instead of the library.
    os.environ["PYTHONSAFEPATH"] = "1"
    print(shlex.join(command), flush=True)
    try:
        # The command replaces this process, so that it gets the signal that Slurm sends before the time limit.
        os.execv(command[0], command)
    except OSError as error:
        problem = f"{command[0]} cannot be started: {error.strerror}"
        raise UserError(f"{problem}; submit again") from error


def _element_of(path: Path, number: int) -> Element:
    """Return the element on line `number` of a list, counted from 0. Raises UserError as `become` does."""
    elements = _parse(_own_content(path))
    if number >= len(elements):
        problem = f"{path} has {len(elements)} lines, and this is the element of line {number + 1}"
        raise UserError(f"{problem}; submit again")
    element = elements[number]
    if element is None:
        raise UserError(f"{path}, line {number + 1}, is damaged; submit again")
    return element


def _own_content(path: Path) -> bytes:
    """Return the content of a list. Raises UserError if anybody but this user could have written it."""
    try:
        file = storage.open_file(path)
    except FileNotFoundError as error:
        raise UserError(f"the job list {path} is gone; submit again") from error
    with file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            problem = f"the job list {path} belongs to another user (number {status.st_uid})"
            raise UserError(f"{problem}; submit your own")
        if status.st_mode & _WRITABLE_BY_OTHERS:
            problem = f"others can write to the job list {path}"
            raise UserError(f"{problem}; look at it, then: chmod go-w, or submit again")
        return file.read()


def _parse(content: bytes) -> list[Element | None]:
    """Return the elements of a list, with None in the place of a line that is damaged.

    A last line without a newline was cut short; its checksum tells whether it is damaged.
    """
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [_parse_line(line) for line in lines]


def _parse_line(line: bytes) -> Element | None:
    """Return the element on a line; None if its checksum is wrong."""
    cells = os.fsdecode(line).split("\t")
    if len(cells) != 3 or cells[2] != _checksum(cells[:2]):
        return None
    name_of_chain, command, _ = cells
    return Element(name_of_chain, json.loads(command))
