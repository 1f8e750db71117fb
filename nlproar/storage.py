"""Files that are whole or absent, locks that die with their owner, and arrays cached under a key."""

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

_BLOCK = 1 << 20  # bytes
_FIRST_POLL, _LONGEST_POLL = 0.05, 0.5  # seconds between two attempts to get a lock
_SECONDS_BETWEEN_REMINDERS = 300  # while a lock is waited for
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # what flock says without locks


class NotAFile(UserError):
    """Something of another kind, as a folder or a named pipe, is in the place of a file."""


def is_there(path: Path) -> bool:
    """Whether anything is at `path`, also a link that leads nowhere or to itself: that is damage, not absence.

    Raises OSError, naming the file, where the folder may not be looked into: nobody knows what is there then.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


# Writing


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write `path` so that it holds everything or does not change: temporary name, flush, rename.

    Without `durable` that holds for a process that ends at any moment, not for a machine that loses power: for files
    whose reader verifies them and can make them again.

    The temporary file is new and has a random name, so that no link that somebody planted is followed. While it is
    written it is locked; one that is not locked was left by a killed process, and the next writer of `path` removes
    it. Where `path` is a symbolic link, the link is replaced and what it points to does not change.

    An OSError names `path`, also where the system does not say which file it is about (a full disk).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    with _naming(path):
        temporary, held = _new_temporary(path)
    try:
        with _naming(path, instead_of=temporary):
            raw = _Raw(os.dup(held), "wb")  # `held` keeps the lock until the file has its name
            with raw.failure_first(), io.BufferedWriter(raw) as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):  # of a disk that fails; the next writer removes the file, and the first error counts
            temporary.unlink()
        raise
    finally:
        os.close(held)


class _Raw(io.FileIO):
    """A file that remembers that it could not be written: a library may stumble over that and raise something else."""

    failure: OSError | None = None

    def write(self, content: ReadableBuffer) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.failure = error
            raise

    @contextmanager
    def failure_first(self) -> Iterator[None]:
        """Raise the failure to write, where there was one, instead of what came of it."""
        try:
            yield
        except Exception as error:
            if self.failure is None or error is self.failure:
                raise
            raise self.failure from error


def _new_temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, locked, and its descriptor."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            # Another process may just have taken the file for a leftover, as it was not locked yet.
            if _flock(descriptor, temporary) and _is_at(descriptor, temporary):
                return temporary, descriptor
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                temporary.unlink()
            raise
        os.close(descriptor)


def sweep(folder: Path, name: str = "") -> None:
    """Remove from `folder` what killed processes left while they wrote a file whose name starts with `name`.

    A file that is being written is locked by its process and stays. So does what this process may not remove.
    """
    for leftover in list(folder.glob(f".{glob.escape(name)}*.tmp")):
        with suppress(OSError):  # it is locked, already gone, or not ours
            _remove_unless_locked(leftover)


def _remove_unless_locked(leftover: Path) -> None:
    mode = leftover.lstat().st_mode
    if stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):  # a link or a pipe: no process of ours writes to it
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
    """Let an OSError that names no file, or the file `instead_of`, name `path`."""
    try:
        yield
    except OSError as error:
        nameless = error.errno is not None and error.filename is None
        if nameless or (instead_of is not None and error.filename == str(instead_of)):
            error.filename = str(path)
            if error.filename2 is not None:
                del error.filename2
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to `path` as JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")


@contextmanager
def owner_only(confidential: bool) -> Iterator[None]:
    """While this lasts, files and folders that are made are for their owner only, if they are `confidential`."""
    before = os.umask(0o077) if confidential else None
    try:
        yield
    finally:
        if before is not None:
            os.umask(before)


# Reading


def open_file(path: Path) -> IO[bytes]:
    """Open `path` for reading. Raises NotAFile where it is of another kind; a named pipe would be waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
    """The content of `path`; raises as `open_file` does. An OSError names `path`."""
    with _naming(path), open_file(path) as file:
        return file.read()


def open_log(path: Path) -> IO[bytes]:
    """Open `path` for appending, and make it if need be. Raises NotAFile where it is of another kind or a link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    return os.fdopen(_open_no_link(path, flags), "ab")


def _open_no_link(path: Path, flags: int) -> int:
    """Descriptor of a file that may be new. Raises NotAFile where `path` is of another kind or a link."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise NotAFile(_wrong_kind(path, os.lstat(path).st_mode)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotAFile(_wrong_kind(path, mode))
    return descriptor


def _wrong_kind(path: Path, mode: int) -> str:
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFLNK: "a symbolic link",
    }
    return f"{path} is {names.get(stat.S_IFMT(mode), 'a device')} where a file belongs; move it away"


