"""What a file is, by its first bytes: for messages about files that are not what they should be."""

from __future__ import annotations

import re

_MAGIC = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard"),
    (b"\x04\x22\x4d\x18", "compressed with LZ4"),
    (b"LZIP", "compressed with lzip"),
    (b"\x5d\x00\x00", "compressed with LZMA"),
    (b"\x1f\x9d", "compressed with compress"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database, as a .magnitude file is"),
    (b"GGUF", "a GGUF file"),
    (b"%PDF", "a PDF document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a Git LFS pointer, which only names the file that `git lfs pull` fetches"),
)
_COMPRESSED = (b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ")  # what is read as if it were not
_UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_FASTTEXT = (793_712_314).to_bytes(4, "little")  # FASTTEXT_FILEFORMAT_MAGIC_INT32 in fastText's fasttext.h
_ENOUGH = 1 << 16  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HTML = re.compile(rb"\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body|title|script|meta)\b", re.I | re.S)
_XML = re.compile(rb"\s*<(\?xml\s|!doctype\s|error>|svg\s)", re.I)
_JSON = re.compile(rb'\s*(\{\s*("|\})|\[\s*["\[{\]])')
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp\d+\n|\(lp\d+\n|ccopy_reg\n|c__builtin__\n")
_SAFETENSORS = re.compile(rb".{6}\x00\x00\{\s*\"", re.S)  # the length of the JSON that follows, in eight bytes
_LIKE_A_PATH = re.compile(rb"\.{0,2}/\S+\s*")
_WORD2VEC = re.compile(rb"\d+ \d+\s*\n")
_NO_TEXT = bytes(sorted({*range(32), 127} - set(b"\t\n\v\f\r\x1b")))  # control characters that texts do not have


def describe(start: bytes) -> str | None:
    """What a file is that begins with `start`, to follow "is"; None for text without a mark of its own.

    Some hundred bytes are enough, 512 for a tar archive.
    """
    if not start:
        return "empty"
    text = start.removeprefix(_BYTE_ORDER_MARK)[:_ENOUGH]
    return _by_magic(start) or _by_markup(text) or _by_encoding(start) or _by_content(text)


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins with `start` is compressed in a way that this package reads."""
    return start.startswith(_COMPRESSED)


def _by_magic(start: bytes) -> str | None:
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start[257:262] == b"ustar":
        return "a tar archive"
    if start.startswith(_FASTTEXT):
        return "a model in fastText's binary format (.bin or .ftz)"
    if _PICKLE.match(start):
        return "a Python pickle, as gensim and PyTorch write"
    if _SAFETENSORS.match(start):
        return "a safetensors file"
    return None


def _by_markup(text: bytes) -> str | None:
    if _HTML.match(text):
        return "an HTML page"
    if _XML.match(text):
        return "an XML document"
    if _JSON.match(text):
        return "JSON"
    if _LIKE_A_PATH.fullmatch(text):
        return "nothing but a path, as where a link was copied as text"
    return None


def _by_encoding(start: bytes) -> str | None:
    if start.startswith(_UTF_32):
        return "text in UTF-32"
    if start.startswith(_UTF_16) or _is_utf16_without_mark(start):
        return "text in UTF-16"
    return None


def _is_utf16_without_mark(start: bytes) -> bool:
    """Of Latin letters in UTF-16 every other byte is NUL, and the bytes between are not."""
    even, odd = start[0::2], start[1::2]
    few, many = sorted((even.count(0), odd.count(0)))
    return len(start) >= 8 and few == 0 and many > len(odd) * 0.9


def _by_content(text: bytes) -> str | None:
    is_binary = is_no_text(text)
    if _WORD2VEC.match(text) and is_binary:
        return "in word2vec's binary format"
    return "binary data" if is_binary else None


def is_no_text(start: bytes) -> bool:
    """Whether `start` has bytes that no UTF-8 text has. A character that is cut at its end is no such byte."""
    if start.translate(None, _NO_TEXT) != start:
        return True
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start < len(start) - 3
    return False
