"""From the bytes of a raw file to its text, and what to say of bytes that are no text.

All raw files are UTF-8. A byte order mark at the start is no part of the text and is dropped. A line has a longest
length, so that a file without line ends is refused before it fills the memory.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from nlproar.errors import UserError

LONGEST_LINE = 8 << 20  # bytes; the longest line of any published file has less than 100,000
_BLOCK = 1 << 16  # bytes that are read at a time
_START = 512  # bytes that are looked at to tell what a file is
_MARK = b"\xef\xbb\xbf"
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
_ARCHIVES = (
    b"\x1f\x8b\x08",
    b"BZh",
    b"\xfd7zXZ",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"7z\xbc\xaf",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)
_HTML = re.compile(rb"\s*<(!doctype\s+html|html[\s>])", re.IGNORECASE)
_LIKE_A_PATH = re.compile(rb"\.{0,2}/[^\s]+")


def is_html(start: bytes) -> bool:
    """Whether a file that starts so is a web page, such as the error page of a download."""
    return _HTML.match(start.removeprefix(_MARK)) is not None


def is_git_lfs_pointer(start: bytes) -> bool:
    """Whether a file that starts so only names a file that Git LFS would fetch."""
    return start.startswith(b"version https://git-lfs")


def what_instead(start: bytes, whole: bool = False) -> str | None:
    """What a file that should be text is instead, by its first bytes, and what to do; None if it may be text.

    `whole` says that `start` is all of the file.
    """
    if start.startswith(_UTF_16_OR_32):
        return "this is UTF-16 (or UTF-32) text; save it as UTF-8"
    if start.startswith(_ARCHIVES):
        return "this is a compressed file or an archive, not text; unpack it"
    if is_html(start):
        return "this is an HTML page, not the file; download it again"
    if is_git_lfs_pointer(start):
        return "this is a Git LFS pointer, not the file; fetch the file with git lfs pull"
    if whole and _LIKE_A_PATH.fullmatch(start):
        return "this holds nothing but a path: a link that was copied as text; put the file itself there"
    return None


def read_all(file: IO[bytes], place: str) -> str:
    """The whole text of a small file. Raises UserError, naming `place`, where it is no text, or too long."""
    content = file.read(LONGEST_LINE + 1)
    if len(content) > LONGEST_LINE:
        raise UserError(f"{place}: more than {_mebibytes(LONGEST_LINE)}, which no published file has; replace it")
    if instead := what_instead(content[:_START]):
        raise UserError(f"{place}: {instead}")
    content = _without_marks(content)
    if b"\0" in content:
        raise _has_nul(place, 1 + content.count(b"\n", 0, content.index(b"\0")))
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(place, 1 + content.count(b"\n", 0, error.start)) from None


@contextmanager
def open_lines(file: IO[bytes], place: str, newline: str = "\n") -> Iterator[io.TextIOWrapper]:
    """The text of a large file as a stream of lines.

    Raises UserError, naming `place` and the line, where the file is no text or a line is too long. With `newline=""`
    the lines are as the module `csv` wants them; by default only a line feed ends a line.
    """
    checked = _CheckedBytes(file, place)
    try:
        yield io.TextIOWrapper(cast(IO[bytes], checked), "utf-8", newline=newline)
    except UnicodeDecodeError as error:
        line = checked.lines_before + error.object.count(b"\n", 0, error.start) + 1
        raise _not_utf8(place, line) from None


class _CheckedBytes(io.BufferedIOBase):
    """A binary stream that looks at every block that is read from it: for a byte order mark at the start, which is
    dropped, and for what no text holds, which is refused."""

    def __init__(self, file: IO[bytes], place: str) -> None:
        self._file = file
        self._place = place
        self._at_start = True
        self._read = 0  # line feeds in all blocks so far
        self._open_line = 0  # bytes since the last line feed
        self.lines_before = 0  # line feeds before the last block

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1, /) -> bytes:
        block = self._first_block() if self._at_start else self._file.read(max(size, _BLOCK))
        self.lines_before = self._read
        self._look(block)
        return block

    def read(self, size: int | None = -1, /) -> bytes:
        raise io.UnsupportedOperation("read")  # TextIOWrapper calls read1

    def _first_block(self) -> bytes:
        self._at_start = False
        block = self._file.read(_START)
        whole = len(block) < _START
        if instead := what_instead(block, whole):
            raise UserError(f"{self._place}: {instead}")
        block = _without_marks(block)
        if not block and not whole:  # an empty block would mean the end of the file
            return self._file.read(_BLOCK)
        return block

    def _look(self, block: bytes) -> None:
        if b"\0" in block:
            raise _has_nul(self._place, self._read + block.count(b"\n", 0, block.index(b"\0")) + 1)
        count = block.count(b"\n")
        # a block is far shorter than the longest line, so only the line that began before it can be too long
        first_end = block.find(b"\n") if count else len(block)
        if self._open_line + first_end > LONGEST_LINE:
            raise UserError(
                f"{self._place}, line {self._read + 1}: more than {_mebibytes(LONGEST_LINE)} without an end of line,"
                " which no published file has; replace the file"
            )
        if count:
            self._open_line = len(block) - 1 - block.rindex(b"\n")
        else:
            self._open_line += len(block)
        self._read += count


def _without_marks(content: bytes) -> bytes:
    """`content` without the byte order mark at its start; programs that each add one leave several."""
    while content.startswith(_MARK):
        content = content[len(_MARK) :]
    return content


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"


def _not_utf8(place: str, line: int) -> UserError:
    return UserError(f"{place}, line {line}: not UTF-8 text; save the file as UTF-8, or replace it")


def _has_nul(place: str, line: int) -> UserError:
    return UserError(f"{place}, line {line}: a NUL byte, which no text has; save the file as UTF-8, or replace it")