# Locks


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the exclusive right to make `path`. The system releases it when the process ends, however it ends.

    Another process that holds it is waited for, on this machine or on another one that shares the file system. Raises
    UserError where the file system has no locks: a lock file that only exists would outlive its process, and everybody
    would wait for ever. Locks are those of flock(2), so this is for POSIX systems.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """`lock`, without waiting: yields whether the right is held."""
    descriptor = _try_to_acquire(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _acquire(path: Path) -> int:
    """The descriptor of the lock file of `path`, locked."""
    started = last_reminder = time.monotonic()
    pause, said = _FIRST_POLL, False
    while True:
        descriptor = _try_to_acquire(path)
        if descriptor is not None:
            return descriptor
        now = time.monotonic()
        if not said:
            log.info("waiting for another process that is making %s", path)
            said = True
        elif now - last_reminder > _SECONDS_BETWEEN_REMINDERS:
            log.info("still waiting, for %.0f min, for another process that is making %s", (now - started) / 60, path)
            last_reminder = now
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_POLL)


def _try_to_acquire(path: Path) -> int | None:
    """The descriptor of the lock file of `path`, locked; None if another process holds it."""
    lock_file = path.with_name(f".{path.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = _open_no_link(lock_file, os.O_RDWR | os.O_CREAT)
    except PermissionError:
        if not lock_file.exists():
            raise
        # In a folder that users share, the file may be another user's. To lock it, one need not write it.
        descriptor = _open_no_link(lock_file, os.O_RDONLY)
    try:
        # The file may be another one by now, if somebody removed it: then there is nothing to hold.
        if _flock(descriptor, lock_file) and _is_at(descriptor, lock_file):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flock(descriptor: int, path: Path) -> bool:
    """Lock `descriptor`, which is open at `path`; False if another process holds it. Raises UserError, naming the
    folder, where the file system has no locks or fails."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except InterruptedError:  # by a signal
        return _flock(descriptor, path)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"{path.parent}: this file system has no locks (flock: {error.strerror}), without which processes spoil"
                " each other's files; choose a --persistent-dir on one that has (on Lustre, the mount option flock)"
            ) from error
        raise UserError(
            f"{path} cannot be locked ({error.strerror}); check the file system of {path.parent}, or choose another"
            " --persistent-dir"
        ) from error
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the file that is open is still the one at `path`."""
    try:
        with _naming(path):
            return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


# Names by content


def digest(content: Any) -> str:
    """Hash of anything JSON can hold, independent of the order of its keys: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of what is in the file now. See `fingerprints` for large files that change seldom."""
    state = hashlib.sha256()
    with _naming(path), open_file(path) as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


# Cached arrays


def cached(path: Path, key: Mapping[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """The arrays stored in `path` under `key`, made by `make` if they are not there.

    A file that is damaged, or that was made under another key, is named in a warning and made again. Of
    several processes that need the same file one makes it, the others wait.
    """
    arrays = _read(path, key)
    if arrays is not None:
        return arrays
    with lock(path):
        arrays = _read(path, key)
        if arrays is None:
            arrays = make()
            write_arrays(path, key, arrays)
    return arrays


def write_arrays(path: Path, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to `path`, whole or not at all, with the `key` under which they were made; `stored` reads them.

    Nothing is compressed. The caller holds `lock(path)`, or a lock that implies it. No array may be named "file" or
    "key".
    """
    with whole_file(path, durable=False) as file:
        np.savez(file, allow_pickle=False, **arrays, key=_as_bytes(key))


def _as_bytes(key: Mapping[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(key, sort_keys=True).encode(), dtype=np.uint8)


def _read(path: Path, key: Mapping[str, Any]) -> Arrays | None:
    found = stored(path)
    if found is None:
        return None
    arrays, made_for = found
    if np.array_equal(_as_bytes(made_for), _as_bytes(key)):
        return arrays
    log.warning("%s was made for something else; making it again", path)
    return None


def stored(path: Path, names: Collection[str] | None = None) -> tuple[Arrays, dict[str, Any]] | None:
    """The arrays (only those of `names`, if given) in a file that `cached` wrote, and the key they were made under.

    None where there is no such file, or, with a warning, where it is damaged. Raises OSError, naming the file, where
    the machine refuses to read it, and NotAFile for a folder in its place, which no file can replace.
    """
    file = _open_if_there(path)
    if file is None:
        return None
    with file, _naming(path):
        try:
            return _arrays_and_key(file, names)
        except Exception as error:  # damage takes many forms, and to every one the file is as good as absent
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a place before byte 0
                raise
            log.warning("%s is damaged (%s); doing without it", path, error)
            return None


def _open_if_there(path: Path) -> IO[bytes] | None:
    """`path` for reading; None where there is no such file or, with a warning, what a new file can replace."""
    try:
        return open_file(path)
    except FileNotFoundError:
        if path.is_symlink():
            log.warning("%s is a link to a file that is not there; doing without it", path)
    except NotAFile as error:
        if path.is_dir() and not path.is_symlink():
            raise
        log.warning("%s; doing without it", error)
    except OSError as error:
        if error.errno != errno.ELOOP or not path.is_symlink():
            raise
        log.warning("%s is a link to itself; doing without it", path)
    return None


def _arrays_and_key(file: IO[bytes], names: Collection[str] | None) -> tuple[Arrays, dict[str, Any]]:
    with zipfile.ZipFile(file) as archive:  # numpy alone does not look at every checksum
        if bad := archive.testzip():
            raise ValueError(f"wrong checksum of {bad}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as content:
        wanted = content.files if names is None else names
        arrays = {name: content[name] for name in wanted if name != "key"}
        return arrays, dict(json.loads(content["key"].tobytes()))
