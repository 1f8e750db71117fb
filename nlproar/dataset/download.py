"""Downloads: one process fetches a file, and it appears when it is whole and verified."""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path
from typing import IO

from nlproar import storage
from nlproar.dataset import formats
from nlproar.dataset.sources import Source
from nlproar.errors import UserError

log = logging.getLogger(__name__)

_SECONDS_OF_SILENCE = 60  # after which a server is given up
_BLOCK = 1 << 16  # bytes
_START = 1 << 10  # bytes that tell what a file is


class _NotTheFile(Exception):
    """What came is not what was published."""


def download(source: Source, folder: Path) -> Path:
    """Fetch `source` into `folder` from the first address that answers, and return its path.

    The file has a random temporary name until it is whole and verified, so that other downloads into the folder do not
    touch it. Of several processes that want the same file one fetches it, and the others wait. Raises UserError where
    no address has it.
    """
    import requests

    target = folder / source.filename
    with storage.lock(target):
        if target.is_file():  # another process was faster
            return target
        if target.is_symlink() or target.exists():
            kind = "a folder" if target.is_dir() else "a link to nowhere" if target.is_symlink() else "no file"
            raise UserError(f"{target} is {kind}; move it away")
        reasons = []
        for url in source.urls:
            size = f" ({source.bytes:,} bytes)" if source.bytes else ""
            log.info("downloading %s%s", url, size)
            try:
                with storage.whole_file(target) as file:
                    _fetch(url, source.sha256, file)
                return target
            except (requests.RequestException, _NotTheFile) as error:
                reasons.append(f"{url} ({_reason(error)})")
    raise UserError(
        f"could not download {'; '.join(reasons)}. Fetch {source.urls[0]} elsewhere"
        f" (sha256 {source.sha256 or 'not published'}) and put it at {target}"
    )


def _fetch(url: str, sha256: str | None, file: IO[bytes]) -> None:
    """Write what `url` has to `file`. Raises _NotTheFile where that is something else than was published."""
    import pooch

    received = _Received(file)
    fetch = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=_BLOCK, timeout=_SECONDS_OF_SILENCE)
    fetch(url, received, None)
    if sha256 is not None and received.hash.hexdigest() != sha256:
        raise _NotTheFile("wrong checksum")
    if sha256 is None:
        page = formats.describe(bytes(received.start))
        if page in ("empty", "an HTML page", "an XML document", "JSON"):
            raise _NotTheFile(f"what it sends is {page}")


class _Received:
    """Writes to a file, and keeps a hash of everything and the first bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.hash = hashlib.sha256()
        self.start = bytearray()

    def write(self, block: bytes) -> None:
        self.file.write(block)
        self.hash.update(block)
        if len(self.start) < _START:
            self.start += block[:_START]

    def flush(self) -> None:
        """Nothing: pooch asks for it after every block, and the file is flushed when it is closed."""


def _reason(error: Exception) -> str:
    """Why an address was given up, in some words."""
    if isinstance(error, _NotTheFile):
        return str(error)
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return type(error).__name__
