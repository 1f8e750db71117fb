"""Processes of workers begin and end alike, whether they are forked or are new interpreters."""

import os
import signal
import subprocess
import sys
from multiprocessing.context import ForkServerProcess

import pytest

from nlproar.study import processes
from tests.conftest import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(params=["forked", "new interpreter"])
def start(request, monkeypatch, tmp_path):
    """Start a script of these lines as a worker; returns the process and its log."""
    if request.param == "new interpreter":
        monkeypatch.setattr(processes, "_GPUS", (os.devnull,))
    elif sys.platform != "linux":
        pytest.fail("workers are forked on Linux only")

    def call(code, *flags):
        script = tmp_path / "script.py"
        script.write_text(code)
        log = tmp_path / "log.txt"
        return processes.start([str(script), *flags], log, False, 3), log

    return call


def test_a_worker_has_its_flags_threads_session_log_and_exit_code(start, monkeypatch, tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "json.py").write_text("raise SystemExit(9)")  # must not take the place of the library
    monkeypatch.chdir(tmp_path / "user")
    monkeypatch.setenv("A_VARIABLE", "of the user")
    code = """import json, os, sys
print(json.dumps([sys.argv[1:], os.environ["OMP_NUM_THREADS"], os.environ["A_VARIABLE"], os.getcwd()]), flush=True)
print(os.getsid(0) == os.getpid(), __name__, sys.stdin.read() == "", file=sys.stderr)
sys.exit(7)
"""
    before = dict(os.environ)
    worker, log = start(code, "--k", "1")
    assert dict(os.environ) == before  # with NLPROAR_PARENT, this process would take itself for a worker
    assert worker.wait(120) == 7 == worker.returncode == worker.poll()
    first, second = log.read_text().splitlines()
    assert first == f'[["--k", "1"], "3", "of the user", "{tmp_path / "user"}"]'
    assert second == "True __main__ True"


@pytest.mark.parametrize("is_installed_there", [False, True])
def test_the_current_folder_is_no_place_for_libraries_unless_it_is_one_by_itself(tmp_path, is_installed_there):
    (tmp_path / "worker.py").write_text("import sys\nprint(sys.path.count(sys.argv[1]))\n")
    study = (
        "from pathlib import Path\n"
        "from nlproar.study import processes\n"
        "if __name__ == '__main__':\n"
        f"    arguments = ['worker.py', {str(tmp_path)!r}]\n"
        "    assert processes.start(arguments, Path('log.txt'), False, 1).wait(120) == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path if is_installed_there else tmp_path / "elsewhere")}
    (tmp_path / "study.py").write_text(study)
    subprocess.run([sys.executable, "-m", "study"], cwd=tmp_path, env=environment, check=True)
    assert int((tmp_path / "log.txt").read_text()) == int(is_installed_there)


def test_a_bug_keeps_its_traceback_in_the_log(start):
    worker, log = start("1 / 0\n")
    assert worker.wait(120) == 1
    assert "ZeroDivisionError" in log.read_text()


def test_a_worker_that_is_killed_has_the_signal_as_its_code(start):
    worker, log = start("import time\nprint('began', flush=True)\ntime.sleep(100)\n")
    wait_for(lambda: log.exists() and "began" in log.read_text())
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(0.1)
    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(60) == -signal.SIGTERM


def test_a_worker_is_a_new_interpreter_where_the_fork_server_was_killed(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(3 if 'torch' in sys.modules else 0)\n")

    def killed(self):
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(ForkServerProcess, "start", killed)
    assert processes.start([str(script)], tmp_path / "log.txt", False, 1).wait(120) == 0


def test_the_second_worker_that_is_forked_imports_nothing_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys\nsys.exit(0 if 'torch' in sys.modules else 3)\n")
    processes.start([str(script)], tmp_path / "log.txt", False, 1).wait(120)
    assert processes.start([str(script)], tmp_path / "log.txt", False, 1).wait(120) == 0
