"""A text file of word vectors of any size, read in one pass that keeps the words of a vocabulary.

One word a line, then its E numbers, separated by blanks or tabs. A first line of two integers is a header: the number
of words, and E. The file may be compressed with gzip, bzip2 or xz, or be the only such file in a zip archive.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from nlproar.dataset import formats
from nlproar.dataset import raw as raw_files
from nlproar.dataset.vocabulary import Vocabulary
from nlproar.errors import UserError
from nlproar.progress import stage

_BLOCK = 1 << 20  # bytes
_LONGEST_LINE = 1 << 20  # bytes; a line of 300 numbers has some 3,000
_SAMPLE = 1000  # lines
_NO_NUL = 512  # bytes at the start that have no NUL in a text; those of a tar archive have, and text may follow
_LINES_A_STEP = 10_000  # between two steps of the bar
_HEADER = re.compile(rb"(\d{1,12})[ \t]+(\d{1,6})\s*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

READABLE = (
    "name a text file with one word and its numbers a line (plain, in a zip archive, or compressed with gzip, bzip2"
    " or xz)"
)
_REMEDIES = {  # of some formats, by the words of `formats.describe`
    "in word2vec's binary format": (
        "gensim converts it: KeyedVectors.load_word2vec_format(NAME, binary=True).save_word2vec_format('vectors.txt')"
    ),
    "a model in fastText's binary format (.bin or .ftz)": "the .vec file of the same vectors is text",
    "text in UTF-16": "convert it with iconv -f UTF-16 -t UTF-8",
    "text in UTF-32": "convert it with iconv -f UTF-32 -t UTF-8",
    "an HTML page": "it is what a server sent instead of the file; download the file again",
}


@dataclass(frozen=True)
class VectorText:
    """What a file holds for a vocabulary of V words."""

    known: np.ndarray  # (V,) bool: which words have a vector
    vectors: np.ndarray  # (V, E) float32, zero for the others
    lines: int  # with a vector, of all words
    announced: int | None  # the number of words that the header states, if there is one


@dataclass(frozen=True)
class _Form:
    """How the lines of a file are made, by its start."""

    header: bool
    announced: int | None
    dimensions: int


def read(file: Path, vocabulary: Vocabulary) -> VectorText:
    """The vectors of the words of `vocabulary` in `file`; of a word that stands there twice, the first.

    Raises UserError where the file is no text file of vectors (with what it is), has no vector of these words, or a
    vector of them of another length or with a number that is not finite (with its line).
    """
    with open_vectors(file) as stream, stage(f"reading {file.name}", None, "lines") as bar:
        start = _first_block(stream)
        form = _recognise(file, start)
        found: dict[int, np.ndarray] = {}
        wanted = {word.encode(): number for word, number in vocabulary.ids.items()}
        number = words = 0
        for number, line in enumerate(_lines(file, start, stream), start=1):
            if number % _LINES_A_STEP == 0:
                bar.update(_LINES_A_STEP)
            if number == 1 and form.header:
                continue
            parts = line.split(None, 1)
            if not parts:
                continue
            words += 1
            index = wanted.get(parts[0])
            if index is None or index in found:
                continue
            values = _vector(line, file, number, form.dimensions)
            if values is not None:
                found[index] = values
        bar.update(number % _LINES_A_STEP)
    if not found:
        raise UserError(
            f"{file}: none of its {words:,} words occurs in the data (its vectors have {form.dimensions} numbers);"
            " check that it is the right file"
        )
    known = np.zeros(len(vocabulary), bool)
    vectors = np.zeros((len(vocabulary), form.dimensions), np.float32)
    for index, values in found.items():
        known[index] = True
        vectors[index] = values
    return VectorText(known, vectors, words, form.announced)


def count_words(file: Path) -> tuple[int, int | None]:
    """The number of lines with a vector, and the number that the header states. Raises UserError as `read` does."""
    with open_vectors(file) as stream, stage(f"counting the lines of {file.name}", None, "lines") as bar:
        start = _first_block(stream)
        form = _recognise(file, start)
        words = sum(1 for line in _lines(file, start, stream) if line.strip())
        bar.update(words)
    return words - form.header, form.announced


@contextmanager
def open_vectors(file: Path) -> Iterator[IO[bytes]]:
    """The text in a file that may be compressed, by its first bytes; a zip archive must hold one .txt or .vec file."""
    with raw_files.broken_archive_named(file):
        with open(file, "rb") as start:
            is_zip = start.read(2) == b"PK"
        if not is_zip:
            with raw_files.open_compressed(file) as stream:
                yield stream
            return
        with zipfile.ZipFile(file) as archive, archive.open(member(file, archive)) as stream:
            yield stream


def member(file: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one text file of vectors in the zip archive `file`. Raises UserError where there is none, or more."""
    names = [name for name in archive.namelist() if not _is_clutter(name)]
    texts = [name for name in names if name.lower().endswith((".txt", ".vec"))]
    if len(texts) == 1:
        return archive.getinfo(texts[0])
    if texts:
        raise UserError(f"{file} holds {len(texts)} text files ({_shown(texts)}); unpack it and name one of them")
    what = "a zip archive without a .txt or .vec file"
    if any(name.endswith("data.pkl") for name in names):
        what = "a PyTorch file"
    elif names and all(name.endswith(".npy") for name in names):
        what = "a NumPy archive (.npz)"
    raise UserError(f"{file} is {what} (it holds {_shown(names) or 'nothing'}); {READABLE}")


