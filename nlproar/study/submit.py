"""Submit what is missing of a study, and not queued yet, as Slurm arrays: one for each task and stage.

`batch_jobs/submit.sh` is its face; what it reads from the environment is described in `batch_jobs/site.example.conf`.
Imports no torch.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nlproar import storage
from nlproar.errors import UserError
from nlproar.progress import show_log
from nlproar.run.layout import Layout
from nlproar.script import exit_codes
from nlproar.streams import require_output
from nlproar.study import checkpoints, cli, job_lists
from nlproar.study.grid import Chain
from nlproar.study.job_lists import JobList

_SLURMS_OWN_MAXIMUM = 1001  # elements of an array, where the cluster says nothing else
_USAGE = "bash batch_jobs/submit.sh TASK... [flags of experiments/study.py]"


def main(batch_jobs: Path, argv: Sequence[str] | None = None) -> None:
    """Plan, submit and say what was submitted. `batch_jobs` is the folder of job.sh and time_limits.txt."""
    with exit_codes("stopped; what was submitted stays queued, and the same command submits the rest"):
        study, layout, flags = _parse(list(sys.argv[1:] if argv is None else argv))
        chains = [chain for chain in study if flags.stage in ("all", chain.stage)]
        show_log()
        site = Site.of_environment(batch_jobs.absolute())
        record = job_lists.submitted(layout)
        # Two of these at once must not submit the same chains: the second waits, and then finds them in the queue.
        with job_lists.writable_by_owner_only(), storage.lock(record):
            storage.open_log(record).close()  # fails before anything is submitted, if it has to
            queue = _queue(site)  # before the look at the records: what ends in between is seen as done
            status = cli.look_at(layout, chains, getattr(flags, "overwrite", False), begins=not site.only_shows)
            lists = job_lists.plan(chains, status, job_lists.in_queue(layout, queue), study)
            files = job_lists.write_lists(layout, lists, status)
            if not lists:
                print("nothing to submit: everything is done or queued")
            _submit_all(site, layout, lists, files)
        if site.only_shows:
            require_output()


def _parse(words: list[str]) -> tuple[list[Chain], Layout, argparse.Namespace]:
    """Return all chains of the study, the persistent directory and the flags of a command line: tasks, then flags of a
    study."""
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: {_USAGE}\n\nThe flags are those of experiments/study.py --help.")
        sys.exit(0)
    first_flag = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if first_flag == 0:
        raise UserError(f"name a task, or all, before the flags: {_USAGE}")
    if any(word.partition("=")[0] == "--dataset" for word in words):
        raise UserError(f"--dataset: the tasks stand before the flags: {_USAGE}")
    grid, flags = cli.parse("", ["--dataset", *words])
    _refuse_what_submits_nothing(flags)
    layout = Layout.at(getattr(flags, "persistent_dir", None))
    if "\\" in str(layout.root.absolute()):
        raise UserError(f"{layout.root}: Slurm cannot write into a folder with a backslash in its name; rename it")
    return grid.chains(), layout, flags


def _refuse_what_submits_nothing(flags: argparse.Namespace) -> None:
    for name in ("dry_run", "list", "job_lists"):
        if getattr(flags, name):
            raise UserError(f"--{name.replace('_', '-')} submits nothing; it is for experiments/study.py")
    checkpoints.refuse_jobs(flags.keep_checkpoints, "jobs")


# What the environment says


@dataclass(frozen=True)
class Site:
    """How arrays are submitted here."""

    sbatch: str  # the program
    batch_jobs: Path  # the folder of job.sh
    largest: int  # elements of an array
    throttle: int | None  # elements of an array that run at once
    options: tuple[str, ...]  # of every array
    limits: dict[tuple[str, str], str]  # of time, by task and stage

    @property
    def only_shows(self) -> bool:
        """Whether another program stands in for sbatch, as with SBATCH=echo. Nothing is queued then."""
        return Path(self.sbatch).name != "sbatch"

    @classmethod
    def of_environment(cls, batch_jobs: Path) -> Site:
        """Return what the environment says of the cluster. Raises UserError where `sbatch` is not found."""
        sbatch = os.environ.get("SBATCH") or "sbatch"
        if shutil.which(sbatch) is None:
            raise UserError(
                f"{sbatch} is not found: submit from a login node of a Slurm cluster, or see what would be submitted"
                " with SBATCH=echo"
            )
        options = [
            "--parsable", "--requeue", "--open-mode=append", "--signal=B:TERM@120", "--kill-on-invalid-dep=yes",
            f"--cpus-per-task={_number('NLPROAR_CPUS') or 1}", f"--mem={os.environ.get('NLPROAR_MEMORY') or '8G'}",
            f"--chdir={batch_jobs.parent}",
        ]  # fmt: skip
        for name in ("account", "partition", "gres"):
            value = os.environ.get(f"NLPROAR_{name.upper()}")
            if value:
                options.append(f"--{name}={value}")
        largest = _number("NLPROAR_MAX_ARRAY_SIZE")
        if largest is None:
            largest = _largest_array() if Path(sbatch).name == "sbatch" else _SLURMS_OWN_MAXIMUM
        limits = _read_limits(batch_jobs / "time_limits.txt")
        return cls(sbatch, batch_jobs, largest, _number("NLPROAR_THROTTLE"), tuple(options), limits)


def _number(variable: str) -> int | None:
    """A whole number, 1 or more, from the environment; None where it is not set or empty."""
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise UserError(f"{variable}={text}: must be a whole number, 1 or more")
    return int(text)


def _largest_array() -> int:
    """MaxArraySize of the cluster."""
    said = _ask("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*([0-9]{1,9})\s*$", said, re.MULTILINE)
    if not found or int(found[1]) < 1:
        raise UserError("scontrol show config names no MaxArraySize of 1 or more; set NLPROAR_MAX_ARRAY_SIZE")
    return int(found[1])


def _read_limits(table: Path) -> dict[tuple[str, str], str]:
    """Limits of time by task and stage, from lines "task stage limit"."""
    limits = {}
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = line.partition("#")[0].split()
        if cells and len(cells) != 3:
            raise UserError(f"{table}: {line!r} must be a task, a stage and a limit of time")
        if cells:
            limits[cells[0], cells[1]] = cells[2]
    return limits


def _ask(*command: str) -> str:
    """What a program of Slurm prints. Variables that change what squeue shows are left out."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    return _run(command, environment).stdout.decode(errors="replace")


