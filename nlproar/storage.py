"""Files that are whole or absent, locks that die with their owner, and arrays cached under a key."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

_SAMPLE = 1 << 20  # bytes; a fingerprint reads at most sixteen blocks of this size


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write `path` so that it holds everything or does not change: temporary name, flush, rename.

    Without `durable` that holds for a process that ends at any moment, not for a machine that loses power: for files
    whose reader verifies them and can make them again.

    The temporary name is fixed, so that what a killed process left is overwritten by the next writer;
    every writer of a shared path must therefore hold `lock(path)`, or a lock that implies it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
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


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the exclusive right to make `path`. The system releases it when the process ends, however it ends."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    file_lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        file_lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that is making %s", path)
        file_lock.acquire()
    try:
        yield
    finally:
        file_lock.release()


def digest(content: Any) -> str:
    """Hash of anything JSON can hold, independent of the order of its keys: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_SAMPLE):
            state.update(block)
    return state.hexdigest()


def fingerprint(path: Path) -> str:
    """Twelve digits that tell files apart: of the size and all bytes, or of sixteen blocks where it is large.

    Sampling keeps the start of a run fast when the file is a 5.6 GB set of vectors.
    """
    size = path.stat().st_size
    state = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for number in range(16):
            position = min(number * _SAMPLE, size) if size <= 16 * _SAMPLE else number * (size - _SAMPLE) // 15
            file.seek(position)
            state.update(file.read(_SAMPLE))
    return state.hexdigest()[:12]


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
    """The arrays (only those of `names`, if given) in a file of `write_arrays`, and the key they were made under.
    None where there is no such file, or, with a warning, where it is damaged."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # numpy alone does not look at every checksum
            if bad := archive.testzip():
                raise ValueError(f"wrong checksum of {bad}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (file.files if names is None else names) if name != "key"}
            return arrays, json.loads(file["key"].tobytes())
    except Exception as error:  # damage takes many forms, and to every one the file is as good as absent
        log.warning("%s is damaged (%s); doing without it", path, error)
        return None
