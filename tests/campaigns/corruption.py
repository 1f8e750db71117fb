"""Damage one file of a finished study, run a command that reads it, and judge what comes of it.

    python -m tests.campaigns.corruption [--count 500] [--seed 0] [--minutes M]

A small study with its report is made once. Each round copies it, damages one file or folder of a kind that is drawn at
random (a bit flipped, cut, emptied, replaced by a folder, by a named pipe, by another run's file, ...), and runs one of
the commands that read this kind. Each round must end in one of these ways:

- `made again`: the damage was noticed, and the file holds what it held before.
- `named`: the command ends with 2 (a study: 1) and one line that names the file; or it goes on without the file, and a
  warning names it.
- `harmless`: the file is still damaged or gone, and every number is the right one.

A wrong number without a word, a traceback, a command that does not end, and a leftover are problems. The exit code is 1
if there was one.

Root may read and write everything, so the commands give up this right: permissions then count for them too.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gzip
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import sys
import tarfile
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.campaigns import kill  # isort: skip  first of all: it sets the number of threads before torch is imported
from nlproar import fingerprints
from nlproar.run.layout import Layout
from nlproar.study import job_lists
from tests.conftest import ROOT

FAST = ("--max-epochs", "2", "--device", "cpu")
SCRIPT = ("experiments/babi.py",)
SIMULATED = ("--source", "simulated", *FAST)
MEASURES = ("random", "gradient", "integrated-gradient")
KINDS_OF_OUTPUT = (".csv", ".md", ".tex", ".html")
PATIENCE = 300  # seconds that a command may take

# -------------------------------------------------------------------------------- commands


def _commands(vectors: Path) -> dict[str, tuple[str, ...]]:
    """The commands that read what was damaged, without --persistent-dir."""
    shared = (*SIMULATED, "--vectors", str(vectors), "--roar-strategy", "count", "--recursive")
    integrated = ("--importance-measure", "integrated-gradient", "--riemann-samples", "3")
    gradient = ("--importance-measure", "gradient")
    run = (*SCRIPT, *shared)
    study = ("experiments/study.py", "--dataset", "babi-1", *shared, "--importance-measure", *MEASURES,
             "--riemann-samples", "3")  # fmt: skip
    stopped = ("--dataset", "babi-1", *shared, *gradient, "--seed", "1", "--k", "1", "2", "--overwrite")
    return {
        "study": (*study, "--k", "1", "2"),
        "study, one level more": (*study, "--k", "1", "2", "3"),
        "dry run": (*study, "--k", "1", "2", "--dry-run"),
        "dry run of what failed": (*study, "--k", "1", "--seed", "9", "--dry-run"),
        "dry run of what was stopped": ("experiments/study.py", *stopped, "--stage", "measures", "--dry-run"),
        "job lists of a study": (*study, "--k", "1", "2", "3", "--job-lists"),
        "run": (*run, *gradient, "--k", "0", "1", "2"),
        "run again": (*run, *integrated, "--k", "1", "--overwrite"),
        "next level": (*run, *gradient, "--k", "3"),
        "next level, integrated gradient": (*run, *integrated, "--k", "3"),
        "next level, masks gone": (*run, *gradient, "--k", "3"),
        "run that failed": (*run, "--seed", "9"),
        "run that was killed": (*run, "--seed", "5", "--max-epochs", "9"),
        "erasure again": (*run, *gradient, "--metric", "erasure", "--overwrite"),
        "table of importance": ("-m", "nlproar", "importance", "--dataset", "babi-1", *shared, *gradient, "--k", "2"),
        "list of runs": ("-m", "nlproar", "ls"),
        "pack": ("-m", "nlproar", "pack", "--out", str(vectors.with_name("packed.tar"))),
        "run again that was stopped": ("-m", "nlproar", "run", *stopped),
        "run of an archive": (*SCRIPT, *FAST, "--vectors", str(vectors)),
        "report": ("experiments/report.py", "--device", "cpu"),
    }


# Which files there are of a kind, and the commands that read them.
_MAIN = "babi-1-simulated_rnn_s-0_*"  # the study; runs of other seeds and tasks are there to be mixed up with it
_READERS = ("next level", "next level, integrated gradient", "study, one level more")
_EXPLAINING = ("erasure again", "table of importance")
_OVERWRITING = ("run again", "run again that was stopped", "dry run of what was stopped")
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "record": (f"results/*/{_MAIN}.json", ("run", "study", "dry run", "report", "list of runs", "pack", *_READERS)),
    "description of weights": (
        f"checkpoints/{_MAIN}/checkpoint.json",
        ("report", "run again", "run", *_EXPLAINING, *_READERS),
    ),
    "weights": (f"checkpoints/{_MAIN}/weights-*.safetensors", ("report", "run again", *_EXPLAINING, *_READERS)),
    "state of training": ("checkpoints/*_s-5_*/training*", ("run that was killed",)),
    "encoded data": ("cache/encoded/babi-1_simulated-*.npz", ("run", "report", *_READERS)),
    "vectors": ("cache/vectors/*.npz", ("run that failed", *_READERS)),
    "checksum of a file": ("cache/fingerprints/*.json", ("run", "run that failed", "run of an archive", *_READERS)),
    "sizes in an archive": ("cache/archives/*.npz", ("run of an archive",)),
    "importance": ("cache/importance/*.npz", ("report", "next level, masks gone", "run again", "erasure again")),
    "values of observations": ("cache/observations/*.npz", ("erasure again",)),
    "masks": (f"cache/masks/{_MAIN}.npz", ("report", "table of importance", *_READERS)),
    "convergence": ("cache/convergence/*.npz", ("report",)),
    "note of an overwrite": ("overwrite/*.json", ("run", "study", "run that was killed", *_OVERWRITING)),
    "log": (f"logs/{_MAIN}.log", ("study", "study, one level more")),
    "note of a failure": ("logs/failed/*.txt", ("run that failed", "dry run of what failed")),
    "job list": ("logs/slurm/*/*.jobs", ("job lists of a study",)),
    "record of submissions": ("logs/slurm/submitted.tsv", ("job lists of a study",)),
    "lock": ("**/.*.lock", ("run that failed", "run again", "report", "run again that was stopped", *_READERS)),
    "leftover": ("**/.*.tmp", ("run", "run again", "report", *_READERS)),
    "table of importance": ("results/importance_measure/[!.]*", ("table of importance", "report", "list of runs")),
    "table": ("tables/[!.]*", ("report",)),
    "plot": ("plots/[!.]*", ("report",)),
    "page": ("report.html", ("report",)),
    "folder": (
        "**/",
        ("run", "study", "report", "run that failed", "job lists of a study", *_OVERWRITING, *_EXPLAINING, *_READERS),
    ),
}


@dataclass
class Reference:
    """What a command does when nothing is damaged."""

    code: int
    stdout: str
    content: dict[str, Any]  # file -> what must be equal
    seconds: float


@dataclass
class World:
    """The finished study, in `folder`, and what each command makes of it."""

    place: Path
    kinds: Sequence[str] = tuple(KINDS)  # of files that are damaged
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    references: dict[str, Reference] = field(default_factory=dict)
    rounds: int = 0

    @property
    def folder(self) -> Path:
        return self.place / "world"

    @property
    def copy(self) -> Path:
        """Where every command finds a copy of the world: its path is in what the commands print and note."""
        return self.place / "persistent"

    @property
    def queue(self) -> Path:
        """What Slurm says of the jobs that it has: the standard input of every command."""
        return self.place / "queue"

    def files(self, kind: str) -> list[Path]:
        """Relative paths of the files of `kind`; of folders all but the outermost one. Links lead out of the world."""
        paths = [path for path in self.folder.glob(KINDS[kind][0]) if path != self.folder and not path.is_symlink()]
        if kind == "importance":
            paths = [path for path in paths if path.stem.rpartition("-")[0] in self._importance_of_main]
        return sorted(path.relative_to(self.folder) for path in paths)

    @cached_property
    def _importance_of_main(self) -> set[str]:
        """The importance that the runs of the study are masked by, as its files are named: by measure and digest."""
        found = set()
        for path in self.folder.glob(KINDS["record"][0]):
            record = json.loads(path.read_text())
            found.add(f"{record['identity']['importance_measure']}-{str(record['sources']['importance'])[:16]}")
        return found


def make_world(place: Path, with_report: bool = True) -> World:
    """Carry out the study and its report, a run that fails, one that is killed, one of official data and an overwrite
    that stops midway; write job lists, and leave files half written."""
    world = World(place)
    vectors = place / "few vectors.txt"
    vectors.write_text("".join(f"{word} 0.1 0.2 {number}\n" for number, word in enumerate(("john", "mary", "the"))))
    world.queue.write_text("")
    world.commands = _commands(vectors)
    if not with_report:
        del world.commands["report"]
    folder = world.copy  # where the commands will look; the absolute paths in the files are right there
    _link_official_data(place / "official", folder)

    def make(command: Sequence[str], expected: int = 0) -> None:
        code = carry_out(world, command, folder, place / "making")
        if code != expected:
            raise SystemExit(f"error: making the world: exit code {code} of {command}; see {place / 'making.err'}")

    make(world.commands["study"])
    make((*SCRIPT, *SIMULATED, "--task", "2", "--train-missing"))  # another task, and another seed, to be mixed up with
    make((*world.commands["run"], "--seed", "1", "--train-missing"))
    make(world.commands["run of an archive"])
    make(world.commands["erasure again"])
    make(world.commands["table of importance"])
    if with_report:
        make(world.commands["report"])
    make((*world.commands["run that failed"], "--device", "quantum"), expected=2)
    stopped = world.commands["run again that was stopped"]
    make((*stopped, "--device", "quantum"), expected=2)  # it has noted what it is to do, and done nothing
    make((*stopped, "--k", "1"))  # the last --k counts: of two levels one is left
    if len(list(folder.glob(KINDS["note of an overwrite"][0]))) != 1:
        raise SystemExit("error: making the world: there is no note of an overwrite that was stopped")
    _kill_while_training(world.commands["run that was killed"], folder, place / "killed")
    make(world.commands["job lists of a study"])
    _submit(world)
    _leave_half_written(folder)
    folder.rename(world.folder)
    return world


def _link_official_data(official: Path, folder: Path) -> None:
    """Unpacked files and the archive beside them, as a user has them who unpacked it by hand."""
    name = "tasks_1-20_v1-2"
    shutil.copytree(ROOT / "tests" / "cases" / "b03_trailing_blank" / "p" / "raw" / "babi", official)
    with tarfile.open(official / f"{name}.tar.gz", "w:gz") as archive:
        archive.add(official / name, name)
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "babi").symlink_to(official)  # the state of a file, with which its checksum is kept, stays


def _submit(world: World) -> None:
    """Note the first job list as that of a job of which one element is still in the queue."""
    (file,) = world.copy.glob(KINDS["job list"][0])
    job_lists.note_submitted(Layout(world.copy), "7", file, 0)
    world.queue.write_text("7 0\n")


def _kill_while_training(command: Sequence[str], folder: Path, output: Path) -> None:
    pid = kill.start([*command, "--persistent-dir", str(folder)], output.with_suffix(".err"), False, {})
    while not list(folder.glob(KINDS["state of training"][0])):
        if kill.ended(pid, 0.001) is not None:
            raise SystemExit(f"error: making the world: a run ended before it was killed; see {output}.err")
    kill.send(signal.SIGKILL, [pid])
    kill.ended(pid, PATIENCE)


def _leave_half_written(folder: Path) -> None:
    """What killed processes leave: the first half of a file of each kind under a temporary name."""
    for kind, (pattern, _) in KINDS.items():
        if kind in ("log", "lock", "leftover", "folder", "record of submissions"):  # these are not written as a whole
            continue
        for path in sorted(folder.glob(pattern))[:1]:
            half = path.read_bytes()[: path.stat().st_size // 2]
            path.with_name(f".{path.name}.0123456789ab.tmp").write_bytes(half)


def reference(world: World, name: str) -> Reference:
    """Carry out a command in a copy of the undamaged world."""
    folder = fresh_copy(world)
    prepare(folder, name)
    started = time.monotonic()
    output = world.place / "reference"
    code = carry_out(world, world.commands[name], folder, output)
    seconds = time.monotonic() - started
    if code != 0:
        raise SystemExit(f"error: {name}, nothing damaged: exit code {code}; see {output}.err")
    stdout = without_stamps(output.with_suffix(".out").read_text())
    compared = [
        file for file in kill.files(folder) if not (folder / file).is_symlink() and not is_new_list(world, file)
    ]
    content = {file: content_of(folder / file) for file in compared}
    for path in world.place.glob("reference.*"):
        path.unlink()
    return Reference(code, stdout, content, seconds)


def without_stamps(text: str) -> str:
    """A text without the time and the process in the names of job lists, which differ each time."""
    return re.sub(r"\b\d{8}-\d{6}-\d+-", "", text)


def is_new_list(world: World, file: str) -> bool:
    """Whether a file is a job list that the command has written; its content is that of the line that it prints."""
    return file.endswith(".jobs") and not (world.folder / file).exists()


def fresh_copy(world: World) -> Path:
    """A new copy of the world, always at the same place."""
    remove(world.copy)
    shutil.copytree(world.folder, world.copy, symlinks=True)
    return world.copy


def prepare(folder: Path, name: str) -> None:
    if name.endswith("masks gone"):
        for path in (folder / "cache" / "masks").glob("*.npz"):
            path.unlink()


def carry_out(world: World, command: Sequence[str], folder: Path, output: Path) -> int | None:
    """The exit code of a command, None if it does not end. Its output is in OUTPUT.err and OUTPUT.out."""
    full = [*command, "--persistent-dir", str(folder)]
    pid = kill.start(full, output.with_suffix(".err"), False, {}, obey_permissions, world.queue)
    code = kill.ended(pid, PATIENCE)
    if code is None:
        kill.send(signal.SIGKILL, [*kill.children(pid), pid])
        kill.ended(pid, PATIENCE)
    kill.orphans_ended(20)
    return code


def obey_permissions() -> None:
    """Give up root's right to read and write everything, in this process and those that it forks."""
    if os.geteuid() != 0:
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of capabilities, of this process
    no_capabilities = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, no_capabilities) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def content_of(path: Path) -> Any:
    """What must be the same in a file, whoever made it; None where only its existence is compared."""
    if path.name.endswith(".csv.gz"):
        rows = gzip.decompress(path.read_bytes()).decode().splitlines()
        return [row.rpartition(",")[0] for row in rows]  # but for the seconds
    if path.suffix == ".html":
        return path.read_text()
    return kill.content_of(path)


