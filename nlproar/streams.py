"""Standard output and standard error that never end a run, whether closed, full, or left by their reader."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

from nlproar.errors import UserError


class _Output(io.FileIO):
    """A file descriptor that is written to as long as it takes anything. The first failure stays in `problem`, and
    what is written after it goes nowhere."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.problem: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Pretend that all of `data` was written where nothing can be."""
        while self.problem is None:
            try:
                return os.write(self.fileno(), data)
            except BlockingIOError:
                # The other end has set the pipe to non-blocking, and reads more slowly than this writes.
                select.select([], [self.fileno()], [])
            except OSError as error:
                self.problem = error
        return len(memoryview(data).cast("B"))


def prepare_streams() -> None:
    """Make stdout and stderr safe to write to. Every script calls this first; calling it again changes nothing.

    A character that the encoding of the terminal lacks is written as a backslash sequence. A stream that cannot be
    written to (closed, on a full disk, a pipe whose reader has left) swallows what it is given: a run goes on to its
    record. Streams that somebody has put in place of those of the process, as a test does, are left alone.
    """
    _fill_closed_descriptors()
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _steady(sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _steady(sys.stderr, 2)


def _fill_closed_descriptors() -> None:
    """Open the null device in place of each closed standard stream: the next file that is opened would take its
    number, and what libraries and other processes print would end up in that file."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)


def _steady(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # it was closed when Python started; the number may belong to another file by now
        return io.TextIOWrapper(io.BufferedWriter(io.FileIO(os.devnull, "w")), "utf-8", "backslashreplace")
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Output(stream.fileno())),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=descriptor == 2 or stream.isatty(),
        write_through=getattr(stream, "write_through", False),
    )


def lost_output() -> str | None:
    """Why something that was printed on stdout is lost, None where nothing is.

    A reader that has left (`| head -1`) has seen all it wanted: that is no loss.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    problem = raw.problem if isinstance(raw, _Output) else None
    if problem is None or problem.errno == errno.EPIPE:
        return None
    return str(problem.strerror)


def require_output() -> None:
    """For a command whose result is what it prints: raises UserError if that is lost."""
    problem = lost_output()
    if problem:
        raise UserError(f"standard output cannot be written: {problem}; what was printed is not complete")
