"""Raw files: what the user placed, as an archive or unpacked, else a verified download.

Archives are read in place and never extracted, so no member can write anywhere.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import logging
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from nlproar import storage
from nlproar.dataset import places, text_file
from nlproar.dataset.download import download
from nlproar.dataset.places import is_clutter
from nlproar.dataset.sources import Source
from nlproar.dataset.tally import Tally
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint, sha256

log = logging.getLogger(__name__)

_OPENERS = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open, b"\xfd7z": lzma.open}
BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    UnicodeDecodeError,  # of the name of a member
)


Opener = Callable[[tuple[str, ...]], Iterator[tuple[str, IO[bytes]]]]


@dataclass(frozen=True)
class RawFiles:
    """The files of one task, wherever they are, and a fingerprint that changes when they do.

    Patterns name files as the official archive does, with `*` in the last part. `tally` is for the reader of the task
    to count what it reads.
    """

    place: str  # for messages
    fingerprint: str
    opener: Opener  # patterns -> (name, stream) of every file that matches one, in one pass
    tally: Tally = field(default_factory=Tally)

    def _file(self, name: str) -> str:
        """Where `name` is read from: itself in a folder, else the archive."""
        return f"{self.place}/{name}" if Path(self.place).is_dir() else self.place

    def contents(self, *patterns: str) -> Iterator[tuple[str, str]]:
        """(name, text) of every file that matches. Raises UserError if a pattern matches none."""
        missing, seen = set(patterns), set[str]()
        with broken_archive_named(self.place):
            for name, file in self.opener(patterns):
                if name in seen:
                    raise UserError(f"{self.place} has {name} twice; replace it by the official files")
                seen.add(name)
                missing -= {pattern for pattern in missing if PurePosixPath(name).match(pattern)}
                yield name, text_file.read_all(file, f"{self.place}: {name}")
        if missing:
            raise self._lacks(min(missing))

    @contextmanager
    def stream(self, pattern: str) -> Iterator[tuple[str, IO[bytes]]]:
        """(name, bytes) of the one file that matches. Raises UserError if there is none."""
        with broken_archive_named(self.place):
            names = [name for name, _ in self.opener((pattern,))]
            if len(names) != 1:
                found = " and ".join(names) or f"no {pattern}"
                raise UserError(f"{self.place} has {found}; leave one official file there")
            for name, file in self.opener((pattern,)):
                with broken_archive_named(self._file(name)):
                    yield name, file

    def lines(self, name: str) -> Iterator[tuple[int, str]]:
        """(number from 1, line without its end) of one file, as a stream."""
        found = 0
        with broken_archive_named(self.place):
            for _, file in self.opener((name,)):
                found += 1
                if found > 1:
                    raise UserError(f"{self.place} has {name} twice; replace it by the official files")
                opened = text_file.open_lines(file, f"{self.place}: {name}")
                with broken_archive_named(self._file(name)), opened as lines:
                    for number, line in enumerate(lines, start=1):
                        yield number, line.rstrip("\r\n")
        if not found:
            raise self._lacks(name)

    def _lacks(self, pattern: str) -> UserError:
        """What to say where no file matches: what an archive has instead."""
        found = [] if not Path(self.place).is_file() else places.alike(_names_in(Path(self.place)), pattern)
        instead = f" (it has {places.shown(found)})" if found else ""
        return UserError(f"{self.place} has no {pattern}{instead}; replace it by the official files")


def open_raw(
    source: Source,
    raw_dir: Path,
    patterns: tuple[str, ...],
    cache_dir: Path | None = None,
    fetch: Callable[[Source, Path], Path] | None = None,
) -> RawFiles:
    """Find the files of `source` below `raw_dir`, or `fetch` them (by default: download them).

    Of an unpacked folder and an archive beside it, the one that is complete is read, and a line in the log says which.
    Checksums of large files, and the names and sizes in an archive, are kept in `cache_dir`. Raises UserError where
    files are missing and cannot be downloaded, with what was found near them.
    """
    fetch = fetch or download
    folder = raw_dir / source.folder
    if source.credentialed:
        folder = _credentialed_folder(source, raw_dir, patterns)
    for companion in source.companions:
        if not places.matching(folder, companion.filename)[0]:
            _refuse_what_is_partly_there(companion, folder, (companion.filename,), [companion.filename])
            fetch(companion, folder)
    files: list[Path] = []
    missing = []
    for pattern in patterns:
        matching, dangling = places.matching(folder, pattern)
        files += matching
        missing += [path.relative_to(folder).as_posix() for path in dangling]
        if not matching and not dangling:
            missing.append(pattern)
    archive = find_archive(source, folder)
    if archive is None and missing:
        _refuse_what_is_partly_there(source, folder, patterns, missing)
        archive = _fetched(fetch, source, folder)
    elif archive is not None and files and not _is_better(archive, folder, files, missing, patterns, cache_dir):
        archive = None
    if archive is None:
        # The name counts, too: in IMDB, the folder of a review is its label.
        prints = [(os.path.relpath(path, folder), fingerprint(path, cache_dir)) for path in files]
        return RawFiles(str(folder), storage.digest(prints)[:12], partial(_open_folder, folder))
    verify(source, archive, cache_dir)
    opener = _open_zip if zipfile.is_zipfile(archive) else _open_tar
    return RawFiles(str(archive), fingerprint(archive, cache_dir), partial(opener, archive))


def _fetched(fetch: Callable[[Source, Path], Path], source: Source, folder: Path) -> Path:
    """The archive, or the UserError of `fetch` with what there is in `folder` instead."""
    others = places.contents(folder)
    try:
        return fetch(source, folder)
    except UserError as error:
        if not others:
            raise
        raise UserError(f"{folder} holds nothing of this data set, only {places.shown(others)}; {error}") from error


def nothing_is_fetched(source: Source, folder: Path) -> Path:
    """For `open_raw`, where only what is there is asked for."""
    raise UserError(f"{source.filename} is not in {folder}")


def _is_better(
    archive: Path,
    folder: Path,
    files: Sequence[Path],
    missing: Sequence[str],
    patterns: tuple[str, ...],
    cache_dir: Path | None,
) -> bool:
    """Whether `archive` is to be read although its `files` are unpacked in `folder`, where some may be `missing`. A
    line in the log says which of the two it is."""
    if not missing:
        missing = _less_than_in_archive(folder, files, archive, patterns, cache_dir)
    if missing:
        log.warning(
            "%s is read; the files that are unpacked in %s are not used, because they are incomplete"
            " (missing or cut short: %s)", archive, folder, places.shown(missing),
        )  # fmt: skip
        return True
    log.info("the files that are unpacked in %s are read, not %s beside them", folder, archive.name)
    return False


def _less_than_in_archive(
    folder: Path, files: Sequence[Path], archive: Path, patterns: tuple[str, ...], cache_dir: Path | None
) -> list[str]:
    """The names that `archive` has and that are not among the `files` in `folder`, or only their start is. Empty if
    the archive is damaged or incomplete itself."""
    try:
        sizes = _sizes(archive, patterns, cache_dir)
    except UserError as error:
        log.warning("%s; the unpacked files beside it are read", error)
        return []
    if not all(any(_matched(name, (pattern,)) for name in sizes) for pattern in patterns):
        log.warning("%s lacks files of the published one; the unpacked files beside it are read", archive)
        return []
    unpacked = {os.path.relpath(path, folder): path for path in files}
    return [name for name, size in sizes.items() if name not in unpacked or unpacked[name].stat().st_size < size]


def _sizes(archive: Path, patterns: tuple[str, ...], cache_dir: Path | None) -> dict[str, int]:
    """Name and size of every file in `archive` that matches, after all of it was read once; remembered in
    `cache_dir`. Raises UserError where it is damaged."""

    def read_through() -> storage.Arrays:
        log.info("comparing %s with what is unpacked beside it", archive)
        sizes: dict[str, int] = {}
        opener = _open_zip if zipfile.is_zipfile(archive) else _open_tar
        with broken_archive_named(archive):
            for name, file in opener(archive, patterns):
                sizes[name] = 0
                while block := file.read(1 << 20):
                    sizes[name] += len(block)
        names = "\n".join(sizes).encode()
        return {"names": np.frombuffer(names, dtype=np.uint8), "sizes": np.array(list(sizes.values()), dtype=np.int64)}

    if cache_dir is None:
        arrays = read_through()
    else:
        key = {"format": 1, "archive": fingerprint(archive, cache_dir), "patterns": list(patterns)}
        path = cache_dir / "archives" / f"{places.stem(archive.name)}-{storage.digest(key)[:8]}.npz"
        arrays = storage.cached(path, key, read_through)
    names = arrays["names"].tobytes().decode().split("\n")
    return dict(zip(names, arrays["sizes"].tolist(), strict=False))  # without any file, names is [""]


def _refuse_what_is_partly_there(
    source: Source, folder: Path, patterns: tuple[str, ...], missing: Sequence[str]
) -> None:
    """Raise UserError where a part of `source`, or something like it, is in place: what is missing, and what was found
    instead. Does nothing where there is no trace of it, so that it can be downloaded."""
    reasons = places.obstacles(folder, [*missing, *_archive_names(source)])
    found = places.nearby(folder, patterns, missing, source.filename if source.urls else None)
    beside = places.neighbours(folder, missing)
    if not (reasons or found or beside or any(pattern not in missing for pattern in patterns)):
        return
    verb = "is" if len(missing) == 1 else "are"
    message = f"{folder} is incomplete: {places.shown(missing)} {verb} missing"
    if reasons:
        message += f" ({places.shown(reasons)})"
    if found:
        message += f"; found nearby in {folder.parent}: {places.shown(found)}"
    message += ". Put what is missing in its place"
    if source.urls:
        what = source.filename if source.filename in patterns else f"the official archive as {source.filename}"
        message += f", or {what} into {folder}; or move away what is there, and it is downloaded from {source.urls[0]}"
    raise UserError(message)


def _credentialed_folder(source: Source, raw_dir: Path, patterns: tuple[str, ...]) -> Path:
    """Where the user put files that cannot be downloaded: in `raw/`, or beside it as the published code had them."""
    own = [pattern for pattern in patterns if pattern not in [c.filename for c in source.companions]]
    folders = (raw_dir / source.folder, raw_dir.parent / source.folder)
    missing = {folder: [pattern for pattern in own if not places.matching(folder, pattern)[0]] for folder in folders}
    complete = [folder for folder in folders if not missing[folder]]
    if complete:
        others = [str(folder) for folder in folders if folder != complete[0] and len(missing[folder]) < len(own)]
        if others:
            log.info("the files in %s are read, not those in %s", complete[0], others[0])
        return complete[0]
    best = min(folders, key=lambda folder: len(missing[folder]))
    names = " and ".join(pattern.replace("*.csv*", ".csv.gz") for pattern in missing[best])
    found, reasons = [], []
    for folder in folders:
        reasons += places.obstacles(folder, own)
        near = places.nearby(folder, own, missing[best], None, look_above=folder == folders[0])
        found += [f"{folder.parent}/{name}" for name in near]
        if folder != best:
            found += [str(path) for pattern in missing[best] for path in places.matching(folder, pattern)[0]]
    verb = "is" if len(missing[best]) == 1 else "are"
    message = f"{names} {verb} missing in {best}"
    if reasons:
        message += f" ({places.shown(list(dict.fromkeys(reasons)))})"
    if found:
        message += f"; found nearby: {places.shown(list(dict.fromkeys(found)))}"
    raise UserError(f"{message}. {source.credentialed}; then put both files in {folders[0]} (or {folders[1]})")


def generated(texts: Mapping[str, str]) -> RawFiles:
    """Wrap files that a program wrote instead of a publisher."""
    return RawFiles("the generator", storage.digest(dict(texts))[:12], partial(_open_texts, texts))


def _open_folder(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    for pattern in patterns:
        for path in places.matching(folder, pattern)[0]:
            with open_compressed(path) as file:
                yield path.relative_to(folder).as_posix(), file


@contextmanager
def open_compressed(path: Path) -> Iterator[IO[bytes]]:
    """The content of a file that may be compressed with gzip, bzip2 or xz, whatever its name says."""
    with open(path, "rb") as start:
        opener = _OPENERS.get(start.read(3), open)
    with opener(path, "rb") as file:  # type: ignore[operator]
        yield file


def _open_texts(texts: Mapping[str, str], patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    for name, text in texts.items():
        if _matched(name, patterns):
            yield name, io.BytesIO(text.encode())


def _open_zip(path: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            name = _matched(info.filename, patterns)
            if name is None or info.is_dir():
                continue
            with archive.open(info) as file:
                yield name, file


def _open_tar(path: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    with open_compressed(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for info in archive:
                name = _matched(info.name, patterns)
                if name is None or info.isdir():
                    continue
                if not info.isfile():
                    raise UserError(f"{path}: {info.name} is a link, not a file; pack the files themselves")
                file = archive.extractfile(info)
                assert file is not None  # it is for files
                yield name, file
        while stream.read(1 << 20):  # to the end, where a cut compressed file is noticed
            continue
        stream.seek(-512, io.SEEK_CUR)
        if any(stream.read()):  # tarfile itself takes a cut between two members for the end
            raise tarfile.ReadError("it has no end")


def _names_in(archive: Path) -> list[str]:
    """The names of all files in an archive that can be read."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as content:
            return [name for name in content.namelist() if not name.endswith("/")]
    with open_compressed(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
        return [info.name for info in members if info.isfile()]


def _matched(name: str, patterns: tuple[str, ...]) -> str | None:
    """`name` as the official archive has it, if it matches: also where it was packed from a folder higher up."""
    path = PurePosixPath(name.replace("\\", "/"))  # some programs for Windows pack it so
    if is_clutter(path):
        return None
    for pattern in patterns:
        if path.match(pattern):
            return "/".join(path.parts[-len(PurePosixPath(pattern).parts) :])
    return None


def _archive_names(source: Source) -> list[str]:
    """How the archive may be called: as at the official address or at a mirror, in any compression."""
    stems = dict.fromkeys(places.stem(url.rpartition("/")[2]) for url in source.urls)
    return [stem + suffix for stem in stems for suffix in places.ARCHIVE_SUFFIXES]


def find_archive(source: Source, folder: Path) -> Path | None:
    """The official archive in `folder`, whatever its compression."""
    archives = [folder / name for name in _archive_names(source) if (folder / name).is_file()]
    if not archives:
        return None
    if len(archives) > 1:
        log.info("%s is read, not %s beside it", archives[0], places.shown([path.name for path in archives[1:]]))
    return archives[0]


def verify(source: Source, path: Path, cache_dir: Path | None = None) -> None:
    """Warn of a file that is not the published one, where its checksum is published."""
    if source.sha256 is None:
        return
    found = sha256(path, cache_dir)
    if found != source.sha256:
        log.warning("%s has sha256 %s, the published file has %s; using it", path, found, source.sha256)


@contextmanager
def broken_archive_named(place: Path | str) -> Iterator[None]:
    """Turn the many errors of a truncated or mislabelled archive into one that names it."""
    try:
        yield
    except (*BROKEN_ARCHIVE, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the machine; a broken stream has no number, or EINVAL for a place before the first byte
        raise UserError(f"{place} {_fault(Path(place), error)}") from error


def _fault(path: Path, error: Exception) -> str:
    """What is wrong with an archive that cannot be read, and what to do."""
    if "encrypted" in str(error) or "password" in str(error):
        return "is encrypted; unpack it with its password"
    if isinstance(error, NotImplementedError):
        return f"is packed in a way that cannot be read here ({error}); unpack it"
    start = b""
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(512)
    if path.is_file() and not start:
        return "is not a whole archive: it is empty; replace it"
    if text_file.is_html(start):
        return "is not a whole archive: it is an HTML page; download it again"
    if text_file.is_git_lfs_pointer(start):
        return "is not a whole archive: it is a Git LFS pointer; fetch the file with git lfs pull"
    beginning = f"; it starts with {start[:12]!r}" if start else ""
    return f"is not a whole archive ({error}{beginning}); replace it"