# -------------------------------------------------------------------------------- damages

Damage = Callable[[Path, World, random.Random], bool]  # False where it cannot be done to this file


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _changed(change: Callable[[bytearray, random.Random], bytes]) -> Damage:
    """A damage to the content of a file that is not empty."""

    def damage(path: Path, world: World, rng: random.Random) -> bool:
        if not path.is_file() or path.stat().st_size == 0:
            return False
        before = path.read_bytes()
        path.write_bytes(change(bytearray(before), rng))
        return path.read_bytes() != before

    return damage


def _flip_bit(content: bytearray, rng: random.Random) -> bytes:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _flip_byte(content: bytearray, rng: random.Random) -> bytes:
    content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
    return bytes(content)


def _zero_block(content: bytearray, rng: random.Random) -> bytes:
    """As after a loss of power."""
    start = rng.randrange(len(content))
    end = min(len(content), start + 512)
    content[start:end] = bytes(end - start)
    return bytes(content)


def _another_digit(content: bytearray, rng: random.Random) -> bytes:
    """As an editor leaves it: a file of text stays well formed."""
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit() and byte < 128]
    if digits:
        place = rng.choice(digits)
        content[place] = rng.choice([byte for byte in b"0123456789" if byte != content[place]])
    return bytes(content)


def _replaced(make: Callable[[Path], object]) -> Damage:
    """Something else in the place of a file or folder."""

    def damage(path: Path, world: World, rng: random.Random) -> bool:
        remove(path)
        make(path)
        return True

    return damage


