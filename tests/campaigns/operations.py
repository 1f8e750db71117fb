"""Count the file operations of this process below one folder, and end the process at one of them.

An operation is whatever changes the folder or waits for a lock in it: opening a file to write, each write, fsync,
rename, link, unlink, mkdir, rmdir, truncate, chmod, utime, flock. Functions of `os`, `io.open` and `fcntl` are replaced
by ones that count; an audit hook counts what reaches the system by another way.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

# name in `os` -> how many of its first arguments are paths or descriptors
_IN_OS = {
    "replace": 2, "rename": 2, "link": 2, "symlink": 2, "unlink": 1, "remove": 1, "mkdir": 1, "rmdir": 1,
    "truncate": 1, "ftruncate": 1, "fsync": 1, "fdatasync": 1, "chmod": 1, "fchmod": 1, "utime": 1,
}  # fmt: skip
_IN_FCNTL = ("flock", "lockf")
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_AUDITED = {
    "os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.mkdir": 1, "os.rmdir": 1, "os.truncate": 1,
    "os.chmod": 1, "os.utime": 1, "fcntl.flock": 1, "fcntl.lockf": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Stop:
    """Where a process is killed: at which operation, counted from 1, and "before" it, "half" through it (a write of
    which half of the bytes are in the file), or "after" it."""

    number: int
    moment: str


class Watch:
    """Counts operations below `root`, from the moment it is made until the process ends.

    Each operation becomes a line "number kind path" of the file `listing`, if there is one. The process kills itself
    with SIGKILL at `stop`.
    """

    def __init__(self, root: Path, stop: Stop | None = None, listing: Path | None = None) -> None:
        self.root = str(root.resolve())
        self.stop = stop
        self.number = 0
        self.written: set[str] = set()
        self.inside = False  # an operation is under way, whose audit events are its own
        self.real_open = io.open
        self.real_write = os.write
        self.listing = None
        if listing:
            self.listing = os.open(listing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for name, paths in _IN_OS.items():
            setattr(os, name, self._counted(name, getattr(os, name), paths))
        for name in _IN_FCNTL:
            setattr(fcntl, name, self._counted(name, getattr(fcntl, name), 1))
        self._replace_os_open()
        self._replace_os_write()
        for kind in io.FileIO.__subclasses__():
            self._replace_write_of(kind)
        io.open = builtins.open = self._open
        sys.addaudithook(self._audit)

    def begin(self, kind: str, path: str) -> int:
        """Count one operation; returns its number. Does not return if the process is to end before it."""
        self.number += 1
        if self.listing is not None:
            self.real_write(self.listing, f"{self.number} {kind} {os.path.relpath(path, self.root)}\n".encode())
        self.die_if(self.number, "before")
        return self.number

    def off(self) -> None:
        """Count on, but list nothing and never end: for a process that was forked from the one that is watched."""
        self.stop = self.listing = None

    def die_if(self, number: int, moment: str) -> None:
        if self.stop == Stop(number, moment):
            die()

    def below(self, place: Any, folder: int | None = None) -> str | None:
        """The absolute path of `place`, a path or a descriptor, if it lies in the folder that is watched."""
        if isinstance(place, int):
            path = _of_descriptor(place)
        elif isinstance(place, (str, bytes, os.PathLike)):
            path = os.fsdecode(place)
            if folder is not None:
                path = os.path.join(_of_descriptor(folder), path)
            path = os.path.abspath(path)
        elif hasattr(place, "fileno"):
            path = _of_descriptor(place.fileno())
        else:
            return None
        inside = path == self.root or path.startswith(self.root + os.sep)
        return path if inside else None

    def perform(self, kind: str, path: str, operation: Callable[[], Any]) -> Any:
        """Carry out one operation, counted."""
        if kind in ("replace", "rename"):
            self._check_that_writes_are_seen(path)
        number = self.begin(kind, path)
        outer, self.inside = self.inside, True
        try:
            return operation()
        finally:  # also where the system refuses the operation, as it does for a folder that is there
            self.inside = outer
            self.die_if(number, "after")

    def _check_that_writes_are_seen(self, path: str) -> None:
        """A file that is given its name was written by this process, so its writes must have been counted."""
        if os.path.isfile(path) and os.path.getsize(path) > 0 and path not in self.written:
            raise RuntimeError(f"{path} was written in a way that the campaign does not see; teach it to operations.py")

    def _counted(self, kind: str, real: Callable[..., Any], paths: int) -> Callable[..., Any]:
        def function(*arguments: Any, **named: Any) -> Any:
            folder = named.get("dir_fd", named.get("dst_dir_fd"))
            for place in arguments[:paths]:
                path = self.below(place, folder)
                if path and not self.inside:
                    return self.perform(kind, path, lambda: real(*arguments, **named))
            return real(*arguments, **named)

        return function

    def _replace_os_open(self) -> None:
        real = os.open

        def function(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            inside = self.below(path, named.get("dir_fd"))
            if inside and flags & _WRITING_FLAGS and not self.inside:
                descriptor: int = self.perform("open", inside, lambda: real(path, flags, *arguments, **named))
                return descriptor
            return real(path, flags, *arguments, **named)

        os.open = function

    def _replace_os_write(self) -> None:
        def function(descriptor: int, data: Any) -> int:
            return self._write(descriptor, data, partial(self.real_write, descriptor))

        os.write = function

    def _replace_write_of(self, kind: type[io.FileIO]) -> None:
        """Count the writes of a class of files; buffers and zip files write through it."""
        real = kind.write

        def function(file: io.FileIO, data: Any) -> int:
            return self._write(file.fileno(), data, partial(real, file))

        kind.write = function  # type: ignore[method-assign, assignment]

    def _write(self, descriptor: int, data: Any, real: Callable[[Any], int]) -> int:
        path = self.below(descriptor)
        if path is None or self.inside:
            return real(data)
        number = self.begin("write", path)
        self.written.add(path)
        if self.stop == Stop(number, "half"):
            content = memoryview(data).cast("B")
            real(content[: len(content) // 2])
            die()
        written = real(data)
        self.die_if(number, "after")
        return written

    def _open(
        self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None,
    ) -> Any:  # fmt: skip
        """As `open`; a file that is written below the folder is one whose writes are counted."""
        path = self.below(file) if set(mode) & set("wax+") else None
        if path is None:
            return self.real_open(file, mode, buffering, encoding, errors, newline, closefd, opener)

        def make() -> _PlainFile:
            return _PlainFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)

        raw = make() if isinstance(file, int) else self.perform("open", path, make)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffer
        return io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """What changes the folder without one of the functions above: it has a moment before, and none after."""
        if self.inside or event not in _AUDITED:
            return
        for place in arguments[: _AUDITED[event]]:
            path = self.below(place)
            if path:
                self.begin(event, path)
                return


class _PlainFile(io.FileIO):
    """What `open` makes for a file that is written below the folder."""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the signal may take a moment
        signal.pause()


def _of_descriptor(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""
