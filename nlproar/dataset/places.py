"""What is in the folder of a data set: its files, what file managers left beside them, and what is nearly right."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OTHER_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tar.z", ".tar.lz", ".gz", ".bz2", ".xz", ".zst")
_CLUTTER = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "@eadir", "$recycle.bin", "icon\r"}
_COPY = re.compile(r" \(\d+\)|[ _-]+(copy|kopie)( \d+)?|^copy of |~$")  # "a (1).txt", "a copy.txt", "a.txt~"
_DEPTH = 6  # folders below the place where nearly right files are looked for
_ENTRIES = 300_000  # files that are looked at; all of IMDB has 100,000
_NAMED = 3  # files that a message names


def is_clutter(path: PurePath | str) -> bool:
    """Whether a relative path, in a folder or in an archive, is no file of a user but a companion that a system or a
    file manager left there: `._name`, `.DS_Store`, anything in `__MACOSX/`, `Thumbs.db`, `desktop.ini`."""
    parts = PurePosixPath(path).parts
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    return hidden or any(part.lower() in _CLUTTER for part in parts)


def matching(folder: Path, pattern: str) -> tuple[list[Path], list[Path]]:
    """The files in `folder` that match `pattern`, and the links to nowhere; both in order, without clutter."""
    files, dangling = [], []
    for path in sorted(folder.glob(pattern)):
        if is_clutter(path.name):
            continue
        if path.is_file():
            files.append(path)
        elif not path.exists():
            dangling.append(path)
    return files, dangling


def stem(filename: str) -> str:
    """The name of an archive without its suffix, `data` of `data.tar.gz`."""
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if filename.lower().endswith(suffix):
            return filename[: -len(suffix)]
    return filename


def shown(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    text = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        text += f" and {len(names) - _NAMED:,} more"
    return text


def obstacles(folder: Path, names: Sequence[str]) -> list[str]:
    """Why `names`, relative to `folder`, cannot be read though something is there: a link to nowhere, a folder that
    may not be read, a folder in the place of a file. One sentence for each cause."""
    found: dict[str, None] = {}  # in order, each once
    for name in names:
        for path, is_last in _on_the_way(folder, name):
            reason = _obstacle(path, is_last)
            if reason:
                found.setdefault(reason)
    return list(found)


def _on_the_way(folder: Path, name: str) -> Iterator[tuple[Path, bool]]:
    """`folder`, the folders between, and the file or, for a pattern, everything that matches it; with each whether it
    should be a file."""
    yield folder, False
    path = folder
    *folders, last = PurePosixPath(name).parts
    for part in folders:
        path = path / part
        yield path, False
    for match in sorted(path.glob(last)) if "*" in last else [path / last]:
        yield match, True


def _obstacle(path: Path, is_last: bool) -> str | None:
    if path.is_symlink() and not path.exists():
        return f"{path} is a link to {os.readlink(path)}, which is not there"
    if not path.exists():
        return None
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            return f"{path} may not be read by this user"
        return f"{path} is a folder, not a file" if is_last else None
    if is_last:
        return None if path.is_file() else f"{path} is not a regular file"
    return f"{path} is a file, not a folder"


def nearby(
    folder: Path, patterns: Sequence[str], missing: Sequence[str], archive: str | None, look_above: bool = True
) -> list[str]:
    """Files that may be what the user meant by the `missing` ones of the `patterns` of a data set in `folder`.

    These are the same file in another folder, with another suffix or as a copy, and the archive under another name,
    `archive` being the official one if there is any. They are looked for in `folder` and, with `look_above`, in the
    folder above it, to which their names are relative.
    """
    exact: dict[str, None] = {}  # a dict keeps the order and each name once
    similar: dict[str, None] = {}
    for place, path in _candidates(folder, look_above):
        relative = path.relative_to(place)
        if place == folder and any(_is_at(relative, pattern) for pattern in patterns):
            continue  # it is where it should be
        name = os.path.relpath(path, folder.parent)
        if any(_same_elsewhere(relative, pattern, other_data=place != folder) for pattern in missing):
            exact.setdefault(name)
            continue
        is_similar = place == folder and any(_similar(relative, pattern) for pattern in missing)
        if is_similar or (archive and _may_be_archive(path.name, archive, in_own_folder=path.parent == folder)):
            similar.setdefault(name)
    return [*_by_folder(exact), *similar]


def alike(names: Sequence[str], pattern: str) -> list[str]:
    """Those of the `names` in an archive that may be meant by `pattern`, which none of them matches."""
    paths = [PurePosixPath(name) for name in names if not is_clutter(name)]
    same = {str(path): None for path in paths if _same_elsewhere(path, pattern, other_data=False)}
    similar = {str(path): None for path in paths if _similar(path, pattern)}
    return list(_by_folder(same)) or list(similar)


def contents(folder: Path) -> list[str]:
    """What there is in `folder`, without clutter."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not is_clutter(path.name))


