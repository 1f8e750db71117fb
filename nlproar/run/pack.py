"""`nlproar pack`: the results of a persistent directory as one archive, to take home from a cluster.

It holds the records and what the report reads besides: encoded data, masks, importance, what was measured on the
models, and tables of importance. It holds no models, no vectors and no raw files, which are most of a directory's size.
Unpacked anywhere, it is a persistent directory on which `nlproar report` works; runs that explain a model need the
model.
"""

from __future__ import annotations

import logging
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from nlproar import plugins, storage
from nlproar.dataset import TASKS, load_task
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.paths import user_path
from nlproar.progress import show_log, stage
from nlproar.run import record
from nlproar.run.config import Options, all_but
from nlproar.run.layout import Layout
from nlproar.script import Parser, exit_codes

log = logging.getLogger(__name__)

_PATTERNS = ("results/*/*.json", "logs/failed/*.txt")
_CACHES = ("encoded", "masks", "importance", "observations", "predictions", "convergence")
# What derives from texts, so that these could be read from it.
_DERIVED = ("results/importance_measure/*", *(f"cache/{name}/*" for name in _CACHES))
_FORMATS = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}


def main(description: str, argv: list[str] | None = None) -> None:
    """Write the archive that a command line asks for. Exits with 0 when it is there, else as `exit_codes` says."""
    with exit_codes("interrupted; nothing was written"):
        plugins.load_named(argv)
        parser = Parser(description)
        add_flags(parser, Options, without=all_but("persistent_dir", "plugin"))
        parser.add_argument(
            "--out", default="nlproar-results.tar.gz", metavar="FILE",
            help="the archive, .tar, .tar.gz or .tar.xz (default: nlproar-results.tar.gz)",
        )  # fmt: skip
        parser.add_argument(
            "--caches", action="store_true", default=None,
            help="include what derives from texts in any case; by default it is included unless a task is confidential"
            " or unknown",
        )  # fmt: skip
        flags = parser.parse_args(argv)
        show_log()
        packed = pack(
            Layout.at(getattr(flags, "persistent_dir", None)), Path(user_path("--out", flags.out)), flags.caches
        )
        print(f"packed: {packed} files in {flags.out}")


def pack(layout: Layout, out: Path, caches: bool | None = None) -> int:
    """Write the archive `out`, and return the number of files in it.

    `caches` says whether the encoded data, masks and importance are in it, which the report needs for sparsity,
    convergence and the observations it shows. By default they are, unless a record or one of these files is of a
    confidential task, or a file is of a task that is not known here: from them, texts could be read. An archive with
    anything of a confidential task is for its owner only. Raises UserError where there is no record, where one is
    damaged, and for a name that is not that of an archive.
    """
    mode = _FORMATS.get(out.suffix)
    if mode is None:
        raise UserError(f"--out {out}: name a file that ends in .tar, .tar.gz or .tar.xz")
    records = layout.records()
    if not records:
        raise UserError(f"there is no record in {layout.results}; name another folder with --persistent-dir")
    confidential = _is_confidential(layout, records)
    with_caches = not confidential if caches is None else caches
    paths = list(_files(layout, with_caches))
    packed = 0
    with storage.owner_only(confidential), storage.whole_file(out) as file:
        if confidential:
            os.fchmod(file.fileno(), 0o600)
        with tarfile.open(fileobj=file, mode=mode) as archive, stage("packing", len(paths), "files") as bar:  # type: ignore[call-overload]
            for path in paths:
                with suppress(FileNotFoundError), storage.open_file(path) as content:  # it may be gone meanwhile
                    # Its size is that of the open file, which another process may replace in the folder.
                    member = archive.gettarinfo(arcname=str(path.relative_to(layout.root)), fileobj=content)
                    archive.addfile(_anonymous(member), content)
                    packed += 1
                bar.update(1)
    return packed


def _is_confidential(layout: Layout, records: Iterable[Path]) -> bool:
    """Return whether a record, or what derives from texts, is of a confidential task, or of one of which neither a
    record nor a registered task says that it is not. Raises UserError for a damaged record."""
    known = {name: load_task(name).confidential for name in TASKS}
    for path in records:
        one = record.load(path)
        if one.task["confidential"]:
            return True
        known.setdefault(str(one.identity["dataset"]), False)
    secret = tuple(f"{name}{end}" for name, confidential in known.items() if confidential for end in "_-")
    derived = [path for pattern in _DERIVED for path in layout.root.glob(pattern)]
    if any(path.name.startswith(secret) for path in derived):
        return True
    # Importance is not named by its task, but none is there without the encoded data, which are: task_source-hash.npz.
    for path in layout.root.glob("cache/encoded/[!.]*.npz"):
        if path.name.rpartition("-")[0].rpartition("_")[0] not in known:
            log.warning("%s is of a task that is not known here, and may be confidential; see --caches", path)
            return True
    return False


def _files(layout: Layout, with_caches: bool) -> Iterator[Path]:
    """Yield the files to pack. Hidden ones, such as locks and what is half written, are not among them."""
    for pattern in (*_PATTERNS, *_DERIVED) if with_caches else _PATTERNS:
        for path in sorted(layout.root.glob(pattern)):
            with suppress(FileNotFoundError):  # it was replaced meanwhile
                if not path.name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                    yield path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without the names of a user and a group, which are nobody's business elsewhere."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
