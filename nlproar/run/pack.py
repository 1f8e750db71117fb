"""`nlproar pack`: the results of a persistent directory as one archive, to take home from a cluster.

It holds the records and what the report reads besides: encoded data, masks, importance, and what was measured on the
models. It holds no models, no vectors and no raw files, which are most of a directory's size. Unpacked anywhere, it is
a persistent directory on which `nlproar report` works; runs that explain a model need the model.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from nlproar import storage
from nlproar.errors import UserError
from nlproar.flags import add_flags
from nlproar.progress import show_log, stage
from nlproar.run import record
from nlproar.run.config import Options, all_but
from nlproar.run.layout import Layout
from nlproar.script import Parser, exit_codes

_PATTERNS = ("results/*/*", "logs/failed/*.txt")
_CACHES = ("encoded", "masks", "importance", "observations", "predictions", "convergence")
_FORMATS = {".tar": "w", ".gz": "w:gz", ".xz": "w:xz"}


def main(description: str, argv: list[str] | None = None) -> None:
    """Write the archive that a command line asks for. Exits with 0 when it is there, else as `exit_codes` says."""
    with exit_codes("interrupted; nothing was written"):
        parser = Parser(description, "nlproar pack")
        add_flags(parser, Options, without=all_but("persistent_dir"))
        parser.add_argument(
            "--out", default="nlproar-results.tar.gz", metavar="FILE",
            help="the archive, .tar, .tar.gz or .tar.xz (default: nlproar-results.tar.gz)",
        )  # fmt: skip
        parser.add_argument(
            "--caches", action="store_true", default=None,
            help="include what derives from texts even if a task is confidential (default: yes, unless one is)",
        )  # fmt: skip
        flags = parser.parse_args(argv)
        show_log()
        packed = pack(Layout.at(getattr(flags, "persistent_dir", None)), Path(flags.out), flags.caches)
        print(f"packed: {packed} files in {flags.out}")


def pack(layout: Layout, out: Path, caches: bool | None = None) -> int:
    """Write the archive `out`, and return the number of files in it.

    `caches` says whether the encoded data, masks and importance are in it, which the report needs for sparsity,
    convergence and the observations it shows. By default they are, unless a record is of a confidential task: from
    these, texts could be read. An archive with anything of a confidential task is for its owner only. Raises UserError
    where there is no record, where one is damaged, and for a name that is not that of an archive.
    """
    mode = _FORMATS.get(out.suffix)
    if mode is None:
        raise UserError(f"--out {out}: name a file that ends in .tar, .tar.gz or .tar.xz")
    records = layout.records()
    if not records:
        raise UserError(f"there is no record in {layout.results}; name another folder with --persistent-dir")
    confidential = any(record.load(path).task["confidential"] for path in records)
    with_caches = not confidential if caches is None else caches
    paths = list(_files(layout, with_caches))
    with storage.owner_only(confidential), storage.whole_file(out) as file:
        if confidential:
            os.fchmod(file.fileno(), 0o600)
        with tarfile.open(fileobj=file, mode=mode) as archive, stage("packing", len(paths), "files") as bar:  # type: ignore[call-overload]
            for path in paths:
                archive.add(path, arcname=str(path.relative_to(layout.root)), recursive=False, filter=_anonymous)
                bar.update(1)
    return len(paths)


def _files(layout: Layout, with_caches: bool) -> Iterator[Path]:
    """Yield the files to pack. Hidden ones, such as locks and what is half written, are not among them."""
    patterns = [*_PATTERNS, *(f"cache/{name}/*" for name in _CACHES if with_caches)]
    for pattern in patterns:
        for path in sorted(layout.root.glob(pattern)):
            if not path.name.startswith(".") and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without the names of a user and a group, which are nobody's business elsewhere."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