def _folder_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "precious").write_text("of somebody")


def _link_to_a_folder(path: Path) -> None:
    target = path.parent / "some folder"
    target.mkdir(exist_ok=True)
    path.symlink_to(target)


def _socket(path: Path) -> None:
    # A path of a socket is short, so this names its folder by a descriptor.
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


def _of_another_kind(path: Path, world: World, rng: random.Random) -> bool:
    mine = path.relative_to(world.copy)
    others = [file for kind in KINDS if kind not in ("folder", "lock") for file in world.files(kind)]
    others = [file for file in others if file.suffix != mine.suffix or file.parts[:2] != mine.parts[:2]]
    return _copy(world.folder / rng.choice(others), path)


def _of_another_run(path: Path, world: World, rng: random.Random) -> bool:
    """Another file of the same kind, or of the same kind in another task or seed."""
    mine = path.relative_to(world.copy)
    pattern = "checkpoints/*/*" if mine.parts[0] == "checkpoints" else str(mine.parent / "*")
    others = [other for other in world.folder.glob(pattern) if other.is_file() and other.suffix == path.suffix]
    others = [other for other in others if other != world.folder / mine and not other.name.startswith(".")]
    return bool(others) and _copy(rng.choice(sorted(others)), path)


def _copy(source: Path, path: Path) -> bool:
    if path.is_dir() or source.read_bytes() == path.read_bytes():
        return False
    path.write_bytes(source.read_bytes())
    return True


