"""Files that are never half written, locks between processes, and a cache of arrays.

A file is written under a temporary name and then renamed, so a process that is killed leaves either the old file or the
new one. A lock ends with the process that holds it. Cached arrays are stored with the key under which they were made.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import io
import json
import logging
import os
import secrets
import stat
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from nlproar.errors import UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

_BLOCK = 1 << 20  # bytes that are read at a time

_FIRST_POLL = 0.05  # seconds between the first two attempts to get a lock
_LONGEST_POLL = 0.5  # seconds between two later attempts
_SECONDS_BETWEEN_REMINDERS = 300  # while a process waits for a lock

# The errors of flock on a file system that has no locks.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class NotAFile(UserError):
    """In the place of a file there is something else, for example a folder or a named pipe."""


def is_there(path: Path) -> bool:
    """Return whether there is anything at `path`.

    A symbolic link counts even if it leads nowhere or to itself, because such a link is damage that must be reported.
    Raises OSError, which names the file, if the folder cannot be searched, as the answer is then unknown.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


# Writing


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends, and is removed if the block raises.

    The reader of `path` therefore finds the whole new file or what was there before, even if this process is killed.
    With `durable` this also holds if the machine loses power. Use `durable=False` only for files whose readers detect
    damage and can make the file again, such as a cache: this is faster.

    The temporary file has a random name and must not exist, so that a symbolic link that somebody has placed there is
    never followed. It is locked while it is written. A temporary file that is not locked was left by a process that was
    killed, and the next writer of `path` removes it. If `path` is a symbolic link, the link is replaced, and the file
    that it points to does not change.

    Every OSError names `path`, also where the system names no file, as for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    with _naming(path):
        temporary, lock_descriptor = _new_temporary(path)
    try:
        with _naming(path, instead_of=temporary):
            # Closing the file must not end the lock before the file has its name. The copy of the descriptor shares
            # the lock, which ends when both are closed.
            raw = _Raw(os.dup(lock_descriptor), "wb")
            with raw.failure_first(), io.BufferedWriter(raw) as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        # If the disk fails, removing the file may fail, too. The first error is the one to report, and the next writer
        # removes the file.
        with suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(lock_descriptor)


class _Raw(io.FileIO):
    """A file that remembers the error of a failed write.

    A library that writes to it, such as zipfile, may react to the failure by an error of its own, which does not say
    that the disk is full.
    """

    failure: OSError | None = None

    def write(self, content: ReadableBuffer) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failure = error
            raise

    @contextmanager
    def failure_first(self) -> Iterator[None]:
        """Raise the error of the failed write, if there was one, instead of a later error in the block."""
        try:
            yield
        except Exception as error:
            if self.failure is None or error is self.failure:
                raise
            raise self.failure from error


