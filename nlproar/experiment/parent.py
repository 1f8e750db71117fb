"""A worker ends when the study that started it is no more, however that ended."""

from __future__ import annotations

import os
import signal
import threading
import time

PARENT = "NLPROAR_PARENT"  # in the environment of a worker: the process id of its study

_SECONDS = 1.0


def end_with_parent() -> None:
    """Watch the process that $NLPROAR_PARENT names, if it does, and end this one as by SIGTERM when it is gone."""
    parent = os.environ.get(PARENT)
    if parent:
        threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