def _permission(mode: int) -> Damage:
    def damage(path: Path, world: World, rng: random.Random) -> bool:
        path.chmod(mode)
        return True

    return damage


def _gone(path: Path, world: World, rng: random.Random) -> bool:
    remove(path)
    return True


DAMAGES: dict[str, Damage] = {
    "a bit flipped": _changed(_flip_bit),
    "a byte flipped": _changed(_flip_byte),
    "another digit": _changed(_another_digit),
    "cut": _changed(lambda content, rng: bytes(content[: rng.randrange(len(content))])),
    "cut at its end": _changed(lambda content, rng: bytes(content[: -min(len(content), rng.randrange(1, 9))])),
    "emptied": _changed(lambda content, rng: b""),
    "zeros in it": _changed(_zero_block),
    "bytes added": _changed(lambda content, rng: bytes(content) + rng.randbytes(rng.randrange(1, 99))),
    "twice": _changed(lambda content, rng: bytes(content) * 2),
    "of another kind": _of_another_kind,
    "of another run": _of_another_run,
    "no permission": _permission(0),
    "only to read": _permission(0o555),
    "a folder": _replaced(Path.mkdir),
    "a folder with a file": _replaced(_folder_with_a_file),
    "a file": _replaced(lambda path: path.write_text("no folder")),
    "a dangling link": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to a folder": _replaced(_link_to_a_folder),
    "a link to a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a named pipe": _replaced(os.mkfifo),
    "a socket": _replaced(_socket),
    "gone": _gone,
}
OF_FILES = [name for name in DAMAGES if name not in ("a file", "only to read")]
OF_FOLDERS = [name for name in DAMAGES if name.startswith("a ") and "folder" not in name and "flipped" not in name]
OF_FOLDERS += ["no permission", "only to read", "gone"]

