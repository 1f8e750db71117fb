"""Ctrl-C while a command imports its libraries, which takes seconds on a slow disk."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from nlproar import interrupts, script
from tests import made_records
from tests.conftest import ROOT

# A process sends itself SIGINT when it begins to import the module that $INTERRUPTED_IMPORT names.
INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""
RUN = ("--source", "simulated", "--max-epochs", "1", "--device", "cpu")
STUDY = ("--source", "simulated", "--importance-measure", "gradient", "--k", "20")


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (("-m", "nlproar", "run", "--dataset", "babi-1", *RUN), "nlproar.run.cli"),
        (("-m", "nlproar", "run", "--dataset", "babi-1", *RUN), "numpy"),
        (("-m", "nlproar", "run", "--dataset", "babi-1", *RUN), "numpy._core._multiarray_umath"),
        (("-m", "nlproar", "run", "--dataset", "babi-1", *RUN), "torch"),
        pytest.param(
            ("-m", "nlproar", "run", "--dataset", "babi-1", *RUN), "pytorch_lightning", marks=pytest.mark.slow
        ),
        (("-m", "nlproar", "study", "--dataset", "babi-1", *STUDY), "nlproar.study.cli"),
        (("-m", "nlproar", "report"), "nlproar.report.cli"),
        (("-m", "nlproar", "report"), "pandas"),
        pytest.param(("-m", "nlproar", "report"), "matplotlib", marks=pytest.mark.slow),
        (("experiments/babi.py", *RUN), "nlproar.run.cli"),
        (("experiments/babi.py", *RUN), "numpy"),
        (("experiments/study.py", *STUDY), "numpy"),
        (("experiments/report.py",), "numpy"),
        (("experiments/synthetic.py",), "numpy"),
        (("experiments/download.py", "babi-1"), "numpy"),
        (("experiments/benchmark.py",), "nlproar.script"),
        (("batch_jobs/job.py",), "numpy"),
        (("batch_jobs/submit.py",), "numpy"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[2 if value[0] == "-m" else 0],
)
def test_ctrl_c_during_an_import_is_one_line(words, module, tmp_path):
    made_records.study(tmp_path / "p", seeds=[0], measures=["gradient"], step=50)
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPTED_IMPORT": module}
    environment["NLPROAR_PERSISTENT_DIR"] = str(tmp_path / "p")
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert not list((tmp_path / "p").rglob("*.tmp"))


def test_ctrl_c_during_an_import_is_quiet_where_nobody_listens(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPTED_IMPORT": "numpy"}
    command = ["bash", "-c", 'exec "$0" experiments/babi.py 2>&-', sys.executable]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_import_of_a_command_has_the_handler_and_its_work_has_not():
    with script.exit_codes("stopped"):
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with script.importing():
            assert signal.getsignal(signal.SIGINT) is interrupts._end
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_process_that_is_no_command_is_never_ended_by_an_import():
    """... as a notebook, which catches KeyboardInterrupt."""
    with script.importing():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "of the caller"])
def test_another_handler_stays(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        interrupts.end_at_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is handler
        interrupts.raise_at_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_sets_no_handler():
    thread = threading.Thread(target=interrupts.end_at_ctrl_c)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
