"""The threads a process uses, and a worker that ends with its study."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from nlproar import process
from nlproar.run.run import run
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "number"),
    [("3", 3), (" 3 ", 3), ("2(x3)", 2), ("4,2", 4), ("", None), ("abc", None), ("0", None), ("-1", None),
     ("9" * 30, None), ("x2", None)],
)  # fmt: skip
def test_a_number_of_cores_is_understood_or_ignored_with_a_warning(monkeypatch, caplog, text, number):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
    with caplog.at_level(logging.WARNING, "nlproar.process"):
        assert process.leading_number("SLURM_CPUS_PER_TASK") == number
        here = process.available_cores()
    assert here >= 1 and bool(caplog.records) == bool(text.strip() and number is None)


def test_threads_of_a_worker_are_those_the_user_set_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(process, "available_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [process.share_of_threads(jobs) for jobs in (1, 3, 20)] == [8, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert process.share_of_threads(4) == 5


@pytest.mark.slow
def test_a_run_uses_as_many_threads_as_its_flag_says(small_run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        for threads in (3, 2):
            done = run(small_run(threads=threads, seed=threads))
            assert done.environment["threads"] == threads == int(os.environ["OMP_NUM_THREADS"])
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_the_flag_works_before_torch_is_imported():
    code = "from nlproar import process; process.prepare(1); import torch; print(torch.get_num_threads())"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.slow
def test_a_parent_that_is_no_process_is_one_line():
    for parent in ("abc", "-1", "1.5", "²"):
        command = [sys.executable, "experiments/babi.py"]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "NLPROAR_PARENT": parent}
        )
        assert (
            done.returncode == 2 and done.stderr.startswith("error: NLPROAR_PARENT=") and done.stderr.count("\n") == 1
        )