# -------------------------------------------------------------------------------- a round


@dataclass
class Round:
    """One damage, one command, and how it ended."""

    number: int
    kind: str
    damage: str
    file: str
    command: str
    outcome: str = ""
    problem: str = ""

    def __str__(self) -> str:
        return f"round {self.number}: {self.file}, {self.damage}; {self.command}: {self.problem or self.outcome}"


def carry_out_round(world: World, number: int, seed: int) -> Round:
    """Draw, damage, run and judge. The same number and seed draw the same."""
    rng = random.Random(f"{seed} {number}")
    folder = fresh_copy(world)
    done = damaged(world, folder, number, rng)
    if done.command not in world.references:  # which is made where the damage just was
        world.references[done.command] = reference(world, done.command)
        return carry_out_round(world, number, seed)
    path = folder / done.file
    prepare(folder, done.command)
    before = _state_of(path)
    mode = path.lstat().st_mode if before else 0
    output = world.place / f"round_{number}"
    logs = {log: log.read_text(errors="replace") for log in (folder / "logs").glob("*.log") if _is_text(log)}
    code = carry_out(world, world.commands[done.command], folder, output)
    if before and stat.S_IMODE(mode) & 0o700 != 0o700 and path.exists() and not path.is_symlink():
        path.chmod(0o700)  # for the eyes of this process
    stderr, stdout = (output.with_suffix(suffix).read_text(errors="replace") for suffix in (".err", ".out"))
    for log in (folder / "logs").glob("*.log"):
        if _is_text(log):
            stderr += log.read_text(errors="replace").removeprefix(logs.get(log, ""))
    judge = Judge(world, done, folder, code, stdout, stderr, before)
    done.outcome, done.problem = judge.outcome(), "; ".join(judge.problems)
    if not done.problem:
        for suffix in (".err", ".out"):
            output.with_suffix(suffix).unlink()
    return done


def damaged(world: World, folder: Path, number: int, rng: random.Random) -> Round:
    """Damage something in `folder`."""
    while True:
        kind = rng.choice([kind for kind in world.kinds if world.files(kind)])
        file = rng.choice(world.files(kind))
        damage = rng.choice(OF_FOLDERS if kind == "folder" else OF_FILES)
        readers = [name for name in KINDS[kind][1] if name in world.commands and may_read(name, file)]
        if not readers:
            continue
        command = rng.choice(readers)
        if DAMAGES[damage](folder / file, world, rng):
            return Round(number, kind, damage, str(file), command)