def _new_temporary(path: Path) -> tuple[Path, int]:
    """Create and lock a temporary file beside `path`. Return its path and its descriptor, which holds the lock."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        descriptor = os.open(temporary, flags, 0o666)
        try:
            # Before the file is locked, another process may take it for a leftover: it may hold the lock, or have
            # removed the file. Then a new file is needed.
            if _flock(descriptor, temporary) and _is_at(descriptor, temporary):
                return temporary, descriptor
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                temporary.unlink()
            raise
        os.close(descriptor)


def sweep(folder: Path, name: str = "") -> None:
    """Remove the temporary files in `folder` that killed processes left of files whose name starts with `name`.

    A file that is being written is locked by its process and stays. So does a file that this process may not remove.
    """
    leftovers = list(folder.glob(f".{glob.escape(name)}*.tmp"))
    for leftover in leftovers:
        with suppress(OSError):  # it is locked, already gone, or belongs to another user
            _remove_unless_locked(leftover)


def _remove_unless_locked(leftover: Path) -> None:
    """Remove a temporary file. Raises OSError if a process has locked it, or if it cannot be removed."""
    mode = leftover.lstat().st_mode
    if stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):  # a link or a pipe, which no writer makes
        leftover.unlink()
        return
    descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leftover.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def _naming(path: Path, instead_of: Path | None = None) -> Iterator[None]:
    """Let an OSError in the block name `path`, if it names no file or the file `instead_of`."""
    try:
        yield
    except OSError as error:
        # Libraries raise OSError without an errno for other reasons, such as damage.
        names_no_file = error.errno is not None and error.filename is None
        names_other = instead_of is not None and error.filename == str(instead_of)
        if names_no_file or names_other:
            error.filename = str(path)
            if error.filename2 is not None:
                del error.filename2
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` as JSON, see `whole_file`."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with whole_file(path) as file:
        file.write(text.encode())


@contextmanager
def owner_only(confidential: bool) -> Iterator[None]:
    """If `confidential`, let only the owner read and write the files and folders that are made in the block."""
    if not confidential:
        yield
        return
    earlier = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(earlier)


# Reading


def open_file(path: Path) -> IO[bytes]:
    """Open `path` for reading. Raises NotAFile if it is not a regular file."""
    # Without O_NONBLOCK, opening a named pipe would wait for somebody who writes to it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotAFile(_wrong_kind(path, os.stat(path).st_mode)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotAFile(_wrong_kind(path, mode))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path) -> bytes:
    """Return the content of `path`. Raises what `open_file` does; an OSError names `path`."""
    with _naming(path), open_file(path) as file:
        return file.read()


def open_log(path: Path) -> IO[bytes]:
    """Open or create `path` for appending. Raises NotAFile if it is not a regular file, or a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open_no_link(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return os.fdopen(descriptor, "ab")


def _open_no_link(path: Path, flags: int) -> int:
    """Open or create `path`, and return its descriptor. Raises NotAFile if it is no regular file, or a link."""
    all_flags = flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, all_flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise NotAFile(_wrong_kind(path, os.lstat(path).st_mode)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotAFile(_wrong_kind(path, mode))
    return descriptor


def _wrong_kind(path: Path, mode: int) -> str:
    """Return the message that `path`, which has this mode, is no file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return f"{path} is {kind} where a file belongs; move it away"


# Locks


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the exclusive lock of `path` during the block, so that no other process makes the same file.

    If another process holds the lock, this one waits for it. The other process may run on another machine that shares
    the file system. The system releases the lock when the process ends, however it ends.

    Raises UserError on a file system without locks. The mere existence of a lock file is no substitute: the file would
    remain when its process is killed, and all others would wait for ever. The locks are those of flock(2), which only
    POSIX systems have.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of `path` if no other process holds it. Yields whether the lock is held, and never waits."""
    descriptor = _try_to_acquire(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """Wait for the lock of `path`, and return the descriptor that holds it. Log once, and then every five minutes."""
    started = time.monotonic()
    last_reminder = started
    pause = _FIRST_POLL
    has_said_so = False
    while True:
        descriptor = _try_to_acquire(path)
        if descriptor is not None:
            return descriptor
        now = time.monotonic()
        if not has_said_so:
            log.info("waiting for another process that is making %s", path)
            has_said_so = True
        elif now - last_reminder > _SECONDS_BETWEEN_REMINDERS:
            minutes = (now - started) / 60
            message = "still waiting, for %.0f min, for another process that is making %s"
            log.info(message, minutes, path)
            last_reminder = now
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


def _try_to_acquire(path: Path) -> int | None:
    """Return a descriptor that holds the lock of `path`; None if another process holds the lock."""
    lock_file = path.with_name(f".{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _open_no_link(lock_file, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        if not lock_file.exists():
            raise
        # In a folder that users share, the lock file may belong to another user. A process that can only read it can
        # still lock it.
        descriptor = _open_no_link(lock_file, os.O_RDONLY)
    try:
        # If somebody has removed the lock file after it was opened, other processes lock a new one instead.
        if _flock(descriptor, lock_file) and _is_at(descriptor, lock_file):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flock(descriptor: int, path: Path) -> bool:
    """Lock the file `path`, which is open as `descriptor`. Return False if another process has locked it.

    Raises UserError if the file system has no locks, or if it fails.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except InterruptedError:  # by a signal
        return _flock(descriptor, path)
    except OSError as error:
        folder = path.parent
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"{folder}: this file system has no locks (flock: {error.strerror}), without which"
                " processes spoil each other's files; choose a --persistent-dir on one that has (on"
                " Lustre, the mount option flock)"
            ) from error
        raise UserError(
            f"{path} cannot be locked ({error.strerror}); check the file system of {folder}, or"
            " choose another --persistent-dir"
        ) from error
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether the file that is open as `descriptor` is still the one at `path`."""
    try:
        with _naming(path):
            status_now = os.stat(path, follow_symlinks=False)
            return os.path.samestat(os.fstat(descriptor), status_now)
    except FileNotFoundError:
        return False


# Names by content


def digest(content: Any) -> str:
    """Return the SHA-256 of a value that JSON can hold, as 64 hexadecimal digits. The order of keys does not matter."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """Return the SHA-256 of the content of a file. See `fingerprints` for large files that seldom change."""
    state = hashlib.sha256()
    with _naming(path), open_file(path) as file:
        block = file.read(_BLOCK)
        while block:
            state.update(block)
            block = file.read(_BLOCK)
    return state.hexdigest()


# Cached arrays


def cached(path: Path, key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """Return the arrays that are stored in `path` under `key`, or those that `make` returns, which are then stored.

    A file that is damaged, or was made under another key, is replaced, with a warning that names it. If several
    processes need the same file, one of them makes it while the others wait.
    """
    arrays = _read(path, key)
    if arrays is not None:
        return arrays
    with lock(path):
        # Another process may have made the file while this one waited for the lock.
        arrays = _read(path, key)
        if arrays is None:
            arrays = make()
            write_arrays(path, key, arrays)
    return arrays


def write_arrays(path: Path, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to `path` with the `key` under which they were made; `stored` reads both.

    Nothing is compressed. The caller holds `lock(path)`, or another lock that makes it the only writer. No array may be
    named "file" or "key".
    """
    with whole_file(path, durable=False) as file:
        np.savez(file, allow_pickle=False, **arrays, key=_as_bytes(key))


def _as_bytes(key: Mapping[str, Any]) -> np.ndarray:
    """Return a key as JSON, in an array of bytes."""
    text = json.dumps(key, sort_keys=True)
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _read(path: Path, key: Mapping[str, Any]) -> Arrays | None:
    """Return the arrays in `path`; None, with a warning if need be, if they are not there or have another key."""
    found = stored(path)
    if found is None:
        return None
    arrays, stored_key = found
    # Keys are compared as JSON, since a tuple is read again as a list.
    if np.array_equal(_as_bytes(stored_key), _as_bytes(key)):
        return arrays
    log.warning("%s was made for something else; making it again", path)
    return None


def stored(
    path: Path,
    names: Collection[str] | None = None,
) -> tuple[Arrays, dict[str, Any]] | None:
    """Return the arrays in a file that `cached` wrote, and the key under which they were made.

    With `names` only these arrays are read. Return None if there is no such file or, with a warning, if it is damaged.
    Raises OSError, which names the file, if the system refuses to read it, and NotAFile if there is a folder in its
    place, as no new file could replace it.
    """
    file = _open_if_there(path)
    if file is None:
        return None
    with file, _naming(path):
        try:
            return _arrays_and_key(file, names)
        except Exception as error:
            # Libraries raise many kinds of errors for a damaged file, which is then treated as absent. EINVAL is among
            # them: a damaged archive may name a position before the first byte. Other errors of the system are real.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            log.warning("%s is damaged (%s); it is ignored", path, error)
            return None


def _open_if_there(path: Path) -> IO[bytes] | None:
    """Open `path` for reading. Return None if there is no such file.

    Return None, with a warning, also for a link that leads nowhere, a named pipe and other things that a new file
    replaces.
    """
    try:
        return open_file(path)
    except FileNotFoundError:
        if path.is_symlink():
            log.warning("%s is a link to a file that is not there; it is ignored", path)
    except NotAFile as error:
        if path.is_dir() and not path.is_symlink():
            raise
        log.warning("%s; it is ignored", error)
    except OSError as error:
        if error.errno != errno.ELOOP or not path.is_symlink():
            raise
        log.warning("%s is a link to itself; it is ignored", path)
    return None


def _arrays_and_key(
    file: IO[bytes],
    names: Collection[str] | None,
) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays in an open file and their key. Raises ValueError, or other errors of libraries, for damage."""
    # numpy does not verify the checksum of every array that it reads.
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as content:
        wanted = content.files if names is None else names
        arrays = {name: content[name] for name in wanted if name != "key"}
        key = json.loads(content["key"].tobytes())
        return arrays, dict(key)
