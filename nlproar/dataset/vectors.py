"""Word vectors: one pass over a text file of any size that keeps the words of a vocabulary."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

from nlproar import storage
from nlproar.dataset import raw as raw_files
from nlproar.dataset.sources import VECTORS
from nlproar.dataset.vocabulary import PAD, Vocabulary
from nlproar.errors import UserError
from nlproar.progress import stage

log = logging.getLogger(__name__)

_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


def initial_embedding(
    vocabulary: Vocabulary, file: Path | None, unknown: str, dimensions: int, seed: int, cache_dir: Path
) -> np.ndarray:
    """(V, E) float32, the embedding a model starts from; the row of [PAD] is zero.

    Vectors come from `file`; a word it lacks, and every special token, gets zeros or, where `unknown` is "normal",
    standard normal draws from `seed`. Without `file` all are drawn, E = `dimensions`.
    """
    known, vectors = np.zeros(len(vocabulary), bool), np.zeros((len(vocabulary), dimensions), np.float32)
    if file:
        key = {"file": storage.fingerprint(file), "words": storage.digest(vocabulary.words)}
        path = cache_dir / "vectors" / f"{file.name.partition('.')[0]}-{storage.digest(key)[:8]}.npz"
        arrays = storage.cached(path, key, lambda: read(file, vocabulary))
        known, vectors = arrays["known"], arrays["vectors"]
        log.info("%s of %s words have a vector in %s", f"{known.sum():,}", f"{len(vocabulary.words):,}", file.name)
    if unknown == "normal" or not file:
        draws = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
        vectors = np.where(known[:, None], vectors, draws)
    vectors[PAD] = 0
    return vectors


def find(name: str, raw_dir: Path) -> Path:
    """The file of the published vectors `name`, a key of `sources.VECTORS`; downloads it if need be."""
    source = VECTORS[name]
    folder = raw_dir / source.folder
    for suffix in ("", ".gz", ".zip", ".xz", ".bz2"):
        path = folder / (source.filename + suffix)
        if path.is_file():
            return path
    try:
        return raw_files.download(source, folder)
    except UserError as error:
        raise UserError(f"{error}; or name any text file of vectors with --vectors PATH") from error


def read(file: Path, vocabulary: Vocabulary) -> storage.Arrays:
    """`known` (V,) bool and `vectors` (V, E) float32 of the words of `vocabulary` in a text file of vectors.

    One word a line, then E numbers. A first line of two integers is a header. Raises UserError with the line where
    the file has no vector, no vector of these words, or vectors of different lengths.
    """
    found: dict[int, np.ndarray] = {}
    wanted: Mapping[bytes, int] = {word.encode(): number for word, number in vocabulary.ids.items()}
    dimensions = 0
    with _open(file) as lines, stage(f"reading {file.name}", None, "lines") as bar:
        for number, line in enumerate(lines, start=1):
            if number % 10_000 == 0:
                bar.update(10_000)
            word, _, rest = line.strip().partition(b" ")
            if number == 1 and word.isdigit() and rest.isdigit():
                continue
            if not dimensions and word:
                dimensions = len(rest.split())
            index = wanted.get(word)
            if index is not None and index not in found:
                values = _numbers(rest, file, number, dimensions)
                if values is not None:
                    found[index] = values
    if not dimensions:
        raise UserError(f"{file} holds no vector; name a text file with one word and its numbers a line")
    if not found:
        raise UserError(f"{file}: none of its words occurs in the data, the first has {dimensions} numbers; check it")
    known, vectors = np.zeros(len(vocabulary), bool), np.zeros((len(vocabulary), dimensions), np.float32)
    for index, values in found.items():
        known[index], vectors[index] = True, values
    return {"known": known, "vectors": vectors}


def _numbers(text: bytes, file: Path, line: int, dimensions: int) -> np.ndarray | None:
    """The vector in `text`; None where the "word" was only the start of one with spaces, as GloVe 840B has."""
    parts = text.split()
    try:
        values = np.array(parts, dtype=np.float32)
    except ValueError:
        if len(parts) > dimensions:
            return None
        raise UserError(f"{file}, line {line}: not {dimensions} numbers after the word; replace the file") from None
    if len(values) != dimensions or not dimensions:
        raise UserError(
            f"{file}, line {line}: {len(values)} numbers, the first line has {dimensions}; replace the file"
        )
    return values


@contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    """The lines of a file that may be compressed, by its first bytes; a zip must hold one .txt or .vec file."""
    with raw_files.broken_archive_named(file):
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                names = [n for n in archive.namelist() if n.endswith((".txt", ".vec")) and "__MACOSX" not in n]
                if len(names) != 1:
                    raise UserError(f"{file} holds {len(names)} files of vectors {names}; unpack it and name one")
                with archive.open(names[0]) as member:
                    yield member
            return
        with open(file, "rb") as start:
            opener = _OPENERS.get(start.read(2), open)
        with opener(file, "rb") as lines:  # type: ignore[operator]
            yield cast(IO[bytes], lines)
