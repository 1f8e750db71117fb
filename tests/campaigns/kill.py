"""Kill runs, studies and reports, start them again, and compare what they leave with what an undisturbed one leaves.

    python -m tests.campaigns.kill [--kills 500] [--minutes M] [--seed 0] [--jobs 1]

There are three ways to kill:

- `operations`: the process ends itself with SIGKILL before, in the middle of or after its n-th file operation below the
  persistent directory (see operations.py). The same command then runs to its end.
- `moments`: the command is killed after a random time and started again, until it ends by itself. Of a study a worker,
  the study, or both are killed.
- `commands`: the same with real processes, as a user starts them. They import torch each time, so they are few.

In the first two ways a process is forked from this one, which has imported everything; that takes milliseconds.

After each kill every record that is there must hold the numbers of the undisturbed run, and no record may be gone. At
the end the folder must hold the same files with the same content, except for durations and the like. No epoch may be
trained again but the one that was under way at the kill.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: processes are forked from this one

import argparse
import csv
import ctypes
import fcntl
import gc
import hashlib
import importlib
import json
import pkgutil
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import nlproar
from nlproar import storage
from nlproar.dataset import babi_simulation
from nlproar.run.parent import PARENT
from nlproar.study import processes
from tests.campaigns.operations import Stop, Watch
from tests.conftest import ROOT, world_of

QUESTIONS = {"train": 150, "test": 40}
FAST = ("--source", "simulated", "--max-epochs", "3", "--device", "cpu")
INTEGRATED = ("--importance-measure", "integrated-gradient", "--riemann-samples", "3")
FINE_TUNING = ("--metric", "masked-fine-tuning", "--importance-measure", "gradient", "--k", "1", "2")
TINY = ("--source", "simulated", "--max-epochs", "2", "--device", "cpu", "--model", "tiny")  # a transformer
ERASURE = ("--metric", "erasure", "--importance-measure", "gradient")
MEASURES = ("random", "gradient", "mutual-information", "integrated-gradient")
STUDY = ("experiments/study.py", "--dataset", "babi-1", *FAST, "--importance-measure", *MEASURES, "--jobs", "2",
         "--riemann-samples", "3", "--k", "20", "40", "--both")  # fmt: skip


@dataclass(frozen=True)
class Scenario:
    """A command, without --persistent-dir. It starts in an empty folder, or in what another scenario left."""

    command: tuple[str, ...]
    starts_from: str | None = None

    @property
    def overwrites(self) -> bool:
        return "--overwrite" in self.command

    @property
    def is_study(self) -> bool:
        return "experiments/study.py" in self.command


SCENARIOS = {
    "chain": Scenario(("experiments/babi.py", *FAST, *INTEGRATED, "--k", "2", "--recursive", "--train-missing")),
    "overwrite": Scenario(
        ("experiments/babi.py", *FAST, *INTEGRATED, "--k", "0", "1", "2", "--recursive", "--overwrite"), "chain"
    ),
    "fine-tuning": Scenario(("experiments/babi.py", *FAST, *FINE_TUNING, "--recursive", "--train-missing")),
    "erasure": Scenario(("experiments/babi.py", *FAST, *ERASURE, "--train-missing")),
    "study": Scenario(STUDY),
    "study-overwrite": Scenario((*STUDY, "--overwrite"), "study"),
    "study-needed": Scenario((*STUDY, "--keep-checkpoints", "needed")),
    "transformer": Scenario(
        ("experiments/babi.py", *TINY, "--importance-measure", "gradient", "--k", "2", "--recursive", "--train-missing")
    ),
    "report": Scenario(("experiments/report.py", "--device", "cpu"), "study"),
}
SHARES = {  # of all kills, by way and scenario
    ("operations", "chain"): 50,
    ("operations", "overwrite"): 15,
    ("operations", "fine-tuning"): 6,
    ("operations", "erasure"): 4,
    ("operations", "report"): 4,
    ("operations", "study"): 2,
    ("operations", "study-overwrite"): 2,
    ("operations", "study-needed"): 2,
    ("operations", "transformer"): 2,
    ("moments", "study"): 10,
    ("moments", "study-needed"): 4,
    ("moments", "transformer"): 2,
    ("moments", "study-overwrite"): 4,
    ("moments", "chain"): 4,
    ("moments", "overwrite"): 4,
    ("commands", "study"): 4,
    ("commands", "chain"): 2,
    ("commands", "overwrite"): 1,
    ("commands", "report"): 1,
}
WAYS = ("operations", "moments", "commands")
PROBLEMS = ("wrong", "lost", "left over", "trained again")

_VARYING = {"durations", "environment", "seconds", "made", "checksum"}  # keys of a record that may differ
_SEPARATORS = {".csv": ",", ".md": "|", ".tex": "&"}  # of the cells of a table
_EPOCH = re.compile(r"^(epoch \d+/\d+: .*), [\d.]+ s$", re.MULTILINE)
_CONTINUED = re.compile(r"^(?:continuing at epoch|trained already)", re.MULTILINE)
_MOST_KILLS = 8  # of one command before it is left to end by itself
_SHOWN = 3  # problems of a case that are printed
_SET_CHILD_SUBREAPER = 36  # of prctl(2)


# -------------------------------------------------------------------------------- processes


_watch: list[Watch] = []  # of this process, if its file operations are counted


class ForkedProcess:
    """A worker that is forked from the study itself. It takes the place of `nlproar.study.processes.start`."""

    def __init__(self, arguments: Sequence[str], log: Path, confidential: bool, threads: int) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            if _watch:
                _watch[0].off()
            os.environ.update({PARENT: str(os.getppid()), "OMP_NUM_THREADS": str(threads)})
            with storage.owner_only(confidential), storage.open_log(log) as file:
                become(arguments, file.fileno(), file.fileno())

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (timeout or 3600.0)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 3600.0)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def become(
    arguments: Sequence[str],
    stdout: int,
    stderr: int,
    watch: Callable[[], Watch | None] | None = None,
    stdin: str | Path = os.devnull,
) -> NoReturn:
    """Go on as the process of a script, `arguments` being its name and flags, or of a module, with "-m" before its
    name. `watch` is called before it starts."""
    code = 1
    try:
        os.setsid()
        for descriptor, number in ((os.open(stdin, os.O_RDONLY), 0), (stdout, 1), (stderr, 2)):
            os.dup2(descriptor, number)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        processes.start = ForkedProcess
        watching = watch() if watch else None
        if watching:
            _watch.append(watching)
        code = _run(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    """Run a script or a module as the interpreter does; returns its exit code."""
    is_module = arguments[0] == "-m"
    sys.argv = list(arguments[1:] if is_module else arguments)
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


def start(
    command: Sequence[str],
    output: Path,
    real: bool,
    world: Mapping[str, str],
    watch: Callable[[], Watch | None] | None = None,
    stdin: str | Path = os.devnull,
) -> int:
    """Start a script in a session of its own; returns its process id. Its stderr goes to `output`, its stdout beside
    it. A `real` process is a new interpreter in the environment `world`; else it is forked."""
    pid = os.fork()
    if pid:
        return pid
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    stderr = os.open(output, flags)
    stdout = os.open(output.with_suffix(".out"), flags)
    os.chdir(ROOT)
    if not real:
        become(command, stdout, stderr, watch, stdin)
    os.setsid()
    os.dup2(os.open(stdin, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.execve(sys.executable, [sys.executable, *command], dict(world))


def children(parent: int) -> list[int]:
    """The processes that `parent` started and that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, its_parent, *_ = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_parent) == parent and state != "Z":
            found.append(int(path.parent.name))
    return found


