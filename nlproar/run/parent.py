"""A worker ends when the study that started it is no more, however that ended."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
import time

from nlproar.errors import UserError

PARENT = "NLPROAR_PARENT"  # in the environment of a worker: the process id of its study

_SECONDS = 1.0
_watched: list[int] = []  # the process id of the study, in a worker


def end_with_parent() -> None:
    """Watch the process that $NLPROAR_PARENT names, if it does, and end this one as by SIGTERM when it is gone.

    Raises UserError if the variable holds anything but a process id. It is taken out of the environment, as it is not
    meant for the processes that this one starts.
    """
    named = os.environ.pop(PARENT, None)
    if not named:
        return
    if not re.fullmatch(r"[0-9]{1,10}", named):
        raise UserError(
            f"{PARENT}={named!r} is not a process id; a study sets this variable for its workers, so unset it"
        )
    _watched.append(int(named))
    threading.Thread(target=_watch, args=(int(named),), daemon=True).start()


def has_parent() -> bool:
    """Return whether this process is the worker of a study."""
    return bool(_watched)


def _watch(parent: int) -> None:
    study = multiprocessing.parent_process()
    if study is not None and study.pid == parent:
        study.join()  # this process was forked from another one than the study
    else:
        while os.getppid() == parent:
            time.sleep(_SECONDS)
    print(f"error: the study that started this run (process {parent}, from {PARENT}) has ended", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
