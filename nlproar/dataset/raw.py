"""Raw files: what the user placed, as an archive or unpacked, else a verified download.

Archives are read in place and never extracted, so no member can write anywhere.
"""

from __future__ import annotations

import gzip
import logging
import lzma
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nlproar import storage
from nlproar.dataset.sources import Source
from nlproar.errors import UserError

log = logging.getLogger(__name__)

_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True)
class RawFiles:
    """The files of one task as text, and a fingerprint that changes when they do."""

    place: str  # for messages
    fingerprint: str
    texts: Mapping[str, str]  # member -> content


def open_raw(source: Source, raw_dir: Path, members: tuple[str, ...]) -> RawFiles:
    """Find `members` of `source` below `raw_dir`, or download them. Raises UserError when neither works."""
    folder = raw_dir / source.folder
    if all((folder / member).is_file() for member in members):
        prints = [storage.fingerprint(folder / member) for member in members]
        texts = {member: _decode((folder / member).read_bytes(), folder / member) for member in members}
        return RawFiles(str(folder), storage.digest(prints)[:12], texts)
    archive = find_archive(source, folder) or download(source, folder)
    texts = _read_archive(archive, members)
    return RawFiles(str(archive), storage.fingerprint(archive), texts)


def generated(texts: Mapping[str, str]) -> RawFiles:
    """Wrap files that a program wrote instead of a publisher."""
    return RawFiles("the generator", storage.digest(dict(texts))[:12], texts)


def find_archive(source: Source, folder: Path) -> Path | None:
    """The official archive in `folder`, whatever its compression; another checksum is worth a warning."""
    stem = _stem(source.filename)
    for suffix in _ARCHIVE_SUFFIXES:
        path = folder / (stem + suffix)
        if path.is_file():
            verify(source, path)
            return path
    return None


def verify(source: Source, path: Path) -> None:
    found = storage.sha256(path)
    if source.sha256 and found != source.sha256:
        log.warning("%s has sha256 %s, the published file has %s; using it", path, found, source.sha256)


def _stem(filename: str) -> str:
    for suffix in sorted(_ARCHIVE_SUFFIXES, key=len, reverse=True):
        if filename.endswith(suffix):
            return filename[: -len(suffix)]
    return filename


def download(source: Source, folder: Path) -> Path:
    """Fetch `source` into `folder` from the first address that answers; the file appears when it is verified."""
    import pooch
    import requests

    target = folder / source.filename
    with storage.lock(target):
        if target.exists():  # another process was faster
            return target
        partial = folder / ".download"
        shutil.rmtree(partial, ignore_errors=True)  # what a killed download left
        reasons = []
        for url in source.urls:
            log.info("downloading %s%s", url, f" ({source.bytes:,} bytes)" if source.bytes else "")
            fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60)
            try:
                path = pooch.retrieve(url, source.sha256, fname=target.name, path=partial, downloader=fetch)
                Path(path).rename(target)
                return target
            except (requests.RequestException, ValueError) as error:  # pooch: ValueError for a wrong checksum
                reasons.append(f"{url} ({_first_line(error)})")
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    raise UserError(
        f"could not download {'; '.join(reasons)}. Fetch {source.urls[0]} elsewhere"
        f" (sha256 {source.sha256 or 'not published'}) and put it at {target}"
    )


def _first_line(error: Exception) -> str:
    name = type(error).__name__
    return "wrong checksum" if isinstance(error, ValueError) and "hash" in str(error) else name


@contextmanager
def broken_archive_named(path: Path) -> Iterator[None]:
    """Turn the many errors of a truncated or mislabelled archive into one that names it."""
    try:
        yield
    except BROKEN_ARCHIVE as error:
        with open(path, "rb") as file:
            start = file.read(12)
        raise UserError(f"{path} is not a whole archive ({error}; it starts with {start!r}); replace it") from error


def _read_archive(path: Path, members: tuple[str, ...]) -> dict[str, str]:
    with broken_archive_named(path):
        found = _read_zip(path, members) if zipfile.is_zipfile(path) else _read_tar(path, members)
    missing = [member for member in members if member not in found]
    if missing:
        raise UserError(f"{path} has no member {missing[0]}; replace it by the official archive")
    return {member: _decode(found[member], f"{path}:{member}") for member in members}


def _wanted(name: str, members: tuple[str, ...]) -> str | None:
    """The member that `name` is, also where the archive was packed from one folder higher."""
    return next((member for member in members if f"/{name}".endswith(f"/{member}")), None)


def _read_zip(path: Path, members: tuple[str, ...]) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        pairs = ((name, _wanted(name, members)) for name in archive.namelist())
        return {member: archive.read(name) for name, member in pairs if member}


def _read_tar(path: Path, members: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    with tarfile.open(path) as archive:
        for info in archive:
            member = _wanted(info.name, members)
            if member and (file := archive.extractfile(info)):
                found[member] = file.read()
            if len(found) == len(members):
                break
    return found


def _decode(content: bytes, place: object) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{place}, line {line}: not UTF-8 text; replace the file") from error
