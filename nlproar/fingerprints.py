"""Checksums of files. The checksum of a large file is calculated once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from nlproar import storage
from nlproar.errors import UserError
from nlproar.progress import stage

log = logging.getLogger(__name__)

LARGE = 16 << 20  # bytes; hashing a smaller file takes some ten milliseconds, so nothing is kept of it
_WORTH_A_BAR = 100_000_000  # bytes
_BLOCK = 1 << 20  # bytes
_LONGEST_ENTRY = 1 << 16  # bytes
_SETTLED = 2.0  # seconds; see `_now`

_this_process: dict[tuple[str, tuple[int, ...]], str] = {}  # (path, state) -> SHA-256, whatever the cache


def fingerprint(path: Path, cache_dir: Path | None = None) -> str:
    """Twelve digits that tell files apart: of the size and the content, or the first of the SHA-256 of a large file.

    `cache_dir` is the folder of the caches, where the checksum of a large file is kept.
    """
    size = path.stat().st_size
    if size > LARGE:
        return sha256(path, cache_dir)[:12]
    state = hashlib.sha256(str(size).encode())
    with storage.open_file(path) as file:
        _update(state, file, path.name, size)
    return state.hexdigest()[:12]


def sha256(path: Path, cache_dir: Path | None = None) -> str:
    """SHA-256 of the content, 64 hexadecimal digits. That of a large file is kept in `cache_dir`, if there is one."""
    with storage.open_file(path) as file:
        state = _state(file)
        if state["size"] <= LARGE:
            return _hash(file, path.name, state["size"])
        return _sha256_of_large(file, state, path, cache_dir)


def _sha256_of_large(file: IO[bytes], state: dict[str, int], path: Path, cache_dir: Path | None) -> str:
    place = os.path.realpath(path)
    remembered = (place, tuple(state.values()))
    if remembered in _this_process:
        return _this_process[remembered]
    entry = _entry(place, cache_dir) if cache_dir else None
    found = _kept(entry, place, state) if entry else None
    if found is None:
        started = _now(entry)
        found = _hash(file, path.name, state["size"])
        has_changed = _state(file) != state
        is_young = state["ctime_ns"] / 1e9 > started - _SETTLED
        if has_changed or is_young:
            return found
        if entry:
            _keep(entry, place, state, found)
    _this_process[remembered] = found
    return found


def _state(file: IO[bytes]) -> dict[str, int]:
    """What changes when a file changes. No device: a network drive has another number on every machine.

    The time of the last change of status (ctime) is there because, unlike mtime, no program can set it back.
    """
    found = os.fstat(file.fileno())
    return {
        "size": found.st_size,
        "inode": found.st_ino,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }


def _now(entry: Path | None) -> float:
    """The time by which a file counts as just changed: the earlier of this machine's and the file server's.

    A file that changed within the last two seconds may change again and keep its times, as file systems do not count
    them finely. Its checksum is then not kept.
    """
    here = time.time()
    if entry is None:
        return here
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=entry.parent) as probe:
            return min(here, os.fstat(probe.fileno()).st_mtime)
    except OSError:  # a cache that cannot be written
        return here


def _entry(place: str, cache_dir: Path) -> Path:
    return cache_dir / "fingerprints" / f"{storage.digest(place)[:16]}.json"


def _kept(entry: Path, place: str, state: dict[str, int]) -> str | None:
    """The checksum that an earlier process kept of the file at `place`, if the file is still in that `state`."""
    try:
        with storage.open_file(entry) as file:
            content = json.loads(file.read(_LONGEST_ENTRY))
    except FileNotFoundError:
        return None
    except (OSError, UserError, ValueError, RecursionError):  # damage takes many forms
        content = None
    if not isinstance(content, dict) or content.get("check") != _check(content):
        log.warning("%s is damaged; calculating the checksum of %s again", entry, place)
        return None
    if content.get("path") != place or content.get("state") != state:
        return None
    return str(content.get("sha256"))


def _keep(entry: Path, place: str, state: dict[str, int], sha256: str) -> None:
    content: dict[str, Any] = {"path": place, "state": state, "sha256": sha256}
    content["check"] = _check(content)
    try:
        with storage.whole_file(entry, durable=False) as file:
            file.write(json.dumps(content, indent=2).encode() + b"\n")
    except (OSError, UserError) as error:  # a cache that only others may write; the next process hashes again
        log.info("the checksum of %s cannot be kept (%s)", place, error)


def _check(content: dict[str, Any]) -> str:
    """A checksum of an entry, so that a damaged one is noticed."""
    return storage.digest({name: value for name, value in content.items() if name != "check"})


def _hash(file: IO[bytes], name: str, size: int) -> str:
    state = hashlib.sha256()
    _update(state, file, name, size)
    return state.hexdigest()


def _update(state: Any, file: IO[bytes], name: str, size: int) -> None:
    """Feed the rest of `file`, which has `size` bytes, to the hash `state`."""
    block = bytearray(_BLOCK)
    view = memoryview(block)
    progress = stage(f"checksum of {name}", size, "bytes") if size > _WORTH_A_BAR else nullcontext()
    with progress as bar:
        while count := file.readinto(block):  # type: ignore[attr-defined]
            state.update(view[:count])
            if bar:
                bar.update(count)