def _is_clutter(name: str) -> bool:
    """Whether a member is what macOS adds to a zip archive, or a folder."""
    path = PurePosixPath(name)
    return name.endswith("/") or "__MACOSX" in path.parts or path.name.startswith("._")


def _shown(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _first_block(stream: IO[bytes]) -> bytes:
    """The first mebibyte, or all of a shorter file; a compressed file gives less at a time."""
    start = b""
    while len(start) < _BLOCK:
        block = stream.read(_BLOCK - len(start))
        if not block:
            break
        start += block
    return start


def _lines(file: Path, start: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file whose first bytes, `start`, are read already; without the mark of UTF-8 and the line ends."""
    rest = b""
    number = 0
    block = start.removeprefix(_BYTE_ORDER_MARK)
    while block:
        lines = (rest + block).split(b"\n")
        rest = lines.pop()
        yield from lines
        number += len(lines)
        if len(rest) > _LONGEST_LINE:
            raise UserError(
                f"{file}, line {number + 1}: longer than {_LONGEST_LINE:,} bytes, so it is not a vector; {READABLE}"
            )
        block = stream.read(_BLOCK)
    if rest:
        yield rest


def _recognise(file: Path, start: bytes) -> _Form:
    """The form of a file that begins with `start`. Raises UserError where that is no text file of vectors."""
    lines = start.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    if len(start) >= _BLOCK:
        lines.pop()  # it may be cut
    if b"\0" in start[:_NO_NUL]:
        raise _no_vectors(file, start)
    if b"\r" in start and b"\n" not in start:
        raise UserError(f"{file}: its lines end with a carriage return only; convert it with tr '\\r' '\\n'")
    header = _header(lines[0]) if lines else None
    sample = [line for line in lines[1 if header else 0 :] if line.strip()][:_SAMPLE]
    if header and not sample and formats.describe(start) is None:
        raise UserError(f"{file} holds a header, but no vector; {READABLE}")
    lengths = Counter(_numbers_at_end(line) for line in sample)
    del lengths[0]  # a line without a number at its end says nothing
    if not lengths:
        raise _no_vectors(file, start)
    dimensions, frequency = lengths.most_common(1)[0]
    if 2 * frequency < len(sample):
        raise _no_vectors(file, start)
    if header and header[1] != dimensions:
        raise UserError(
            f"{file}: its first line announces {header[1]} numbers a word, but its lines have {dimensions};"
            " replace the file, or correct its first line"
        )
    return _Form(header is not None, header[0] if header else None, dimensions)


def _header(line: bytes) -> tuple[int, int] | None:
    """The number of words and of dimensions, if `line` is two integers and nothing else."""
    found = _HEADER.fullmatch(line)
    return (int(found[1]), int(found[2])) if found else None


def _numbers_at_end(line: bytes) -> int:
    """How many numbers end a line, of all its parts but the first: a word with blanks has parts before them."""
    count = 0
    for part in reversed(line.split()[1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    return count


def _no_vectors(file: Path, start: bytes) -> UserError:
    """What a file is that does not start with vectors."""
    what = formats.describe(start)
    if what:
        remedy = _REMEDIES.get(what)
        more = f"{remedy}, or {READABLE}" if remedy else READABLE
        return UserError(f"{file} {_relation(file)} {what}, not a text file of vectors; {more}")
    if b"\n" not in start and len(start) >= _BLOCK:
        return UserError(f"{file} has no end of line in its first {_BLOCK:,} bytes, so it holds no vector; {READABLE}")
    hint = ", separated by blanks" if start.count(b",") > start.count(b" ") else ""
    return UserError(f"{file} holds no vector: most of its first lines are not a word and numbers{hint}; {READABLE}")


def _relation(file: Path) -> str:
    """How a file relates to the content that is read from it."""
    with open(file, "rb") as start:
        compressed = formats.is_compressed(start.read(8))
    return "holds a file that is" if compressed else "is"


def _vector(line: bytes, file: Path, number: int, dimensions: int) -> np.ndarray | None:
    """The vector in a line; None where its first part is not its word: words may have blanks, as in GloVe 840B."""
    parts = line.split()[1:]
    try:
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused below
            values = np.array(parts, dtype=np.float32)
    except ValueError:
        if len(parts) > dimensions:
            return None
        raise UserError(f"{file}, line {number}: not {dimensions} numbers after the word; replace the file") from None
    if len(values) == dimensions - 1 and line[:1].isspace():
        return None  # the word is a blank, and what seemed to be it is a number
    if len(values) != dimensions:
        raise UserError(
            f"{file}, line {number}: {len(values)} numbers after the word instead of {dimensions}; replace the file"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{file}, line {number}: a number that is not finite; replace the file")
    return values
