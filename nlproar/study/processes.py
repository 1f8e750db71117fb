"""Processes of workers, which begin in milliseconds where the system allows that. Imports no torch.

Importing torch and pytorch_lightning takes seconds, which is more than many runs train. On Linux one process therefore
imports them once for a study, and each worker is forked from it: the fork server of Python's `multiprocessing`. It
computes nothing itself, so a worker begins as a new interpreter would. Elsewhere, and where there is a GPU, each worker
is a new interpreter: the driver of a GPU must not be started before a fork.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

from nlproar import process, storage
from nlproar.run.parent import PARENT

_GPUS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # is there one of NVIDIA, of AMD, or of Windows below Linux?

_HELD = (signal.SIGINT, signal.SIGTERM)  # held back while a worker begins, and only then


class WorkerProcess(Protocol):
    """What a study asks of the process of a worker; `subprocess.Popen` has all of it."""

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def returncode(self) -> int | None:
        """The exit code, the number of a signal with a minus, or None while it runs."""

    def poll(self) -> int | None:
        """Look whether it has ended, and return `returncode`."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired after `timeout` seconds."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class _Forked:
    """A worker that the fork server has forked."""

    def __init__(self, forked: ForkServerProcess) -> None:
        self._process = forked
        self.pid = forked.pid or 0

    @property
    def returncode(self) -> int | None:
        """See `WorkerProcess.returncode`."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See `WorkerProcess.poll`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """See `WorkerProcess.wait`."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0)
        return code

    def terminate(self) -> None:
        """See `WorkerProcess.terminate`."""
        self._process.terminate()

    def kill(self) -> None:
        """See `WorkerProcess.kill`."""
        self._process.kill()


def start(arguments: Sequence[str], log: Path, confidential: bool, threads: int) -> WorkerProcess:
    """Start a script or module with its flags, `arguments`, with so many threads. What it prints is appended to `log`,
    which only the owner may read if it is `confidential`.

    It has a session of its own: Ctrl-C reaches the study only, which then stops its workers. It ends when the study is
    no more, see `nlproar.run.parent`.
    """
    if _can_fork():
        forked = _fork(arguments, log, confidential, threads)
        if forked is not None:
            return forked
    with storage.owner_only(confidential), storage.open_log(log) as file:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **_environment(threads)},
            start_new_session=True,
        )


def _can_fork() -> bool:
    return sys.platform == "linux" and not any(os.path.exists(gpu) for gpu in _GPUS)


def _environment(threads: int) -> dict[str, str]:
    """Return what a worker finds in its environment besides that of the study."""
    return {
        PARENT: str(os.getpid()),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONSAFEPATH": "1",  # a file numpy.py in the current folder is not the library
    }


def _fork(arguments: Sequence[str], log: Path, confidential: bool, threads: int) -> WorkerProcess | None:
    """Return a worker that is forked; None if somebody, such as a system without memory, has ended the fork server."""
    with storage.owner_only(confidential), storage.open_log(log):
        pass  # a log that cannot be written is an error of the study, which is said where the user sees it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nlproar.study.preloaded"])
    environment = {**os.environ, **_environment(threads)}
    script_folder = None if sys.flags.safe_path else sys.path[0]
    forked = context.Process(target=_become, args=(list(arguments), str(log), os.getcwd(), environment, script_folder))
    resource_tracker.ensure_running()  # now, as it lets the signals through that are held back below
    # A Ctrl-C of the terminal reaches the fork server, too. While it imports, and a worker has no log, that would be a
    # traceback on the screen. The fork server inherits which signals are held back, and a worker lets them through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        with _environment_of_fork_server(threads):
            forked.start()
    except (EOFError, ConnectionError):  # the next worker that is forked starts the fork server anew
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _Forked(forked)


@contextmanager
def _environment_of_fork_server(threads: int) -> Iterator[None]:
    """Set what the fork server, a new interpreter, finds in its environment; that of the study is as before after it.

    The variable that names the study is not among it: the study would take itself for a worker.
    """
    before = dict(os.environ)
    os.environ.update(_environment(threads))
    del os.environ[PARENT]
    process.prepare_environment()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _become(
    arguments: list[str], log: str, folder: str, environment: dict[str, str], script_folder: str | None
) -> None:
    """Go on as the process of a script, in a process that was just forked.

    `script_folder` is the place that Python put before all others when it started the study, if it did.
    """
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    process.use_threads(int(environment["OMP_NUM_THREADS"]))  # an earlier study may have started the fork server
    with storage.open_log(Path(log)) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
    if script_folder in ("", folder):
        # As PYTHONSAFEPATH says. The folder may stand there once more, where the package is installed from it.
        del sys.path[0]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
