"""Raw files: what the user placed, as an archive or unpacked, else a verified download.

Archives are read in place and never extracted, so no member can write anywhere.
"""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from nlproar import storage
from nlproar.dataset.download import download
from nlproar.dataset.sources import Source
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint, sha256

log = logging.getLogger(__name__)

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPENERS = {b"\x1f\x8b\x08": gzip.open, b"BZh": bz2.open, b"\xfd7z": lzma.open}
BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)


Opener = Callable[[tuple[str, ...]], Iterator[tuple[str, IO[bytes]]]]


@dataclass(frozen=True)
class RawFiles:
    """The files of one task, wherever they are, and a fingerprint that changes when they do.

    Patterns name files as the official archive does, with `*` in the last part.
    """

    place: str  # for messages
    fingerprint: str
    opener: Opener  # patterns -> (name, stream) of every file that matches one, in one pass

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
                yield name, _decode(file.read(), f"{self.place}: {name}")
        if missing:
            raise UserError(f"{self.place} has no {sorted(missing)[0]}; replace it by the official files")

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
                with broken_archive_named(self._file(name)):
                    for number, line in enumerate(file, start=1):
                        yield number, _decode(line, f"{self.place}: {name}", number).rstrip("\r\n")
        if not found:
            raise UserError(f"{self.place} has no {name}; replace it by the official files")


def open_raw(source: Source, raw_dir: Path, patterns: tuple[str, ...], cache_dir: Path | None = None) -> RawFiles:
    """Find the files of `source` below `raw_dir`, or download them. Raises UserError when neither works.

    The checksums of large files are kept in `cache_dir`.
    """
    folder = raw_dir / source.folder
    if source.credentialed:
        folder = _credentialed_folder(source, raw_dir, patterns)
    for companion in source.companions:
        if not (folder / companion.filename).exists():
            download(companion, folder)
    unpacked = [sorted(folder.glob(pattern)) for pattern in patterns]
    if all(unpacked):
        prints = [fingerprint(path, cache_dir) for paths in unpacked for path in paths]
        return RawFiles(str(folder), storage.digest(prints)[:12], partial(_open_folder, folder))
    archive = find_archive(source, folder, cache_dir) or download(source, folder)
    opener = _open_zip if zipfile.is_zipfile(archive) else _open_tar
    return RawFiles(str(archive), fingerprint(archive, cache_dir), partial(opener, archive))


def _credentialed_folder(source: Source, raw_dir: Path, patterns: tuple[str, ...]) -> Path:
    """Where the user put files that cannot be downloaded: in `raw/`, or beside it as the published code had them."""
    own = [pattern for pattern in patterns if pattern not in [c.filename for c in source.companions]]
    places = (raw_dir / source.folder, raw_dir.parent / source.folder)
    for folder in places:
        if all(any(folder.glob(pattern)) for pattern in own):
            return folder
    names = " and ".join(pattern.replace("*.csv*", ".csv.gz") for pattern in own)
    raise UserError(f"{names} are missing. {source.credentialed}; then put both in {places[0]} (or {places[1]})")


def generated(texts: Mapping[str, str]) -> RawFiles:
    """Wrap files that a program wrote instead of a publisher."""
    return RawFiles("the generator", storage.digest(dict(texts))[:12], partial(_open_texts, texts))


def _open_folder(folder: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
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
            if not info.is_dir() and (name := _matched(info.filename, patterns)):
                with archive.open(info) as file:
                    yield name, file


def _open_tar(path: Path, patterns: tuple[str, ...]) -> Iterator[tuple[str, IO[bytes]]]:
    with open_compressed(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for info in archive:
                if info.isfile() and (name := _matched(info.name, patterns)) and (file := archive.extractfile(info)):
                    yield name, file
        while stream.read(1 << 20):  # to the end, where a cut compressed file is noticed
            continue
        stream.seek(-512, io.SEEK_CUR)
        if any(stream.read()):  # tarfile itself takes a cut between two members for the end
            raise tarfile.ReadError("it has no end")


def _matched(name: str, patterns: tuple[str, ...]) -> str | None:
    """`name` as the official archive has it, if it matches: also where it was packed from a folder higher up."""
    path = PurePosixPath(name)
    for pattern in patterns:
        if path.match(pattern):
            return "/".join(path.parts[-len(PurePosixPath(pattern).parts) :])
    return None


def find_archive(source: Source, folder: Path, cache_dir: Path | None = None) -> Path | None:
    """The official archive in `folder`, whatever its compression; another checksum is worth a warning."""
    stem = _stem(source.filename)
    for suffix in _ARCHIVE_SUFFIXES:
        path = folder / (stem + suffix)
        if path.is_file():
            verify(source, path, cache_dir)
            return path
    return None


def verify(source: Source, path: Path, cache_dir: Path | None = None) -> None:
    """Warn of a file that is not the published one, where its checksum is published."""
    if source.sha256 is None:
        return
    found = sha256(path, cache_dir)
    if found != source.sha256:
        log.warning("%s has sha256 %s, the published file has %s; using it", path, found, source.sha256)


def _stem(filename: str) -> str:
    for suffix in sorted(_ARCHIVE_SUFFIXES, key=len, reverse=True):
        if filename.endswith(suffix):
            return filename[: -len(suffix)]
    return filename


@contextmanager
def broken_archive_named(place: Path | str) -> Iterator[None]:
    """Turn the many errors of a truncated or mislabelled archive into one that names it."""
    try:
        yield
    except (*BROKEN_ARCHIVE, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the machine, not of the file; a broken stream has no number, an encrypted zip is a RuntimeError
        start = ""
        if Path(place).is_file():
            with open(place, "rb") as file:
                start = f"; it starts with {file.read(12)!r}"
        raise UserError(f"{place} is not a whole archive ({error}{start}); replace it") from error


def _decode(content: bytes, place: str, line: int = 1) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise UserError(f"{place}, line {line}: not UTF-8 text; replace the file") from error