def may_read(command: str, file: Path) -> bool:
    """Whether a command may need this file: a level of one measure needs none of another."""
    measure = re.search(r"_m-([a-z-]+)_|/importance/([a-z-]+)-[0-9a-f]{16}-", str(file))
    if measure is None or not command.startswith("next level"):
        return True
    return (measure[1] or measure[2]) == ("integrated-gradient" if "integrated" in command else "gradient")


def _is_text(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)


def _state_of(path: Path) -> tuple[int, bytes] | None:
    """Kind and content of whatever is at `path`; None if nothing is."""
    try:
        mode = path.lstat().st_mode
    except OSError:  # it is gone, or the way there
        return None
    if stat.S_ISREG(mode):
        return stat.S_IFMT(mode), path.read_bytes()
    if stat.S_ISLNK(mode):
        return stat.S_IFMT(mode), os.readlink(path).encode()
    return stat.S_IFMT(mode), b""


_EMPTY = (stat.S_IFREG, b"")


class Judge:
    """What came of a round."""

    def __init__(
        self,
        world: World,
        done: Round,
        folder: Path,
        code: int | None,
        stdout: str,
        stderr: str,
        before: tuple[int, bytes] | None,
    ) -> None:
        self.reference = world.references[done.command]
        self.done, self.folder, self.code = done, folder, code
        self.stdout, self.stderr, self.before = stdout, stderr, before
        self.path = folder / done.file
        self.problems: list[str] = []

    def outcome(self) -> str:
        """How the round ended; `problems` are filled."""
        if self.code is None:
            self.problems.append("it does not end")
            return "hangs"
        if re.search("Traceback|Exception ignored", self.stderr + self.stdout):
            self.problems.append("a traceback")
            return "traceback"
        if self.code != 0:
            return self._refused()
        said = self.stderr if self.done.command.startswith("job lists") else self.stderr + self.stdout
        named = self._named(said) or self._noted_in_report()  # each line of job lists names the record of submissions
        if without_stamps(self.stdout) != self.reference.stdout and not named:
            self.problems.append("it prints something else, without a word")
        self._compare_files(all_of_them=not named)
        self._look_for_leftovers()
        if self.done.kind != "folder" and self._is_as_before_the_damage():
            return "made again"
        return "named" if named else "harmless"

    def _refused(self) -> str:
        allowed = (1, 2) if "study" in self.done.command else (2,)
        errors = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        if self.code not in allowed:
            self.problems.append(f"exit code {self.code}")
        if not errors:
            self.problems.append("no line says why")
        elif not self._named("\n".join(errors)):
            self.problems.append(f"the error does not name it: {errors[-1]}")
        if self.code == 2 and len(errors) != 1 and "study" not in self.done.command:
            self.problems.append(f"{len(errors)} lines of errors")
        self._compare_files(all_of_them=False)
        return "named"

    def _named(self, text: str) -> bool:
        """Whether a text names the file, or of a lock what it locks. What is gone has no name, and nobody misses it."""
        if self.done.damage == "gone" or (self.done.kind == "record of submissions" and self.before == _EMPTY):
            return True  # before the first submission, that record is empty
        what = self.path.name
        if self.done.kind == "lock":
            what = what.removeprefix(".").removesuffix(".lock")
        if self.done.kind == "note of a failure":  # what it says is shown beside the run, whose name it has
            what = self.path.stem
        return what in text or (self.done.kind == "folder" and self.done.file in text)

    def _noted_in_report(self) -> bool:
        """Whether the report says what it could not show, and why. It says so of a kind of cache, not of a file."""
        page = self.folder / "report.html"
        if self.done.command != "report" or not self.done.file.startswith("cache/"):
            return False
        what = "the cache of .* (cannot be read|is damaged|holds)|cached importance holds|of another run"
        notes = re.compile(f"{what}|was trained again since")
        expected = notes.findall(self.reference.stdout + self.reference.content["report.html"])
        return len(notes.findall(self.stdout + page.read_text())) > len(expected)

    def _is_as_before_the_damage(self) -> bool:
        file = self.done.file
        if _state_of(self.path) == self.before or file not in self.reference.content:
            return False
        return self._content(file) == self.reference.content[file]

    def _content(self, file: str) -> Any:
        try:
            return content_of(self.folder / file)
        except (OSError, ValueError, EOFError, csv.Error, zlib.error):
            return "unreadable"

    def _compare_files(self, all_of_them: bool) -> None:
        """What is there must hold the right numbers, but for the damaged file itself as long as nobody read it.

        Where the file was named, the report may be another one, as it was made without the file.
        """
        for file, expected in self.reference.content.items():
            path = self.folder / file
            is_it = file == self.done.file or file.startswith(f"{self.done.file}/")
            if is_it and (_state_of(path) == self.before or self.done.kind == "folder"):
                continue
            if not all_of_them and path.suffix in KINDS_OF_OUTPUT:
                continue
            state = _state_of(path)
            if state is None or state[0] != stat.S_IFREG:
                if self.code == 0 and all_of_them:
                    self.problems.append(f"{file} is missing")
            elif self._content(file) != expected:
                self.problems.append(f"{file} has other numbers")

    def _look_for_leftovers(self) -> None:
        """Whatever was written half when a command began that makes runs or a report is gone at its end."""
        if self.done.command.startswith(("dry run", "job lists", "list", "pack")) or self.done.kind in (
            "leftover",
            "folder",
        ):
            return
        for left in self.folder.rglob(".*.tmp"):
            if "checkpoints" not in left.parts:
                self.problems.append(f"{left.relative_to(self.folder)} is left")


