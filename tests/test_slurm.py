"""batch_jobs/ on a real Slurm: what is submitted is carried out, once, and goes on where it was cut off."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import slurm
from tests.conftest import ROOT, wait_for
from tests.test_scripts import records

FLAGS = ("babi-1", "--source", "simulated", "--seed", 0, 1, "--importance-measure", "random", "attention")
FLAGS = (*FLAGS, "--k", 20, 40, "--max-epochs", 1, "--device", "cpu")
RUNS = 2 * (2 + 2 * 2)  # seeds, with k = 0, k = 100 and two levels of two measures


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    reason = slurm.missing()
    if reason and os.environ.get("CI"):
        pytest.fail(f"this test must run in CI, but {reason}")
    if reason:
        pytest.skip(reason)
    with slurm.cluster(tmp_path_factory.mktemp("slurm"), largest=3) as environment:
        yield environment


@pytest.fixture
def start(cluster, few_questions):
    """Start a command with its scratch folder, as a user does on the cluster."""

    def run(scratch: Path, *command: object, programs: str = "") -> subprocess.Popen:
        path = os.pathsep.join([programs, str(Path(sys.executable).parent), os.environ["PATH"]]).lstrip(os.pathsep)
        own = {"PATH": path, "SCRATCH": str(scratch), "NLPROAR_MEMORY": "4G", "VIRTUAL_ENV": ""}
        environment = {**few_questions, "SLURM_CONF": cluster["SLURM_CONF"], **own}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*map(str, command)], cwd=ROOT, env=environment, **pipes)

    return run


@pytest.fixture
def on(start):
    """Run a command with its scratch folder, as a user does on the cluster; returns what it said."""

    def run(scratch: Path, *command: object) -> str:
        process = start(scratch, *command)
        out, err = process.communicate()
        assert process.returncode == 0 and not err, err
        return out

    return run


@pytest.fixture
def noisy_squeue(tmp_path):
    """A folder of programs in which squeue says more than was asked."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "squeue").write_text(f'#!/bin/sh\necho "module: slurm loaded"\nexec {shutil.which("squeue")} "$@"\n')
    (folder / "squeue").chmod(0o755)
    return str(folder)


def logs(scratch: Path) -> str:
    return "\n".join(f"{path.name}\n{path.read_text()}" for path in (scratch / "nlproar" / "logs").rglob("*.out"))


@pytest.mark.slow
def test_stages_submitted_one_after_the_other_wait_and_are_not_submitted_twice(on, start, noisy_squeue, tmp_path):
    def queue():
        return on(tmp_path, "squeue", "--noheader", "--array", "--format=%i %T %E").splitlines()

    base, measures = (("bash", f"batch_jobs/{name}.sh", *FLAGS) for name in ("base", "roar_recursive"))
    assert on(tmp_path, *base).count("job ") == 1
    first = on(tmp_path, *measures).splitlines()
    assert [line.rpartition(", ")[2] for line in first] == ["2 chains", "2 chains"]  # random at once, attention waits
    assert any("afterok" in line for line in queue())
    assert "nothing to submit" in on(tmp_path, *measures)  # all of it is queued
    wait_for(lambda: not queue(), lambda: (queue(), logs(tmp_path)))
    found = records(tmp_path / "nlproar")
    assert len(found) == RUNS, logs(tmp_path)
    on(tmp_path, "bash", "batch_jobs/report.sh", "--no-convergence")
    wait_for((tmp_path / "nlproar" / "report.html").exists, lambda: (queue(), logs(tmp_path)))
    assert "nothing to submit" in on(tmp_path, *base) and "nothing to submit" in on(tmp_path, *measures)

    # the same work in another folder, submitted in one go and by two at once, cancelled midway, and submitted again
    scratch = tmp_path / "again \"%A\" $HOME; 'ü'"
    both = [start(scratch, *measures, programs=noisy_squeue) for _ in range(2)]
    (second, _), (made, _) = sorted(process.communicate() for process in both)[::-1]
    assert "nothing to submit" in second
    assert [line.partition(": ")[2] for line in made.splitlines()] == [
        "babi-1, base, 2 chains", "babi-1, measures, 2 chains", "babi-1, measures, 2 chains",
    ]  # fmt: skip
    assert any("aftercorr" in line for line in queue())
    folder = scratch / "nlproar" / "results" / "roar"
    wait_for(lambda: len(list(folder.glob("*.json"))) >= 3, lambda: (queue(), logs(scratch)))
    on(scratch, "scancel", "--user=root")
    wait_for(lambda: not queue(), lambda: (queue(), logs(scratch)))
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert 3 <= len(kept) < RUNS
    assert "chains" in on(scratch, *measures)
    wait_for(lambda: not queue(), lambda: (queue(), logs(scratch)))
    assert records(scratch / "nlproar") == found
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was done stays as it was


@pytest.mark.slow
def test_arrays_longer_than_the_cluster_allows_are_split(on, tmp_path):
    made = on(tmp_path, "bash", "batch_jobs/base.sh", *FLAGS, "--seed", *range(5))
    assert [line.rpartition(", ")[2] for line in made.splitlines()] == ["3 chains", "2 chains"]
    elements = on(tmp_path, "squeue", "--noheader", "--array", "--format=%K").split()
    assert sorted(elements) == ["0", "0", "1", "1", "2"]
    on(tmp_path, "scancel", "--user=root")
