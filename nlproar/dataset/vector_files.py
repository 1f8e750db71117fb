"""Which file of the published vectors a run reads: what the user placed, else a download."""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from nlproar import storage
from nlproar.dataset import raw as raw_files
from nlproar.dataset import vector_text
from nlproar.dataset.download import download
from nlproar.dataset.sources import VECTORS, Source
from nlproar.errors import UserError
from nlproar.fingerprints import sha256

log = logging.getLogger(__name__)

_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")
_NAMED = 5  # neighbours that a message names


def find(name: str, raw_dir: Path, cache_dir: Path | None = None) -> Path:
    """The file of the published vectors `name`, a key of `sources.VECTORS`; downloads it if need be."""
    path = placed(name, raw_dir, cache_dir)
    if path:
        return path
    source = VECTORS[name]
    folder = raw_dir / source.folder
    neighbours = _neighbours(source, raw_dir)
    beside = f"{folder} has {', '.join(neighbours)}, which cannot be used in its place" if neighbours else ""
    if beside:
        log.info("%s is not there; %s", source.text, beside)
    try:
        return download(source, folder)
    except UserError as error:
        more = f". {beside}" if beside else ""
        raise UserError(f"{error}{more}; or name any text file of vectors with --vectors PATH") from error


def placed(name: str, raw_dir: Path, cache_dir: Path | None = None) -> Path | None:
    """The file of the published vectors `name` that is in `raw_dir`, None if there is none.

    It has one of the published names, or the name of the unpacked text, or that with a suffix of a compression. Of
    several, one that can be verified is taken, and the log says which. Raises UserError where there is only a
    link of that name that leads nowhere.
    """
    source = VECTORS[name]
    folder = raw_dir / source.folder
    storage.sweep(folder, source.filename)  # what a killed download left
    named = [folder / filename for filename in _names(source)]
    paths = [path for path in named if path.is_file()]
    if not paths:
        for path in named:
            if path.is_symlink() and not path.exists():
                raise UserError(f"{path} is a link to {os.readlink(path)}, which is not there; replace it")
        return None
    state = tuple((path.absolute(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    if state not in _chosen:
        _chosen[state] = _choose_and_say(source, paths, cache_dir)
    return _chosen[state]


_chosen: dict[tuple[tuple[Path, int, int], ...], Path] = {}  # of this process: a run asks several times


def _choose_and_say(source: Source, paths: Sequence[Path], cache_dir: Path | None) -> Path:
    chosen = paths[0]
    if len(paths) > 1:
        chosen, reason = _choose(source, paths, cache_dir)
        others = ", ".join(path.name for path in paths if path != chosen)
        log.info("%s is read, not %s beside it: %s", chosen, others, reason)
    if chosen.name == source.filename:
        raw_files.verify(source, chosen, cache_dir)
    return chosen


def published_lines(file: Path) -> int | None:
    """How many words a file of this name has, where its publisher says so."""
    for source in VECTORS.values():
        if file.name in _names(source):
            return source.lines
    return None


def _names(source: Source) -> list[str]:
    """The names that its file may have, the unpacked text first."""
    stem = source.text.rpartition(".")[0]
    names = [source.text, *(source.text + suffix for suffix in _COMPRESSIONS), f"{stem}.zip", source.filename]
    return list(dict.fromkeys(names))


def _choose(source: Source, paths: Sequence[Path], cache_dir: Path | None) -> tuple[Path, str]:
    """The best of several files of the same vectors, and why.

    An archive with the published checksum is best. Else it is the unpacked text, if it is known to be complete: by
    its header, or by its size in a zip archive. Else it is an archive, as reading one verifies its content.
    """
    for path in paths:
        if path.name == source.filename and source.sha256 and sha256(path, cache_dir) == source.sha256:
            return path, "it has the published checksum"
    archives = [path for path in paths if path.name != source.text and _may_be_whole(path)]
    if paths[0].name != source.text:
        return (archives or paths)[0], "the other is not needed"
    text = paths[0]
    if not archives:
        return text, "the other cannot be read"
    fault = _fault(text, archives)
    if fault:
        return archives[0], fault
    return text, "it is complete"


def _fault(text: Path, archives: Sequence[Path]) -> str | None:
    """Why an unpacked text file is not to be trusted; None if it is complete."""
    for path in archives:
        if path.suffix == ".zip":
            size, unpacked = _size_inside(path), text.stat().st_size
            if size == unpacked:
                return None
            return f"{text.name} has {unpacked:,} bytes, and the file in {path.name} has {size:,}"
    try:
        words, announced = vector_text.count_words(text)
    except UserError as error:
        return str(error)
    if announced is None:
        return f"whether {text.name} is complete cannot be verified"
    if words != announced:
        return f"{text.name} announces {announced:,} words and has {words:,}"
    return None


def _may_be_whole(archive: Path) -> bool:
    """False for a zip archive that is cut off or holds no vectors. Others show that only when they are read."""
    if archive.suffix != ".zip":
        return True
    try:
        _size_inside(archive)
    except UserError:
        return False
    return True


def _size_inside(path: Path) -> int:
    """The size of the text of vectors in a zip archive."""
    with raw_files.broken_archive_named(path), zipfile.ZipFile(path) as archive:
        return vector_text.member(path, archive).file_size


def _neighbours(source: Source, raw_dir: Path) -> list[str]:
    """What looks like the file that is missing, relative to its folder: of another kind, cut off, or elsewhere."""
    folder = raw_dir / source.folder
    names = set(_names(source))
    start = source.text.rpartition(".")[0].lower()
    found = []
    for path in [*sorted(folder.glob("*")), *sorted(folder.glob("*/*")), *sorted(raw_dir.glob("*"))]:
        is_elsewhere = path.parent != folder
        if path.name.lower().startswith(start) and not (is_elsewhere and path.name not in names):
            found.append(os.path.relpath(path, folder) + ("/" if path.is_dir() else ""))
    return [*found[:_NAMED], *(["..."] if len(found) > _NAMED else [])]