# -------------------------------------------------------------------------------- the campaign


def table(rounds: Sequence[Round]) -> str:
    """Rounds by kind and by damage, a column for each outcome."""
    outcomes = sorted({done.outcome for done in rounds})
    lines = []
    for title, name in (("kind", "kind"), ("damage", "damage")):
        lines.append(f"{title:24s}" + "".join(f"{outcome:>12s}" for outcome in outcomes) + f"{'problems':>12s}")
        for value in sorted({getattr(done, name) for done in rounds}):
            here = [done for done in rounds if getattr(done, name) == value]
            counts = Counter(done.outcome for done in here)
            cells = "".join(f"{counts[outcome] or '':>12}" for outcome in outcomes)
            lines.append(f"{value:24s}{cells}{sum(bool(done.problem) for done in here) or '':>12}")
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="rounds")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no round after so many minutes")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--report", action=argparse.BooleanOptionalAction, default=True, help="reports, which are slow")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--only", type=int, metavar="ROUND", help="repeat one round, and keep its folder")
    flags = parser.parse_args(argv)
    os.chdir(ROOT)
    kill.import_everything()
    fingerprints.LARGE = 20  # bytes: the checksum of the small file of vectors is kept as that of a large one,
    fingerprints._SETTLED = 0.0  # and at once
    started = time.monotonic()
    place = Path(tempfile.mkdtemp(prefix="nlproar-corruption-"))
    world = make_world(place, flags.report)
    world.kinds = flags.kinds
    print(f"the world took {time.monotonic() - started:.0f} s: {len(kill.files(world.folder))} files", flush=True)
    rounds: list[Round] = []
    said = started
    numbers = [flags.only] if flags.only is not None else range(flags.count)
    for number in numbers:
        if time.monotonic() - started > 60 * flags.minutes:
            break
        rounds.append(carry_out_round(world, number, flags.seed))
        if rounds[-1].problem:
            print(rounds[-1], flush=True)
        if time.monotonic() - said > 60:
            said = time.monotonic()
            bad = sum(bool(done.problem) for done in rounds)
            print(f"{(said - started) / 60:.0f} min, {len(rounds)} rounds, {bad} with a problem", flush=True)
    print(table(rounds))
    wrong = [done for done in rounds if done.problem]
    print(f"{len(rounds)} rounds, {len(wrong)} with a problem, {(time.monotonic() - started) / 60:.1f} min")
    if flags.only is not None:
        print(rounds[0], f"see {place}", sep="\n")
    elif not wrong:
        remove(place)
    else:
        kinds = "" if flags.kinds == list(KINDS) else " --kinds " + shlex.join(flags.kinds)
        report = "" if flags.report else " --no-report"
        print(f"what the commands of these rounds printed is in {place}; repeat one with: "
              f"python -m tests.campaigns.corruption --seed {flags.seed}{kinds}{report} --only ROUND")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
