"""Ctrl-C while a command imports its libraries.

Python raises KeyboardInterrupt in the middle of an import. It then shows a traceback of many lines, and some libraries
make another exception of it. So while a command only imports, Ctrl-C ends the process at once, with one line and exit
code 130. Nothing is written at that time, so nothing has to be put in order.

Every command calls `end_at_ctrl_c` first, so this module imports as little as possible.
"""

from __future__ import annotations

import os
import signal

_LINE = b"interrupted\n"


def end_at_ctrl_c() -> None:
    """Let Ctrl-C end this process with one line, until `raise_at_ctrl_c` is called.

    Does nothing where Ctrl-C is ignored or has a handler of the caller, and outside the main thread.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _handle_by(_end)


def raise_at_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, after `end_at_ctrl_c`."""
    if signal.getsignal(signal.SIGINT) is _end:
        _handle_by(signal.default_int_handler)


def _handle_by(handler: signal._HANDLER) -> None:
    try:
        signal.signal(signal.SIGINT, handler)
    except ValueError:  # only the main thread may set a handler, and only there an import can be interrupted
        return


def _end(number: int, frame: object) -> None:
    """End without cleaning up: what an import has begun may not be in a state in which Python can be shut down."""
    try:
        os.write(2, _LINE)
    except OSError:  # stderr is closed, or its reader has left
        os._exit(128 + number)
    os._exit(128 + number)
