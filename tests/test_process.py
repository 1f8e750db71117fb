"""The threads a process uses, processes beside it, and a worker that ends with its study."""

import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nlproar import process
from nlproar.errors import UserError
from nlproar.run.run import run
from nlproar.script import REQUIRED, users_errors
from tests.conftest import ROOT, wait_for


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


@pytest.mark.slow
def test_a_process_that_is_killed_is_one_line():
    with pytest.raises(UserError, match="a process was killed"):
        list(process.in_processes(2, signal.raise_signal, [signal.SIGKILL]))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_results_come_in_order_and_values_are_taken_when_they_are_needed():
    taken = []
    values = (taken.append(value) or value for value in range(100))
    results = process.in_processes(1, abs, values)
    assert next(results) == 0
    assert len(taken) < 10
    assert list(results) == list(range(1, 100))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_whoever_stops_before_the_last_result_leaves_no_process():
    results = process.in_processes(2, abs, range(100))
    next(results)
    results.close()
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_whoever_stops_keeps_the_processes_of_others():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    results = process.in_processes(1, abs, range(3))
    next(results)
    other.start()
    try:
        results.close()
        other.join(0.5)
        assert multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


@pytest.mark.slow
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path):
    code = (
        "import multiprocessing\n"
        "from nlproar.process import in_processes\n"
        "results = in_processes(2, abs, range(3))\n"  # they do not execute this script, so it needs no guard
        "next(results)\n"
        "print(*[child.pid for child in multiprocessing.active_children()], flush=True)\n"
        "__import__('time').sleep(100)\n"
    )
    (tmp_path / "script.py").write_text(code)
    with subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert children
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_device_without_memory_is_one_line_and_any_other_error_of_torch_keeps_its_traceback():
    class OutOfMemoryError(RuntimeError):
        """As torch calls that of a GPU."""

    for error in (OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] can't allocate memory: 9 TB")):
        said = "not enough memory on the device; take fewer --jobs"
        with pytest.raises(UserError, match=said), users_errors():
            raise error
    with pytest.raises(RuntimeError, match="shapes"), users_errors():
        raise RuntimeError("the shapes do not fit")


def test_only_a_package_that_nlproar_needs_is_one_line_and_that_of_a_plugin_keeps_its_traceback():
    with pytest.raises(UserError, match="the package torch is not installed"), users_errors():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    with pytest.raises(UserError, match=re.escape("'.[report]'")), users_errors():
        raise ModuleNotFoundError("No module named 'scipy.stats'", name="scipy.stats")
    with pytest.raises(ModuleNotFoundError), users_errors():
        raise ModuleNotFoundError("No module named 'of_a_plugin'", name="of_a_plugin")


def test_the_packages_that_every_installation_has_are_those_of_setup_py():
    listed = re.search(r"install_requires=\[(.+?)\]", (ROOT / "setup.py").read_text(), re.DOTALL)[1]
    names = re.findall(r'"([\w-]+)>=', listed)
    assert sorted(name.replace("-", "_") for name in names) == list(REQUIRED)