def neighbours(folder: Path, missing: Sequence[str]) -> list[str]:
    """The folders, relative to the one above `folder`, that should hold a `missing` file and hold others."""
    found: dict[str, None] = {}
    for name in missing:
        parent = (folder / name).parent
        if parent != folder and parent.is_dir() and any(not is_clutter(path.name) for path in parent.iterdir()):
            found.setdefault(os.path.relpath(parent, folder.parent))
    return list(found)


def _candidates(folder: Path, look_above: bool) -> Iterator[tuple[Path, Path]]:
    """(place, file) of the files in the folder of the data set, then in the folder above, where the files of other
    data sets are too."""
    above = folder.parent
    for place in (folder, above) if look_above else (folder,):
        for path in _walk(place):
            if place == folder or not path.is_relative_to(folder):
                yield place, path


def _walk(place: Path) -> Iterator[Path]:
    looked_at = 0
    for parent, folders, names in os.walk(place, followlinks=True):
        depth = len(Path(parent).relative_to(place).parts)
        folders[:] = sorted(name for name in folders if not is_clutter(name)) if depth < _DEPTH else []
        for name in sorted(names):
            looked_at += 1
            if looked_at > _ENTRIES:
                return
            if not is_clutter(name):
                yield Path(parent) / name


def _is_at(path: PurePath, pattern: str) -> bool:
    return len(path.parts) == len(PurePosixPath(pattern).parts) and path.match(pattern)


def _same_elsewhere(path: PurePath, pattern: str, other_data: bool) -> bool:
    """Whether `path` ends as `pattern` does, in its name at least. Among the files of other data sets
    (`other_data`) a short name such as `train.txt` alone says nothing."""
    parts = PurePosixPath(pattern).parts
    for start in range(len(parts)):
        ending = parts[start:]
        if ending[0].startswith("*"):
            return False
        if other_data and start > 0 and len(ending[-1]) < 12:
            return False
        if path.match("/".join(ending)):
            return True
    return False


def _similar(path: PurePath, pattern: str) -> bool:
    """Whether `path` has the name of the file that `pattern` names but for its suffix, case, or a mark of a copy; for
    a pattern of many files, whether it lies in their folder."""
    wanted = PurePosixPath(pattern)
    if wanted.name.startswith("*"):
        return path.parent.match(str(wanted.parent))
    name = _COPY.sub("", path.name.lower())
    start = re.split(r"\*|\.[a-z]+$", wanted.name.lower())[0]
    rest = name.removeprefix(start)
    return name.startswith(start) and (not rest or not rest[0].isalnum())


def _may_be_archive(name: str, archive: str, in_own_folder: bool) -> bool:
    lower = _COPY.sub("", name.lower())
    if stem(archive).lower() in lower:
        return True
    return in_own_folder and lower.endswith((*ARCHIVE_SUFFIXES, *_OTHER_ARCHIVES))


def _by_folder(paths: Mapping[str, None]) -> list[str]:
    """Each path, or `folder/*` where a folder has more than a few of them."""
    inside: dict[str, list[str]] = {}
    for path in paths:
        inside.setdefault(os.path.dirname(path), []).append(path)
    found = []
    for parent, members in inside.items():
        found += members if len(members) <= _NAMED else [f"{parent}/*"]
    return found