def _run(command: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program of Slurm. Raises UserError, with what it said, if it is not there or fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment)
    except OSError as error:
        raise UserError(f"{command[0]} cannot be started: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise UserError(f"{command[0]} failed with exit code {done.returncode}: {said or 'it said nothing'}")
    return done


# Submitting


def _queue(site: Site) -> list[str]:
    """Lines "job index", one for each element of this user that Slurm still has."""
    if site.only_shows:
        return []
    user = str(os.geteuid())
    return _ask("squeue", f"--user={user}", "--noheader", "--array", "--format=%F %K").splitlines()


def _submit_all(site: Site, layout: Layout, lists: Sequence[JobList], files: Sequence[Path]) -> None:
    """Submit every list, in pieces of the largest array that is allowed, and print a line for each piece."""
    base: dict[str, list[str]] = {}  # the jobs of the base list of each task
    for job_list, file in zip(lists, files, strict=True):
        jobs: list[str] = []
        for start in range(0, len(job_list.chains), site.largest):
            chains = min(site.largest, len(job_list.chains) - start)
            dependency = _dependency(job_list, base.get(job_list.task, []), len(jobs))
            job = _submit(site, job_list, file, start, chains, dependency)
            if not site.only_shows:
                job_lists.note_submitted(layout, job, file, start)
                print(f"job {job}: {job_list.task}, {job_list.stage}, {chains} chains", flush=True)
            jobs.append(job)
        if job_list.stage == "base":
            base[job_list.task] = jobs


def _dependency(job_list: JobList, base: Sequence[str], piece: int) -> list[str]:
    """What a piece of a list waits for. Base lists are cut into the same pieces."""
    if job_list.waits == "aftercorr":
        return [f"--dependency=aftercorr:{base[piece]}"]
    if job_list.waits == "afterok":
        return ["--dependency=afterok:" + ":".join([*base, *job_list.after])]
    return []


def _submit(site: Site, job_list: JobList, file: Path, start: int, chains: int, dependency: Sequence[str]) -> str:
    """Submit lines `start` to `start` + `chains` - 1 of a list as an array; returns the number of its job."""
    limit = os.environ.get("NLPROAR_TIME") or site.limits.get((job_list.task, job_list.stage))
    if limit is None:
        raise UserError(f"{site.batch_jobs / 'time_limits.txt'} has no line for {job_list.task} {job_list.stage}")
    throttle = f"%{site.throttle}" if site.throttle else ""
    folder = str(file.parent).replace("%", "%%")  # Slurm replaces %A and the like also in the name of a folder
    done = _run(
        [
            site.sbatch, *site.options, *dependency, f"--time={limit}", f"--array=0-{chains - 1}{throttle}",
            f"--job-name=nlproar-{job_list.task}-{job_list.stage}", f"--output={folder}/%A_%a.out",
            str(site.batch_jobs / "job.sh"), str(file), str(start),
        ]
    )  # fmt: skip
    sys.stderr.write(done.stderr.decode(errors="replace"))  # warnings
    if site.only_shows:
        sys.stdout.buffer.write(done.stdout)
        sys.stdout.flush()
        return f"JOB-OF-{job_list.task}-{job_list.stage}-{start}"
    said = done.stdout.decode(errors="replace").strip()
    job = said.splitlines()[-1].partition(";")[0] if said else ""  # "number;cluster"
    if not re.fullmatch(r"[0-9]+", job):
        raise UserError(f"sbatch said {said!r} instead of the number of a job; look at squeue before you submit again")
    return job
