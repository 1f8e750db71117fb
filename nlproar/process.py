"""How a process that trains or explains uses the machine. Call it before torch is imported."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # of mallopt(3), in glibc's malloc.h
_MIB = 1 << 20


def prepare() -> None:
    """Reproducible products on a GPU; threads that share the processor; memory that is kept."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # By default waiting threads spin, and two runs at once on the same cores take twenty times as long as one.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    keep_freed_memory(True)


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
