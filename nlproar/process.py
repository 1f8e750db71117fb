"""How a process uses the machine: its threads, its memory, and processes beside it."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

from nlproar.errors import UserError

log = logging.getLogger(__name__)

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # of mallopt(3), in glibc's malloc.h
_MIB = 1 << 20


def prepare(threads: int | None = None) -> None:
    """Reproducible products on a GPU; threads that share the processor; memory that is kept.

    Call it before torch is imported. `threads` is how many this process may use, see `use_threads`.
    """
    use_threads(threads)
    prepare_environment()
    keep_freed_memory(True)


def prepare_environment() -> None:
    """Set the variables that libraries read when torch is imported, where the user has not set them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # By default waiting threads spin, and two runs at once on the same cores take twenty times as long as one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_freed_memory(keep: bool) -> None:
    """Whether memory that is freed stays with the process, or goes back to the system as glibc does it by itself.

    glibc maps every block above 32 MiB anew and unmaps it when it is freed; the system then clears each page at its
    first touch, in every batch again. Keeping them takes a fifth to a third off the time of training and explaining
    on a CPU, and a few blocks more memory at the peak. Does nothing where the C library is another.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        {_TRIM_THRESHOLD: (1 << 31) - 1, _TOP_PAD: 64 * _MIB, _MMAP_MAX: 0}
        if keep
        else {_TRIM_THRESHOLD: 64 * _MIB, _TOP_PAD: 0, _MMAP_THRESHOLD: 32 * _MIB, _MMAP_MAX: 65536}
    )
    for parameter, value in settings.items():
        mallopt(parameter, value)


def use_threads(threads: int | None) -> None:
    """Let products and loops of this process use so many threads; None changes nothing.

    OpenMP reads its variable once, when torch is imported; from then on only torch itself can change the number.
    """
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def share_of_threads(jobs: int) -> int:
    """The threads of each of `jobs` processes: $OMP_NUM_THREADS where the user has set it, else its share of the
    cores."""
    set_by_user = leading_number("OMP_NUM_THREADS")
    if set_by_user:
        return set_by_user
    return max(1, available_cores() // jobs)


def available_cores() -> int:
    """Those this process may use, as limited by the system or by Slurm."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(here, leading_number("SLURM_CPUS_PER_TASK") or here)


def leading_number(variable: str) -> int | None:
    """The whole number, 1 or more, with which a variable of the environment begins: 2 of Slurm's "2(x3)", 4 of
    OpenMP's "4,2". None where it is not set, or, with a warning, where it says something else."""
    text = os.environ.get(variable, "").strip()
    found = re.match(r"[0-9]{1,6}(?![0-9])", text)
    if found and int(found[0]) > 0:
        return int(found[0])
    if text:
        log.warning("%s=%s is not a number of threads or cores, and is ignored", variable, text)
    return None


def physical_memory() -> int:
    """Of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_AHEAD = 4  # values for each process that are read before their results are asked for

_HELD = (signal.SIGINT, signal.SIGTERM)  # held back while a process starts


def in_processes(processes: int, function: Callable[[Any], Any], values: Iterable[Any]) -> Iterator[Any]:
    """Yield `function` of each of `values`, in order, computed by `processes` new processes side by side.

    Only a few values at a time are taken from their iterator, so they need not fit into memory together. Ctrl-C is for
    the caller, and however this ends, it leaves no process behind. Raises UserError if a process is killed.
    """
    spawn = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # now, as it lets the signals through that are held back below
    with ProcessPoolExecutor(processes, spawn, initializer=_begin) as pool:
        results: deque[Future[Any]] = deque()
        started: set[BaseProcess] = set()
        try:
            for value in values:
                results.append(_submit(pool, started, function, value))
                if len(results) > _AHEAD * processes:
                    yield results.popleft().result()
            while results:
                yield results.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a process was killed; it may have needed more memory than there is") from error
        except BaseException:
            for child in started:
                child.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _submit(
    pool: ProcessPoolExecutor, started: set[BaseProcess], function: Callable[[Any], Any], value: Any
) -> Future[Any]:
    """Let the pool compute `function` of `value`. It may start a process for that, which is added to `started`.

    That process inherits the held signals. So it never sees Ctrl-C, which a terminal sends to all processes, not even
    while it starts. SIGTERM would end this process without ending one that the pool does not know yet.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        others = multiprocessing.active_children()
        with _without_main_module():
            result = pool.submit(function, value)
        started.update(set(multiprocessing.active_children()).difference(others))
        return result
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_main_module() -> Iterator[None]:
    """While this lasts, a process that is started does not execute the script of this one.

    Otherwise it would do so to find functions that are defined there. A script that uses the Python interface without
    `if __name__ == "__main__"` would then do its work in each of these processes, and wait for this one for ever.
    """
    main = sys.modules["__main__"]
    names = vars(main)
    hidden: dict[str, Any] = {name: names[name] for name in ("__file__", "__spec__") if name in names}
    names.pop("__file__", None)
    names["__spec__"] = None
    try:
        yield
    finally:
        names.update(hidden)


def _begin() -> None:
    """Let a new process of a pool end at SIGTERM, and when the process that started it is no more."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)  # it may wait for work that nobody will send


_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


@contextmanager
def without_rank() -> Iterator[None]:
    """While this lasts, no variable of a cluster says that this process is one of several.

    Lightning and torchmetrics read these variables when they are imported, and stop at one that holds no number.
    """
    hidden = {name: os.environ.pop(name) for name in _RANKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
