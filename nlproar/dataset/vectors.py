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

__all__ = ["find", "from_file", "from_training_data", "identity", "initial_embedding", "no_vectors", "read"]

log = logging.getLogger(__name__)

CUT_VERSION = 2  # raise it when another reading of the same file gives other vectors
_LONGEST_NAME = 50  # characters of a file of vectors in the name of its cache


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
    """The vectors in `file` of the words of `vocabulary`, read once; a warning if the file seems to be incomplete."""
    arrays = _cut(file, vocabulary, cache_dir)
    _compare_counts(file, *arrays["counts"].tolist())
    known = arrays["known"].sum()
    log.info("%s of %s words have a vector in %s", f"{known:,}", f"{len(vocabulary.words):,}", file.name)
    return {"known": arrays["known"], "vectors": arrays["vectors"]}


def _cut(file: Path, vocabulary: Vocabulary, cache_dir: Path) -> storage.Arrays:
    """What `vector_text.read` finds in `file`: from the cache, or read and put there.

    `counts` (2,) int64 is the number of words in the file, and the number that its header announces or -1.
    """
    key = {
        "version": CUT_VERSION,
        "file": fingerprint(file, cache_dir),
        "words": storage.digest(vocabulary.words),
    }
    path = cache_dir / "vectors" / f"{file.name.partition('.')[0][:_LONGEST_NAME]}-{storage.digest(key)[:8]}.npz"

    def make() -> storage.Arrays:
        text = read(file, vocabulary)
        announced = -1 if text.announced is None else text.announced
        return {"known": text.known, "vectors": text.vectors, "counts": np.array([text.lines, announced])}

    return storage.cached(path, key, make)


def _compare_counts(file: Path, words: int, announced: int) -> None:
    """Warn of a file with another number of words than its header, or its publisher, says."""
    if announced not in (-1, words):
        log.warning(
            "%s: its first line announces %s words, and it has %s%s", file, f"{announced:,}", f"{words:,}",
            "; is it cut off?" if words < announced else "",
        )  # fmt: skip
    published = published_lines(file)
    if published not in (None, words):
        log.warning("%s has %s words, the published file has %s", file, f"{words:,}", f"{published:,}")


def from_training_data(dataset: Dataset, name: str, dimensions: int, seed: int, cache_dir: Path) -> storage.Arrays:
    """Word2vec of the words of the training split, trained once. `name` is for the file."""
    key = _word2vec_key(dataset, dimensions, seed)
    path = cache_dir / "vectors" / f"word2vec_{name}-{storage.digest(key)[:8]}.npz"
    return storage.cached(path, key, partial(train_word2vec, dataset, dimensions, seed))


def _word2vec_key(dataset: Dataset, dimensions: int, seed: int) -> dict[str, Any]:
    """Everything that decides what word2vec learns."""
    return {"version": 1, "data": dataset.digest, "dimensions": dimensions, "seed": seed}


def identity(
    name: str, file: str | None, dataset: Dataset, dimensions: int, seed: int, raw_dir: Path, cache_dir: Path
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
        return storage.digest(_word2vec_key(dataset, dimensions, seed))[:12]
    place = Path(file) if file else placed(str(name), raw_dir, cache_dir)
    if place is None or not place.is_file():
        raise UserError(f"the vectors {name} are not there: {place or raw_dir / VECTORS[str(name)].folder}")
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
        model.build_vocab(corpus)
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
    """The training observations as lists of words, from the start at every pass."""

    def __init__(self, dataset: Dataset) -> None:
        self.split = dataset.splits["train"]
        self.names = dict(enumerate(dataset.vocabulary.words, start=len(SPECIALS)))
        self.on_observation: Callable[[], object] = lambda: None

    def __iter__(self) -> Iterator[list[str]]:
        for start, end in pairwise(self.split.offsets):
            self.on_observation()
            yield [self.names[i] for i in self.split.tokens[start:end].tolist() if i in self.names]