def send(signal_number: int, pids: Sequence[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:  # it ended meanwhile
            continue


def ended(pid: int, seconds: float) -> int | None:
    """The exit code of a child, negative for a signal; None if it is still there after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.003)


def orphans_ended(seconds: float) -> bool:
    """Wait until this process has no child any more: it inherits the workers of a study that was killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if not found:
            time.sleep(0.01)
    return False


# -------------------------------------------------------------------------------- what a folder holds


def numbers(content: Any) -> Any:
    """A record, or any JSON, without what differs between two runs of the same command."""
    if isinstance(content, dict):
        return {key: numbers(value) for key, value in content.items() if key not in _VARYING}
    if isinstance(content, list):
        return [numbers(value) for value in content]
    return content


def content_of(path: Path) -> Any:
    """What must be the same in a file of two undisturbed runs; None where only its existence is compared."""
    if path.suffix == ".json":
        return numbers(json.loads(path.read_text()))
    if path.parent.name in ("importance", "convergence") and path.suffix == ".npz":
        return _arrays_but_seconds(path)
    if path.stem == "convergence" and path.suffix in _SEPARATORS:
        return _rows_but_seconds(path)
    if path.suffix in (".npz", ".safetensors"):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".csv", ".md", ".tex"):
        return path.read_text()
    return None


def _arrays_but_seconds(path: Path) -> dict[str, str]:
    """A hash of each array in a file, except for how long something took. Raises ValueError for a damaged file."""
    found = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                if name != "seconds":
                    shape = f"{arrays[name].dtype} {arrays[name].shape} "
                    found[name] = hashlib.sha256(shape.encode() + arrays[name].tobytes()).hexdigest()
    except Exception as error:  # damage takes many forms
        raise ValueError(f"{path.name} is damaged ({error})") from error
    return found


def _rows_but_seconds(path: Path) -> list[list[str]]:
    """The cells of a table, except for the column of seconds."""
    lines = path.read_text().splitlines()
    rows = (
        list(csv.reader(lines)) if path.suffix == ".csv" else [line.split(_SEPARATORS[path.suffix]) for line in lines]
    )
    header = next((row for row in rows if "seconds" in map(str.strip, row)), None)
    if header is None:
        return rows
    column = [cell.strip() for cell in header].index("seconds")
    return [row[:column] + row[column + 1 :] if len(row) == len(header) else row for row in rows]


def files(folder: Path) -> list[str]:
    """The files below `folder`, by their relative paths, except for locks."""
    paths = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return [str(path.relative_to(folder)) for path in paths if path.suffix != ".lock"]


def epochs_in(text: str) -> list[str]:
    """The lines of a log that say what came of an epoch, without its seconds."""
    return _EPOCH.findall(text)


@dataclass
class Reference:
    """What an undisturbed run of a scenario left."""

    folder: Path
    seconds: float
    content: dict[str, Any]  # file -> what must be equal
    epochs: dict[str, list[str]]  # log -> its epochs
    stdout: str
    stops: list[Stop] = field(default_factory=list)  # everywhere the command can be killed
    distinct: list[Stop] = field(default_factory=list)  # those of them that leave unlike folders
    kinds: dict[int, str] = field(default_factory=dict)  # number of an operation -> what it is

    def numbers_of(self, record: Path) -> Any:
        """What a record, wherever its folder lies, must hold; None where there is to be none."""
        return self.content.get(str(record.relative_to(record.parents[2])))


# -------------------------------------------------------------------------------- one case


@dataclass
class Case:
    """A command that is killed and started again in a folder of its own, and what was found wrong."""

    way: str
    scenario: Scenario
    place: Path  # of its folder and its logs
    start_from: Reference | None
    world: Mapping[str, str]
    label: str = ""
    reference: Reference | None = None
    kills: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, what)
    attempts: int = 0
    finished: bool = False  # killed at the very end, see `is_finished`
    seen: set[Path] = field(default_factory=set)  # records that were there once

    def __post_init__(self) -> None:
        self.folder = self.place / "persistent"
        self.place.mkdir(parents=True)
        if self.start_from:
            shutil.copytree(self.start_from.folder, self.folder)
            self.seen = set(self.records())
        else:
            self.folder.mkdir()

    def problem(self, kind: str, what: str) -> None:
        self.problems.append((kind, what))

    def records(self) -> list[Path]:
        return sorted((self.folder / "results").glob("*/[!.]*.json"))

    def begin(self, watch: Callable[[], Watch | None] | None = None) -> int:
        self.attempts += 1
        output = self.place / f"attempt_{self.attempts:02d}.err"
        command = [*self.scenario.command, "--persistent-dir", str(self.folder)]
        return start(command, output, self.way == "commands", self.world, watch)

    def output(self, suffix: str) -> str:
        """What all attempts wrote, in their order."""
        return "".join(path.read_text() for path in sorted(self.place.glob(f"attempt_*.{suffix}")))

    def to_the_end(self, patience: float) -> None:
        """Run the command without a kill; it must end with 0."""
        pid = self.begin()
        code = ended(pid, patience)
        if code is None:
            self.problem("wrong", f"it does not end within {patience:.0f} s")
            send(signal.SIGKILL, [*children(pid), pid])
            return
        if code != 0:
            last = (self.output("err").strip().splitlines() or ["nothing"])[-1]
            self.problem("wrong", f"exit code {code}; the last line is: {last}")

    # ---- ways to kill

    def at_operation(self, stop: Stop, patience: float) -> None:
        pid = self.begin(lambda: Watch(self.folder, stop))
        code = ended(pid, patience)
        assert self.reference
        if code == -signal.SIGKILL:
            self.killed(f"{self.reference.kinds[stop.number]}, {stop.moment}")
        elif code or not self.scenario.is_study:  # how many operations a study needs depends on when it looks
            self.problem("wrong", f"it was to be killed at {stop}, and ended with {code}")
            send(signal.SIGKILL, [pid])
        self.finished = self.is_finished()
        if not self.finished:
            self.to_the_end(patience)

    def at_moments(self, rng: random.Random, seconds: float, patience: float) -> None:
        """Kill again and again, at moments drawn over the length of the undisturbed command and a fifth more, until
        it ends by itself."""
        while len(self.kills) < _MOST_KILLS:
            pid = self.begin()
            code = ended(pid, rng.uniform(0, 1.2 * seconds))
            if code is None and self.scenario.is_study:
                code = self._kill_of_study(pid, rng, seconds, patience)
            elif code is None:
                send(signal.SIGKILL, [pid])
                code = ended(pid, patience)
                self.killed("run")
            self.finished = code != 0 and self.is_finished()
            if code == 0 or self.finished:
                return
            if code not in (-signal.SIGKILL, 1):
                self.problem("wrong", f"exit code {code} of an attempt")
                return
        self.to_the_end(patience)

    def _kill_of_study(self, study: int, rng: random.Random, seconds: float, patience: float) -> int | None:
        """Kill the study, a worker of it, or all; returns the exit code of the study."""
        running = children(study)
        victim = rng.choice(("study", "worker", "both")) if running else "study"
        if victim == "worker":
            send(signal.SIGKILL, [rng.choice(running)])
            self.killed(victim)
            code = ended(study, rng.uniform(0, seconds))
            if code is not None:
                return code  # 1, as a run failed
            running, victim = children(study), "both"
        send(signal.SIGKILL, [study, *(running if victim == "both" else [])])
        code = ended(study, patience)
        self.killed(victim)
        if rng.random() < 0.7 and not orphans_ended(20):  # else the next study meets workers of this one
            self.problem("left over", "a worker outlives its study by 20 s")
        return code

    def is_finished(self) -> bool:
        """Whether a command with --overwrite was killed when it had done everything: all records are new, and it has
        removed its note of what is left. The same command would then be a new one, and overwrite all again."""
        if not self.scenario.overwrites or not self.kills or files(self.folder / "overwrite"):
            return False
        return orphans_ended(20) and not self.not_overwritten()

    # ---- what must hold

    def killed(self, what: str) -> None:
        """Note a kill, and look at the records: whole, with the right numbers, and none is gone."""
        self.kills.append(f"{self.label}: {what}")
        here = set()
        for path in self.records():
            try:
                found = content_of(path)
            except FileNotFoundError:  # of a study whose workers go on: it is being replaced
                continue
            except ValueError as error:
                self.problem("wrong", f"{path.name} is torn ({error})")
                continue
            here.add(path)
            assert self.reference
            if found != self.reference.numbers_of(path):
                self.problem("wrong", f"{path.name} has other numbers after a kill")
        for path in sorted(self.seen - here):
            if not path.exists():
                self.problem("lost", f"{path.name} is gone after a kill ({what})")
        self.seen |= here

    def compare(self) -> None:
        """What is there at the end, against the reference."""
        assert self.reference
        if not orphans_ended(20):
            self.problem("left over", "a process")
        self._compare_files()
        for path in self.folder.rglob("*.lock"):
            if not free(path):
                self.problem("left over", f"{path.relative_to(self.folder)} is locked")
        if "Traceback" in self.output("err"):
            self.problem("wrong", "a traceback")
        if not self.finished and self.stdout_of_last() != self.reference.stdout:
            self.problem("wrong", "the last attempt prints something else")
        if self.scenario.overwrites:
            for name in self.not_overwritten():
                self.problem("wrong", f"{name} was not overwritten")
        self._compare_epochs()

    def _compare_files(self) -> None:
        assert self.reference
        expected, there = set(self.reference.content), set(files(self.folder))
        for name in sorted(expected - there):
            self.problem("lost", name)
        for name in sorted(there - expected):
            self.problem("left over", name)
        for name in sorted(expected & there):
            try:
                same = content_of(self.folder / name) == self.reference.content[name]
            except ValueError:
                same = False
            if not same:
                self.problem("wrong", f"{name} differs")

    def stdout_of_last(self) -> str:
        text = (self.place / f"attempt_{self.attempts:02d}.out").read_text()
        return text.replace(str(self.place), "")

    def not_overwritten(self) -> list[str]:
        """The records that are still those the case began with."""
        assert self.start_from
        found = []
        for path in self.records():
            old = self.start_from.folder / path.relative_to(self.folder)
            if old.exists() and old.read_bytes() == path.read_bytes():
                found.append(path.name)
        return found

    def epochs(self) -> dict[str, list[str]]:
        """The epochs that were trained in this case, in the order of each log."""
        if not self.scenario.is_study:
            return {"script": epochs_in(self.output("err"))}
        found = {}
        for path in sorted((self.folder / "logs").glob("*.log")):
            before = self.start_from.folder / "logs" / path.name if self.start_from else None
            skipped = len(before.read_text()) if before and before.exists() else 0
            found[path.name] = epochs_in(path.read_text()[skipped:])
        return found

    def continued(self) -> int:
        """How many trainings went on from an epoch that an earlier attempt had kept."""
        logs = self.output("err") + "".join(path.read_text() for path in (self.folder / "logs").glob("*.log"))
        return len(_CONTINUED.findall(logs))

    def _compare_epochs(self) -> None:
        assert self.reference
        trained = self.epochs()
        unsaid = 0
        for log, expected in self.reference.epochs.items():
            unsaid += self._follow(log, expected, trained.get(log, []))
        if unsaid > len(self.kills):
            self.problem("wrong", f"{unsaid} epochs without a line in {len(self.kills)} kills")

    def _follow(self, log: str, expected: list[str], trained: list[str]) -> int:
        """Follow the epochs of one log; returns how many of them have no line, as a kill came before it.

        A line is written once the epoch is kept on disk, so none may come twice, and the order is that of `expected`.
        """
        position, unsaid = -1, 0
        for line in trained:
            near = [step for step in (1, 2) if expected[position + step : position + step + 1] == [line]]
            if near:
                position += near[0]
                unsaid += near[0] - 1
            elif line in expected:
                self.problem("trained again", f"{line} ({log})")
                position = expected.index(line)
            else:
                self.problem("wrong", f"an epoch with other numbers: {line} ({log})")
        left = len(expected) - 1 - position
        if left > 1:
            self.problem("wrong", f"{left} epochs were never trained ({log})")
        return unsaid + (left == 1)


