"""The word vectors that a model starts from: from a file, from the training data, or drawn."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.dataset.encoding import Dataset
from nlproar.dataset.sources import VECTORS
from nlproar.dataset.vector_files import find, placed, published_lines
from nlproar.dataset.vector_text import read
from nlproar.dataset.vocabulary import PAD, SPECIALS, Vocabulary
from nlproar.errors import UserError
from nlproar.fingerprints import fingerprint
from nlproar.progress import stage

# `find` and `read` stand here, so that callers need one module.
__all__ = ["drawn", "find", "from_file", "from_training_data", "identity", "initial_embedding", "no_vectors", "read"]

log = logging.getLogger(__name__)

_NOT_ANNOUNCED = -1  # in an array, which holds no None
CUT_VERSION = 2  # raise it when `vector_text.read` finds other vectors in the same file
_LONGEST_NAME = 50  # characters of a file of vectors in the name of its cache, which has at most 255 bytes


def initial_embedding(known: np.ndarray, vectors: np.ndarray, unknown: str, seed: int) -> np.ndarray:
    """Return the embedding that a model starts from, (V, E) float32.

    `known` (V,) bool says which rows of `vectors` (V, E) float32 are given. The other rows are zero if `unknown` is
    "zeros", and standard normal draws from `seed` if it is "normal". The row of [PAD] is zero.
    """
    draws = np.zeros_like(vectors)
    # A row is drawn for every word, so what a word gets does not depend on which others are known.
    if unknown == "normal":
        draws = _normal(vectors.shape, seed)
    embedding = np.where(known[:, None], vectors, draws)
    embedding[PAD] = 0
    return embedding


def no_vectors(vocabulary: Vocabulary, dimensions: int) -> storage.Arrays:
    """Return `known` (V,) bool, all False, and `vectors` (V, E) float32, all zero, for a vocabulary of V entries and E
    `dimensions`."""
    size = len(vocabulary)
    return {"known": np.zeros(size, bool), "vectors": np.zeros((size, dimensions), np.float32)}


def drawn(vocabulary: Vocabulary, dimensions: int, seed: int) -> storage.Arrays:
    """Return standard normal vectors, in the form of `no_vectors`, of which every word has one.

    The special tokens, such as [UNK] and [MASK], have none: they start as words without a vector do.
    """
    arrays = no_vectors(vocabulary, dimensions)
    arrays["known"][len(SPECIALS) :] = True
    arrays["vectors"][:] = _normal(arrays["vectors"].shape, seed)
    return arrays


def _normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def from_file(file: Path, vocabulary: Vocabulary, cache_dir: Path) -> storage.Arrays:
    """Return the vectors in `file` of the words of `vocabulary`, in the form of `no_vectors`.

    The file is read once, and what was found is kept in `cache_dir`. A file that seems to be incomplete is warned of.
    """
    arrays = _cut(file, vocabulary, cache_dir)
    words, announced = arrays["counts"].tolist()
    _compare_counts(file, words, None if announced == _NOT_ANNOUNCED else announced)
    known = arrays["known"].sum()
    log.info("%s of %s words have a vector in %s", f"{known:,}", f"{len(vocabulary.words):,}", file.name)
    return {"known": arrays["known"], "vectors": arrays["vectors"]}


def _cut(file: Path, vocabulary: Vocabulary, cache_dir: Path) -> storage.Arrays:
    """Return what `vector_text.read` finds in `file`: from the cache, or read and put there.

    `counts` (2,) int64 is the number of words in the file, and the number that its header announces or, without a
    header, `_NOT_ANNOUNCED`.
    """
    key = {
        "version": CUT_VERSION,
        "file": fingerprint(file, cache_dir),
        "words": storage.digest(vocabulary.words),
    }
    stem = file.name.partition(".")[0][:_LONGEST_NAME]
    path = cache_dir / "vectors" / f"{stem}-{storage.digest(key)[:8]}.npz"

    def make() -> storage.Arrays:
        text = read(file, vocabulary)
        announced = _NOT_ANNOUNCED if text.announced is None else text.announced
        return {"known": text.known, "vectors": text.vectors, "counts": np.array([text.lines, announced])}

    return storage.cached(path, key, make)


def _compare_counts(file: Path, words: int, announced: int | None) -> None:
    """Warn of a file with another number of words than its first line announces (None if there is no such line), or
    than the published file of this name has."""
    if announced is not None and announced != words:
        log.warning(
            "%s: its first line announces %s words, and it has %s%s", file, f"{announced:,}", f"{words:,}",
            "; is it cut off?" if words < announced else "",
        )  # fmt: skip
    published = published_lines(file)
    if published is not None and published != words:
        log.warning("%s has %s words, the published file has %s", file, f"{words:,}", f"{published:,}")


def from_training_data(dataset: Dataset, name: str, dimensions: int, seed: int, cache_dir: Path) -> storage.Arrays:
    """Return the vectors of word2vec, in the form of `no_vectors`, which are trained once.

    `name`, that of the task, is a part of the name of the cache and decides nothing.
    """
    key = _word2vec_key(dataset, dimensions, seed)
    path = cache_dir / "vectors" / f"word2vec_{name}-{storage.digest(key)[:8]}.npz"
    return storage.cached(path, key, partial(train_word2vec, dataset, dimensions, seed))


def _word2vec_key(dataset: Dataset, dimensions: int, seed: int) -> dict[str, Any]:
    """Return what identifies the vectors of word2vec. `data` is the digest of all splits, although it sees only one."""
    return {
        "version": 1,  # raise it when `train_word2vec` changes
        "data": dataset.digest,
        "dimensions": dimensions,
        "seed": seed,
    }


def identity(
    name: str, file: str | None, dataset: Dataset, dimensions: int, seed: int, raw_dir: Path, cache_dir: Path
) -> str | None:
    """Return twelve hexadecimal digits that tell the initial vectors of two runs apart; None for drawn ones.

    `name` and `file` are `vectors` and `vectors_file` of the configuration of a run. `dimensions` and `seed` matter for
    word2vec only. A file that is not in the cache yet is read once, which can take minutes.

    Vectors from a file are known by the words of `dataset` that have one and by their numbers, so the same vectors are
    the same in a zip archive, compressed with gzip, or unpacked. Word2vec is known by its data and its parameters.
    Raises UserError where the file is not there: this function downloads nothing.
    """
    if name == "random":
        return None
    if name == "word2vec":
        return storage.digest(_word2vec_key(dataset, dimensions, seed))[:12]
    place = Path(file) if file else placed(name, raw_dir, cache_dir)
    if place is None:
        raise UserError(f"the vectors {name} are not there: {raw_dir / VECTORS[name].folder}")
    if not place.is_file():
        raise UserError(f"the vectors {name} are not there: {place}")
    arrays = _cut(place, dataset.vocabulary, cache_dir)
    state = hashlib.sha256(str(arrays["vectors"].shape).encode())
    state.update(arrays["known"].tobytes())
    state.update(arrays["vectors"].tobytes())
    return state.hexdigest()[:12]


def train_word2vec(dataset: Dataset, dimensions: int, seed: int) -> storage.Arrays:
    """Return what `no_vectors` does, with the vectors that word2vec (Mikolov et al. 2013, arXiv 1301.3781) learns.

    It sees the training split only, with the defaults of gensim but a window of 10 words. Words that occur once stay
    unknown. There is one worker, so that the seed decides the result. Raises UserError if no word occurs twice.
    """
    from gensim.models import Word2Vec

    corpus = _Sentences(dataset)
    model = Word2Vec(vector_size=dimensions, window=10, min_count=2, workers=1, seed=seed % 2**32)
    with stage("training word2vec", model.epochs * len(dataset.splits["train"]), "observations") as bar:
        model.build_vocab(corpus)  # the bar counts the passes of the training, and not this one
        if not len(model.wv):
            raise UserError("no word occurs twice in the training split, so word2vec learns nothing; choose --vectors")
        corpus.on_observation = lambda: bar.update(1)
        model.train(corpus, total_examples=model.corpus_count, epochs=model.epochs)
    arrays = no_vectors(dataset.vocabulary, dimensions)
    for word, index in dataset.vocabulary.ids.items():
        if word in model.wv:
            arrays["known"][index] = True
            arrays["vectors"][index] = model.wv[word]
    return arrays


class _Sentences:
    """The training observations as lists of words, without special tokens.

    gensim goes through them once for the vocabulary and once for each epoch, so each pass starts anew.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.split = dataset.splits["train"]
        self.names = dict(enumerate(dataset.vocabulary.words, start=len(SPECIALS)))
        self.on_observation: Callable[[], object] = lambda: None

    def __iter__(self) -> Iterator[list[str]]:
        for start, end in pairwise(self.split.offsets):
            self.on_observation()
            yield [self.names[i] for i in self.split.tokens[start:end].tolist() if i in self.names]
