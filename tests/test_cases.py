"""Small inputs that once went wrong: each is run as its `command.txt` says, and must end as the table says.

A case is a folder below `tests/cases`. To add one, put its files there and a row into `CASES`.
"""

import gc
import json
import logging
import os
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from nlproar.dataset import encoding, load_task
from nlproar.experiment import needs
from tests.conftest import ROOT

FOLDER = Path(__file__).parent / "cases"
TREES = "p/raw/sst/trees"
QUESTIONS = "p/raw/babi/tasks_1-20_v1-2/en-10k"


@dataclass(frozen=True)
class Case:
    """How one case must end. `says` and `never` are regular expressions for stdout and stderr together.

    `prepare` gets the copied folder before the command runs, `check` gets it afterwards; `check` also gets what the
    command printed.
    """

    name: str
    code: int = 0
    says: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    prepare: Callable[[Path], object] | None = None
    check: Callable[[Path, str], object] | None = None


def the_record(folder: Path) -> dict:
    """The only record that the command wrote."""
    (path,) = (folder / "p" / "results" / "roar").glob("*.json")
    return json.loads(path.read_text())


def same_data_as(healthy: Callable[[Path], object]) -> Callable[[Path, str], object]:
    """A check: the run used the same data as a run on the folder that `healthy` has repaired."""

    def check(folder: Path, printed: str) -> None:
        record = the_record(folder)
        twin = folder.with_name("twin")
        shutil.copytree(FOLDER / folder.name, twin, symlinks=True)
        healthy(twin)
        task = load_task(record["config"]["dataset"])
        data = encoding.load(task, record["config"]["source"], twin / "p" / "raw", twin / "p" / "cache")
        assert record["data"]["digest"] == data.digest

    return check


def rewrite(path: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A repair: put the file at `path` through `change`."""

    def repair(folder: Path) -> None:
        file = folder / path
        file.write_bytes(change(file.read_bytes()))

    return repair


CASES = (
    # bAbI
    Case(
        "b03_trailing_blank",
        check=same_data_as(
            rewrite(f"{QUESTIONS}/qa1_single-supporting-fact_train.txt", lambda text: text.rstrip(b"\n") + b"\n")
        ),
    ),
)


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a command line of `command.txt` in this process, in the current folder: exit code and what was printed."""
    package_log = logging.getLogger("nlproar")
    before = (list(package_log.handlers), package_log.level, package_log.propagate)
    package_log.handlers.clear()
    umask = os.umask(0o022)
    needs.load_dataset.cache_clear()  # it knows a folder by its name, here "p" in every case

    def run(command: str) -> SimpleNamespace:
        python, script, *flags = shlex.split(command)
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [script, *flags])
        code = 0
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return SimpleNamespace(code=code, stdout=captured.out, stderr=captured.err)

    yield run
    package_log.handlers[:], package_log.level, package_log.propagate = before
    os.umask(umask)
    gc.unfreeze()
    needs.load_dataset.cache_clear()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_ends_as_it_must(case, run_script, tmp_path, monkeypatch):
    folder = tmp_path / case.name
    shutil.copytree(FOLDER / case.name, folder, symlinks=True)
    if case.prepare:
        case.prepare(folder)
    monkeypatch.chdir(folder)
    done = run_script((folder / "command.txt").read_text())
    printed = done.stdout + done.stderr
    assert done.code == case.code, printed
    assert "Traceback" not in printed
    if case.code == 2:  # one line, the last, says what is wrong
        assert [line.startswith("error: ") for line in done.stderr.splitlines()].count(True) == 1, printed
        assert done.stderr.splitlines()[-1].startswith("error: "), printed
    for pattern in case.says:
        assert re.search(pattern, printed), f"{pattern!r} is not in:\n{printed}"
    for pattern in case.never:
        assert not re.search(pattern, printed), f"{pattern!r} is in:\n{printed}"
    if case.check:
        case.check(folder, printed)
