"""Word vectors: one pass over a text file of any size that keeps the words of a vocabulary."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from nlproar import storage
from nlproar.dataset import raw as raw_files
from nlproar.dataset.download import download
from nlproar.dataset.encoding import Dataset
from nlproar.dataset.sources import VECTORS
from nlproar.dataset.task import Task
from nlproar.dataset.vocabulary import PAD, SPECIALS, Vocabulary
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint
from nlproar.progress import stage

log = logging.getLogger(__name__)


def initial_embedding(known: np.ndarray, vectors: np.ndarray, unknown: str, seed: int) -> np.ndarray:
    """(V, E) float32, the embedding a model starts from; the row of [PAD] is zero.

    Rows that are not `known` (V,) get zeros or, where `unknown` is "normal", standard normal draws from `seed`.
    """
    draws = np.zeros_like(vectors)
    if unknown == "normal":
        draws = np.random.default_rng(seed).standard_normal(vectors.shape).astype(np.float32)
    embedding = np.where(known[:, None], vectors, draws)
    embedding[PAD] = 0
    return embedding


def no_vectors(vocabulary: Vocabulary, dimensions: int) -> storage.Arrays:
    """None is known: for embeddings that are drawn."""
    return {"known": np.zeros(len(vocabulary), bool), "vectors": np.zeros((len(vocabulary), dimensions), np.float32)}


def from_file(file: Path, vocabulary: Vocabulary, cache_dir: Path) -> storage.Arrays:
    """What `read` finds, read once."""
    arrays = _cut(file, vocabulary, cache_dir)
    known = arrays["known"].sum()
    log.info("%s of %s words have a vector in %s", f"{known:,}", f"{len(vocabulary.words):,}", file.name)
    return arrays


def _cut(file: Path, vocabulary: Vocabulary, cache_dir: Path) -> storage.Arrays:
    """The vectors in `file`, cut to the words of `vocabulary`: from the cache, or read and put there."""
    key = {"file": fingerprint(file, cache_dir), "words": storage.digest(vocabulary.words)}
    path = cache_dir / "vectors" / f"{file.name.partition('.')[0]}-{storage.digest(key)[:8]}.npz"
    return storage.cached(path, key, partial(read, file, vocabulary))


def from_training_data(dataset: Dataset, name: str, dimensions: int, seed: int, cache_dir: Path) -> storage.Arrays:
    """Word2vec of the words of the training split, trained once. `name` is for the file."""
    key = _word2vec_key(dataset, dimensions, seed)
    path = cache_dir / "vectors" / f"word2vec_{name}-{storage.digest(key)[:8]}.npz"
    return storage.cached(path, key, partial(train_word2vec, dataset, dimensions, seed))


def _word2vec_key(dataset: Dataset, dimensions: int, seed: int) -> dict[str, Any]:
    """Everything that decides what word2vec learns."""
    return {"version": 1, "data": dataset.digest, "dimensions": dimensions, "seed": seed}


def identity(
    name: str | None, file: str | None, dataset: Dataset, task: Task, seed: int, raw_dir: Path, cache_dir: Path
) -> str | None:
    """Twelve digits that tell the initial vectors of two runs apart; None where they are drawn at random.

    `name` and `file` are `vectors` and `vectors_file` of the run's configuration, `seed` is the seed that its vectors
    are made with. Vectors from a file are known by the words of `dataset` that have one and by their numbers, so the
    same vectors are the same in a zip archive, compressed with gzip, or unpacked. Word2vec is known by its training
    data and its parameters. Raises UserError where the file is not there: this function downloads nothing.
    """
    if name == "random":
        return None
    if name == "word2vec":
        return storage.digest(_word2vec_key(dataset, task.random_dimensions, seed))[:12]
    place = Path(file) if file else placed(str(name), raw_dir)
    if place is None or not place.is_file():
        raise UserError(f"the vectors {name} are not there: {place or raw_dir / VECTORS[str(name)].folder}")
    arrays = _cut(place, dataset.vocabulary, cache_dir)
    state = hashlib.sha256(str(arrays["vectors"].shape).encode())
    state.update(arrays["known"].tobytes())
    state.update(arrays["vectors"].tobytes())
    return state.hexdigest()[:12]


def train_word2vec(dataset: Dataset, dimensions: int, seed: int) -> storage.Arrays:
    """Word2vec (Mikolov et al. 2013, arXiv 1301.3781) with gensim: window 10, words that occur twice or more.

    Sees the training split only, several times over; one worker, so that the seed decides the result.
    """
    from gensim.models import Word2Vec

    corpus = _Sentences(dataset)
    model = Word2Vec(vector_size=dimensions, window=10, min_count=2, workers=1, seed=seed % 2**32)
    with stage("training word2vec", model.epochs * len(dataset.splits["train"]), "observations") as bar:
        model.build_vocab(corpus)
        corpus.on_observation = lambda: bar.update(1)
        model.train(corpus, total_examples=model.corpus_count, epochs=model.epochs)
    arrays = no_vectors(dataset.vocabulary, dimensions)
    for word, index in dataset.vocabulary.ids.items():
        if word in model.wv:
            arrays["known"][index], arrays["vectors"][index] = True, model.wv[word]
    return arrays


class _Sentences:
    """The training observations as lists of words, from the start at every pass."""

    def __init__(self, dataset: Dataset) -> None:
        self.split = dataset.splits["train"]
        self.names = dict(enumerate(dataset.vocabulary.words, start=len(SPECIALS)))
        self.on_observation: Callable[[], object] = lambda: None

    def __iter__(self) -> Iterator[list[str]]:
        for start, end in pairwise(self.split.offsets):
            self.on_observation()
            yield [self.names[i] for i in self.split.tokens[start:end].tolist() if i in self.names]


def find(name: str, raw_dir: Path) -> Path:
    """The file of the published vectors `name`, a key of `sources.VECTORS`; downloads it if need be."""
    found = placed(name, raw_dir)
    if found:
        return found
    source = VECTORS[name]
    try:
        return download(source, raw_dir / source.folder)
    except UserError as error:
        raise UserError(f"{error}; or name any text file of vectors with --vectors PATH") from error


def placed(name: str, raw_dir: Path) -> Path | None:
    """The file of the published vectors `name` that is in `raw_dir`, None if there is none."""
    source = VECTORS[name]
    stem = source.filename.removesuffix(".zip").removesuffix(".vec")
    for path in sorted((raw_dir / source.folder).glob(f"{stem}*")):  # unpacked or compressed
        if path.is_file():
            return path
    return None


def read(file: Path, vocabulary: Vocabulary) -> storage.Arrays:
    """`known` (V,) bool and `vectors` (V, E) float32 of the words of `vocabulary` in a text file of vectors.

    One word a line, then E numbers. A first line of two integers is a header. Raises UserError with the line where
    the file has no vector, no vector of these words, or vectors of different lengths.
    """
    found: dict[int, np.ndarray] = {}
    wanted: Mapping[bytes, int] = {word.encode(): number for word, number in vocabulary.ids.items()}
    dimensions = announced = number = 0
    with _open(file) as lines, stage(f"reading {file.name}", None, "lines") as bar:
        for number, line in enumerate(lines, start=1):
            if number % 10_000 == 0:
                bar.update(10_000)
            word, rest = (*line.split(None, 1), b"", b"")[:2]
            if number == 1 and word.isdigit() and rest.strip().isdigit():
                announced = int(word)
                continue
            if not dimensions and word:
                dimensions = len(rest.split())
            index = wanted.get(word)
            if index is not None and index not in found:
                values = _numbers(rest, file, number, dimensions)
                if values is not None:
                    found[index] = values
    _check(file, dimensions, len(found), announced, number)
    arrays = no_vectors(vocabulary, dimensions)
    for index, values in found.items():
        arrays["known"][index], arrays["vectors"][index] = True, values
    return arrays


def _check(file: Path, dimensions: int, found: int, announced: int, lines: int) -> None:
    """Refuse a file without a vector of use; warn of one that is shorter than its header says."""
    if announced > lines:
        log.warning("%s announces %s words and has fewer lines: is it cut off?", file, f"{announced:,}")
    if not dimensions:
        raise UserError(f"{file} holds no vector; name a text file with one word and its numbers a line")
    if not found:
        raise UserError(f"{file}: none of its words occurs in the data, the first has {dimensions} numbers; check it")


def _numbers(text: bytes, file: Path, line: int, dimensions: int) -> np.ndarray | None:
    """The vector in `text`; None where the "word" was only the start of one with spaces, as GloVe 840B has."""
    parts = text.split()
    try:
        with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused below
            values = np.array(parts, dtype=np.float32)
    except ValueError:
        if len(parts) > dimensions:
            return None
        raise UserError(f"{file}, line {line}: not {dimensions} numbers after the word; replace the file") from None
    if len(values) != dimensions or not dimensions:
        raise UserError(
            f"{file}, line {line}: {len(values)} numbers, the first line has {dimensions}; replace the file"
        )
    if not np.isfinite(values).all():
        raise UserError(f"{file}, line {line}: a number that is not finite; replace the file")
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
        with raw_files.open_compressed(file) as lines:
            if lines.read(2) == b"PK":
                raise zipfile.BadZipFile("a zip without its end")
            lines.seek(0)
            yield lines