def free(path: Path) -> bool:
    """Whether a lock file is held by nobody."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


# -------------------------------------------------------------------------------- the campaign


class Campaign:
    """The references, and the cases of all ways and scenarios."""

    def __init__(self, place: Path, seed: int, scenarios: Sequence[str], ways: Sequence[str]) -> None:
        self.place, self.seed = place, seed
        chosen = [(way, name) for way, name in SHARES if way in ways and name in scenarios]
        self.shares = {pair: SHARES[pair] for pair in chosen}
        (place / "world").mkdir()
        self.world = world_of(place / "world", **QUESTIONS)
        self.references: dict[tuple[bool, str], Reference] = {}

    def reference(self, way: str, name: str) -> Reference:
        """The undisturbed run of a scenario. Real processes have their own, as their threads may be others."""
        real = way == "commands"
        if (real, name) not in self.references:
            self.references[real, name] = self._undisturbed(way, name)
        return self.references[real, name]

    def _undisturbed(self, way: str, name: str) -> Reference:
        case = self._case(way, name, f"reference_{'real' if way == 'commands' else 'forked'}_{name}")
        listing = case.place / "operations.txt"
        watched = way != "commands"
        started = time.monotonic()
        pid = case.begin((lambda: Watch(case.folder, listing=listing)) if watched else None)
        code = ended(pid, 600)
        seconds = time.monotonic() - started
        if code != 0:
            raise SystemExit(f"error: the undisturbed {name} ends with {code}; see {case.place}/attempt_01.err")
        if name != "report" and not any(case.epochs().values()):
            raise SystemExit(f"error: the log of {name} names no epoch as the campaign expects it: {_EPOCH.pattern}")
        content = {file: content_of(case.folder / file) for file in files(case.folder)}
        found = Reference(case.folder, seconds, content, case.epochs(), case.stdout_of_last())
        if watched:
            read_listing(listing.read_text(), found)
        print(f"undisturbed {'command' if way == 'commands' else 'fork'} {name}: {seconds:.1f} s, {len(content)} files,"
              f" {len(found.kinds)} file operations, {len(found.distinct)} distinct moments", flush=True)  # fmt: skip
        return found

    def _case(self, way: str, name: str, folder: str) -> Case:
        scenario = SCENARIOS[name]
        start_from = self.reference(way, scenario.starts_from) if scenario.starts_from else None
        return Case(way, scenario, self.place / folder, start_from, self.world)

    def stops(self, name: str, how_many: int) -> list[Stop]:
        """So many moments of a scenario, spread evenly over it, in random order; all if there are fewer. Those that
        leave most unlike folders come first."""
        found = self.reference("operations", name)
        rng = random.Random(f"{self.seed} {name}")
        chosen = spread(found.distinct, how_many, rng)
        chosen += spread([stop for stop in found.stops if stop not in found.distinct], how_many - len(chosen), rng)
        return rng.sample(chosen, len(chosen))

    def run(self, name: str) -> dict[str, Any]:
        """Carry out one case, "operations:chain:57:half" or "moments:study:3"; returns what came of it."""
        way, scenario, number, *moment = name.split(":")
        case = self._case(way, scenario, name.replace(":", "_"))
        case.reference = self.reference(way, scenario)
        case.label = f"{way} {scenario}"
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)
        patience = 60 + 20 * case.reference.seconds
        if way == "operations":
            case.at_operation(Stop(int(number), moment[0]), patience)
        else:
            case.at_moments(random.Random(f"{self.seed} {name}"), case.reference.seconds, patience)
        case.compare()
        continued = case.continued()
        if not case.problems:
            shutil.rmtree(case.place)
        return {"name": name, "kills": case.kills, "problems": case.problems, "continued": continued,
                "place": str(case.place)}  # fmt: skip


def spread(stops: list[Stop], how_many: int, rng: random.Random) -> list[Stop]:
    """So many of `stops`, at equal distances; all if there are no more."""
    if how_many >= len(stops):
        return stops
    offset = rng.random()
    return [stops[int((number + offset) * len(stops) / how_many)] for number in range(how_many)]


def read_listing(listing: str, into: Reference) -> None:
    """The kinds of the operations that a listing names, and all moments at which the process can be killed.

    Two of them leave the same folder nearly always, after an operation and before the next, and each of the many
    writes to one file leaves much the same. Distinct are the moments before the operations that are no writes, and of
    the writes in a row to one file before the first, in the middle of the middle one, and after the last.
    """
    rows = [line.split(" ", 2) for line in listing.splitlines()]
    for (kind, _), group in groupby(rows, key=itemgetter(1, 2)):
        operations_in_a_row = [int(number) for number, *_ in group]
        for number in operations_in_a_row:
            into.kinds[number] = kind
            moments = ["before"]
            if kind == "write":
                moments.append("half")
            if "." not in kind:  # else it is an event of the audit, which is seen before it only
                moments.append("after")
            into.stops += [Stop(number, moment) for moment in moments]
        first, last = operations_in_a_row[0], operations_in_a_row[-1]
        if kind == "write":
            middle = operations_in_a_row[len(operations_in_a_row) // 2]
            into.distinct += [Stop(first, "before"), Stop(middle, "half"), Stop(last, "after")]
        else:
            into.distinct += [Stop(number, "before") for number in operations_in_a_row]


@dataclass
class Tally:
    """What came of the cases so far."""

    kills: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    continued: int = 0  # trainings that went on from an epoch an earlier attempt had kept
    first_bad: dict[str, Any] | None = None

    def add(self, result: Mapping[str, Any]) -> None:
        self.kills.update(result["kills"])
        self.continued += result["continued"]
        self.problems.update(kind for kind, _ in result["problems"])
        if not result["problems"]:
            return
        shown = [f"{kind}: {what}" for kind, what in result["problems"][:_SHOWN]]
        if len(result["problems"]) > _SHOWN:
            shown.append(f"and {len(result['problems']) - _SHOWN} more")
        print(f"{result['name']}: {'; '.join(shown)}", flush=True)
        if self.first_bad:
            shutil.rmtree(result["place"], ignore_errors=True)
        else:
            self.first_bad = dict(result)

    def line(self) -> str:
        counts = ", ".join(f"{self.problems[kind]} {kind}" for kind in PROBLEMS)
        return f"{self.kills.total()} kills: {counts}; {self.continued} trainings went on from a kept epoch"


def names(campaign: Campaign, kills: int) -> Callable[[], str | None]:
    """A function that gives the name of the next case: of the way and scenario that is furthest behind its share."""
    whole = sum(campaign.shares.values())
    lists: dict[tuple[str, str], list[str]] = {}
    for (way, scenario), share in campaign.shares.items():
        wanted = max(1, round(kills * share / whole))
        if way == "operations":
            stops = campaign.stops(scenario, wanted)
            lists[way, scenario] = [f"{way}:{scenario}:{stop.number}:{stop.moment}" for stop in stops]
        else:
            lists[way, scenario] = [f"{way}:{scenario}:{number}" for number in range(wanted)]
    taken: Counter[tuple[str, str]] = Counter()
    expected = {"operations": 1, "moments": 3, "commands": 3}  # kills of a case

    def following() -> str | None:
        left = [pair for pair in lists if lists[pair]]
        if not left:
            return None
        pair = min(left, key=lambda pair: taken[pair] * expected[pair[0]] / campaign.shares[pair])
        taken[pair] += 1
        return lists[pair].pop(0)

    return following


def carry_out(campaign: Campaign, following: Callable[[], str | None], flags: argparse.Namespace) -> Tally:
    """Run cases, `jobs` at a time, each in a process of its own, until there are enough kills or time is over."""
    tally, running, started = Tally(), dict[int, Path](), time.monotonic()
    said = started
    kills = flags.kills or sys.maxsize
    while True:
        now = time.monotonic()
        over = tally.kills.total() >= kills or (flags.minutes and now - started > 60 * flags.minutes)
        while not over and len(running) < flags.jobs and tally.kills.total() + len(running) < kills:
            name = following()
            if name is None:
                break
            result = campaign.place / f"{name.replace(':', '_')}.result"
            running[_fork_case(campaign, name, result)] = result
        if not running:
            return tally
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            result = running.pop(pid)
            if status:
                raise SystemExit(f"error: the campaign itself failed at {result.stem}; see the traceback above")
            tally.add(json.loads(result.read_text()))
            result.unlink()
        else:
            time.sleep(0.01)
        if now - said >= 60:
            said = now
            print(f"{(now - started) / 60:.0f} min, {tally.line()}", flush=True)


def _fork_case(campaign: Campaign, name: str, result: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        result.write_text(json.dumps(campaign.run(name)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def import_everything() -> None:
    """All modules of the package, and what they import when they first need it; no thread may be running then."""
    for module in pkgutil.walk_packages(nlproar.__path__, "nlproar."):
        if module.name != "nlproar.study.preloaded":  # which changes how a process ends
            importlib.import_module(module.name)
    for name in ("filelock", "tabulate", "tqdm", "safetensors.torch", "torch.fx", "torch.distributed",
                 "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_agg"):  # fmt: skip
        importlib.import_module(name)
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise SystemExit(f"error: {threads} threads run here, and a process with threads cannot be forked")
    babi_simulation.QUESTIONS = QUESTIONS
    gc.collect()
    gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, help="end after so many kills (default: 500, with --minutes no limit)")
    parser.add_argument("--minutes", type=float, help="start no case after so many minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--only", metavar="CASE", help="repeat one case, such as operations:chain:57:half")
    parser.add_argument("--list", action="store_true", help="show the file operations of the scenarios, and end")
    flags = parser.parse_args(argv)
    if flags.kills is None and flags.minutes is None:
        flags.kills = 500
    place = Path(tempfile.mkdtemp(prefix="nlproar-kill-"))
    import_everything()
    campaign = Campaign(place, flags.seed, flags.scenarios, flags.ways)
    if flags.list:
        for way, name in campaign.shares:
            if way == "operations":
                print((campaign.reference(way, name).folder.parent / "operations.txt").read_text())
        shutil.rmtree(place)
        return 0
    following = iter([flags.only, None]).__next__ if flags.only else None
    if following is None:
        for way, name in campaign.shares:
            campaign.reference(way, name)
        following = names(campaign, flags.kills or 10_000)
    tally = carry_out(campaign, following, flags)
    for what, count in sorted(tally.kills.items()):
        print(f"{count:5d}  {what}")
    print(tally.line())
    if not tally.first_bad:
        shutil.rmtree(place)
        return 0
    print(f"the first case that went wrong is in {tally.first_bad['place']}; repeat it with: "
          f"python -m tests.campaigns.kill --seed {flags.seed} --only {tally.first_bad['name']}")  # fmt: skip
    return 1


if __name__ == "__main__":
    sys.exit(main())
