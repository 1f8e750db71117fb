"""Encoded data: flat arrays of token ids, from raw files to what a model is trained on."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import signal
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from multiprocessing import resource_tracker
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np

from nlproar import storage
from nlproar.dataset import raw as raw_files
from nlproar.dataset.download import download
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.sources import Source
from nlproar.dataset.subwords import Subwords, open_tokenizer
from nlproar.dataset.task import SPLITS, Example, Task
from nlproar.dataset.vocabulary import CLS, EOS, FIRST_MASKABLE, MASK, SPECIALS, UNK, Vocabulary
from nlproar.errors import UserError
from nlproar.progress import stage

log = logging.getLogger(__name__)

FORMAT = 2  # part of every cache key: raise it when preparation changes
LONGEST = 10_000  # tokens of a text or a query; the longest of SST, SNLI and bAbI has less than 2,000
_LONGEST_TEXT = 100 * LONGEST  # characters; a longer text is not even tokenized
_LONGEST_WORD = LONGEST  # characters without a blank; neither is a text with a longer one
_FEW_LABELS = 5  # then each must occur in every split; of bAbI's 36 words few are answers
_CHUNK = 1000  # examples that are tokenized at a time
_WORTH_PROCESSES = 20_000  # examples; tokenizing fewer takes less time than starting processes

_Tokenized = tuple[Example, list[str] | None, list[str] | None]  # with the tokens of its text and query


@dataclass(frozen=True)
class Split:
    """N observations, their tokens one after the other. A masked split has this same type.

    tokens (S,) int32 and offsets (N + 1,) int64: observation i is tokens[offsets[i]:offsets[i + 1]], from [CLS] to
    [EOS]. label (N,) int64. Paired tasks have query_tokens and query_offsets, others None. `first` is the number
    of the first observation in the data set, so that `first + i` names an observation across splits.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    label: np.ndarray
    query_tokens: np.ndarray | None = None
    query_offsets: np.ndarray | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(self.label)

    @property
    def lengths(self) -> np.ndarray:
        """(N,), with [CLS] and [EOS]."""
        return np.diff(self.offsets)

    @property
    def maskable(self) -> np.ndarray:
        """(S,) bool: everything but [PAD], [CLS] and [EOS]."""
        return self.tokens >= FIRST_MASKABLE

    def masked(self, mask: np.ndarray) -> Split:
        """This split with [MASK] wherever `mask` (S,) is true."""
        return replace(self, tokens=np.where(mask, np.int32(MASK), self.tokens))

    def followed_by(self, other: Split) -> Split:
        """The observations of this split and then those of another one of the same task."""
        joined = replace(
            self,
            tokens=np.concatenate([self.tokens, other.tokens]),
            offsets=np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]]),
            label=np.concatenate([self.label, other.label]),
        )
        if self.query_tokens is None or self.query_offsets is None:
            return joined
        assert other.query_tokens is not None and other.query_offsets is not None
        return replace(
            joined,
            query_tokens=np.concatenate([self.query_tokens, other.query_tokens]),
            query_offsets=np.concatenate([self.query_offsets, self.query_offsets[-1] + other.query_offsets[1:]]),
        )


@dataclass(frozen=True)
class Dataset:
    """The encoded data of a task. `digest` names their content.

    `warnings` are sentences about the raw files, such as that they have fewer records than the published ones; they
    are no part of the content.
    """

    vocabulary: Vocabulary
    splits: Mapping[str, Split]
    digest: str
    warnings: tuple[str, ...] = ()

    def masked(self, masks: Mapping[str, np.ndarray]) -> Dataset:
        """The same data with [MASK] at `masks`, one (S,) bool array per split."""
        return replace(self, splits={name: split.masked(masks[name]) for name, split in self.splits.items()})


def load(
    task: Task, source: str, raw_dir: Path, cache_dir: Path, num_workers: int = 0, subwords: Subwords | None = None
) -> Dataset:
    """Encode `task` from `source`, or read what an earlier run encoded from the same files.

    The tokens are the words of the task, or `subwords` of a pretrained model. What is to be known about the files is
    said in the log each time, and stands in `warnings`.
    """
    raw = _open(task, source, raw_dir, cache_dir, download)
    published: Mapping[str, int] = {} if callable(task.sources[source]) else task.published
    path, key = _place(task, source, raw, cache_dir, subwords)
    dataset = _unpack(storage.cached(path, key, lambda: encode(task, raw, num_workers, published, subwords)))
    for warning in dataset.warnings:
        log.warning("%s: %s", task.title, warning)
    return dataset


def present(
    task: Task, source: str, raw_dir: Path, cache_dir: Path, subwords: Subwords | None = None
) -> Dataset | None:
    """What `load` would return, if the raw files are there and were encoded before; None if not, or if they cannot be
    read. Nothing is downloaded or tokenized."""
    try:
        raw = _open(task, source, raw_dir, cache_dir, raw_files.nothing_is_fetched)
        path, key = _place(task, source, raw, cache_dir, subwords)
        found = storage.stored(path)
    except (UserError, OSError):  # whoever has to read them meets it, and says so
        return None
    if found is None or found[1] != key:
        return None
    return _unpack(found[0])


def _open(task: Task, source: str, raw_dir: Path, cache_dir: Path, fetch: Callable[[Source, Path], Path]) -> RawFiles:
    place = task.sources[source]
    if callable(place):
        return raw_files.generated(place())
    return raw_files.open_raw(place, raw_dir, task.members, cache_dir, fetch)


def _place(
    task: Task, source: str, raw: RawFiles, cache_dir: Path, subwords: Subwords | None
) -> tuple[Path, dict[str, Any]]:
    """The file of the encoded data, and the key that decides their content."""
    key = {
        "format": FORMAT,
        "task": task.name,
        "source": source,
        "files": raw.fingerprint,
        "labels": list(task.labels),
        "min_document_frequency": task.min_document_frequency,
        "lengths": [task.shortest, task.longest],
    }
    if subwords is not None:
        key["subwords"] = subwords.key
    return cache_dir / "encoded" / f"{task.name}_{source}-{storage.digest(key)[:8]}.npz", key


def find(task: str, source: str, digest: str, cache_dir: Path) -> Dataset | None:
    """The encoded data with this `digest`, if they are still cached: the raw files need not be there. Files that hold
    something else are passed over. Raises OSError if the folder may not be read."""
    folder = cache_dir / "encoded"
    if not folder.exists():
        return None
    for name in sorted(os.listdir(folder)):
        if not (name.startswith(f"{task}_{source}-") and name.endswith(".npz")):
            continue
        try:
            found = storage.stored(folder / name)
        except (OSError, UserError) as error:  # another file may hold the same data
            log.warning("%s cannot be read: %s", folder / name, error)
            continue
        if found is None or not _is_encoded(found[0]):
            continue
        dataset = _unpack(found[0])
        if dataset.digest == digest:
            return dataset
    return None


def _is_encoded(arrays: storage.Arrays) -> bool:
    """Whether `arrays` have the names, types and shapes that `encode` gives them, and every number has a meaning."""
    texts = {name: _as_text(arrays[name]) for name in ("words", "warnings") if name in arrays}
    words = texts.get("words")
    if words is None or None in texts.values():
        return False
    vocabulary_size = len(SPECIALS) + len(words.split("\n"))
    expected: set[str] = set(texts)
    for name in SPLITS:
        label = arrays.get(f"{name}.label", _NO_ARRAY)
        if label.dtype != np.int64 or label.ndim != 1 or (label < 0).any():
            return False
        expected.add(f"{name}.label")
        prefixes = [f"{name}."]
        if f"{name}.query_tokens" in arrays:
            prefixes.append(f"{name}.query_")
        for prefix in prefixes:
            if not _are_sequences(arrays, prefix, len(label), vocabulary_size):
                return False
            expected |= {f"{prefix}tokens", f"{prefix}offsets"}
    return set(arrays) == expected


def _as_text(array: np.ndarray) -> str | None:
    """The text that an array holds as UTF-8; None where it holds none."""
    if array.dtype != np.uint8 or array.ndim != 1:
        return None
    try:
        return array.tobytes().decode()
    except UnicodeDecodeError:
        return None


_NO_ARRAY = np.empty(0, dtype=object)  # stands for an array that is missing


def _are_sequences(arrays: storage.Arrays, prefix: str, number: int, vocabulary_size: int) -> bool:
    """Whether `prefix`tokens and `prefix`offsets hold `number` sequences of ids below `vocabulary_size`."""
    tokens = arrays.get(f"{prefix}tokens", _NO_ARRAY)
    offsets = arrays.get(f"{prefix}offsets", _NO_ARRAY)
    if tokens.dtype != np.int32 or tokens.ndim != 1 or offsets.dtype != np.int64 or offsets.shape != (number + 1,):
        return False
    within = ((tokens >= 0) & (tokens < vocabulary_size)).all()
    return bool(within and offsets[0] == 0 and offsets[-1] == len(tokens) and (np.diff(offsets) >= 0).all())


@dataclass
class _Column:
    """The observations of one split while they are read; words have provisional numbers."""

    tokens: array[int] = field(default_factory=lambda: array("i"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    query_tokens: array[int] = field(default_factory=lambda: array("i"))
    query_lengths: array[int] = field(default_factory=lambda: array("q"))
    label: array[int] = field(default_factory=lambda: array("q"))


def encode(
    task: Task,
    raw: RawFiles,
    num_workers: int = 0,
    published: Mapping[str, int] | None = None,
    subwords: Subwords | None = None,
) -> storage.Arrays:
    """Tokenize, choose the vocabulary on the training split, number the words. Arrays as `_unpack` takes them.

    With `subwords` the tokens and their numbers are those of a pretrained model. The observations are the same ones, as
    the words of the task decide which of them are too short or too long.

    `published` has the number of records of each published file; the array `warnings` says which of the files have
    another number, and how many observations were left out because no real one is as long.

    Raises UserError if a split or the vocabulary is empty, or one of few labels never occurs in a split.
    """
    if subwords is not None:
        return _encode_subwords(task, raw, num_workers, published or {}, subwords)
    numbers: dict[str, int] = {}

    def add(tokens: list[str], flat: array[int], lengths: array[int]) -> None:
        flat.append(CLS)
        flat.extend(numbers.setdefault(token, len(SPECIALS) + len(numbers)) for token in tokens)
        flat.append(EOS)
        lengths.append(len(tokens) + 2)

    columns = {name: _Column() for name in SPLITS}
    for example, text, query in _kept(task, raw, num_workers):
        column = columns[example.split]
        add(text, column.tokens, column.lengths)
        if task.paired:
            add(query, column.query_tokens, column.query_lengths)
        column.label.append(example.label)
    _check(task, raw, columns)
    vocabulary = _choose_vocabulary(columns["train"], list(numbers), task.min_document_frequency)
    if not vocabulary.words:
        raise UserError(
            f"{raw.place}: no word occurs in {task.min_document_frequency} of the {len(columns['train'].label):,}"
            f" training observations of {task.title}; {raw.tally.summary('train', task.records)}; check the files"
        )
    ids = np.array([*range(len(SPECIALS)), *(vocabulary.ids.get(word, UNK) for word in numbers)], dtype=np.int32)
    arrays = {"words": _as_array(vocabulary.words)}
    arrays["warnings"] = _as_array([*raw.tally.warnings(published or {}, task.records), *_left_out(task, raw)])
    for name, column in columns.items():
        arrays |= _as_arrays(name, column, task.paired)
        arrays[f"{name}.tokens"] = ids[arrays[f"{name}.tokens"]]
        if task.paired:
            arrays[f"{name}.query_tokens"] = ids[arrays[f"{name}.query_tokens"]]
    return arrays


def _kept(task: Task, raw: RawFiles, num_workers: int) -> Iterator[tuple[Example, list[str], list[str]]]:
    """Yield the observations that are neither too short nor too long, with the words of text and query."""
    with stage(f"encoding {task.title}", None, "observations") as bar:
        for example, text, query in _tokenized(task, task.read(raw), num_workers):
            bar.update(1)
            reason = _too_short_or_long(task, text, query)
            if reason or text is None or query is None:
                raw.tally.drop(reason, example.split)
            else:
                yield example, text, query


def _encode_subwords(
    task: Task, raw: RawFiles, num_workers: int, published: Mapping[str, int], subwords: Subwords
) -> storage.Arrays:
    """See `encode`."""
    examples: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for example, _, _ in _kept(task, raw, num_workers):
        examples[example.split].append(example)
    columns = {name: _Column(label=array("q", [one.label for one in chosen])) for name, chosen in examples.items()}
    _check(task, raw, columns)
    train = examples["train"]
    training_texts = [text for one in train for text in (one.text, one.query)]
    tokenizer = open_tokenizer(subwords, training_texts)
    arrays: storage.Arrays = {"words": _as_array(tokenizer.words)}
    warnings = [*raw.tally.warnings(published, task.records), *_left_out(task, raw)]
    for name, chosen in examples.items():
        queries = [one.query for one in chosen] if task.paired else None
        truncated = 0
        column = columns[name]
        for tokens, query_tokens, is_truncated in tokenizer.encode([one.text for one in chosen], queries):
            column.tokens.extend(tokens)
            column.lengths.append(len(tokens))
            if query_tokens is not None:
                column.query_tokens.extend(query_tokens)
                column.query_lengths.append(len(query_tokens))
            truncated += is_truncated
        if truncated:
            warnings.append(
                f"observations of {name} that are truncated to {subwords.longest:,} tokens: {truncated:,} of"
                f" {len(chosen):,} ({truncated / len(chosen):.1%})"
            )
        arrays |= _as_arrays(name, column, task.paired)
    arrays["warnings"] = _as_array(warnings)
    return arrays


def _as_arrays(name: str, column: _Column, paired: bool) -> storage.Arrays:
    """Return the arrays of one split."""
    arrays = {
        f"{name}.tokens": np.array(column.tokens, dtype=np.int32),
        f"{name}.offsets": _offsets(column.lengths),
        f"{name}.label": np.array(column.label, dtype=np.int64),
    }
    if paired:
        arrays[f"{name}.query_tokens"] = np.array(column.query_tokens, dtype=np.int32)
        arrays[f"{name}.query_offsets"] = _offsets(column.query_lengths)
    return arrays


def _too_short_or_long(task: Task, text: list[str] | None, query: list[str] | None) -> str:
    """Why an observation of these tokens is left out, empty where it is not. None is a text that was not tokenized."""
    if text is None or query is None or len(text) > min(task.longest, LONGEST) or len(query) > LONGEST:
        return _too_long(task)
    if len(text) < task.shortest:
        return f"of fewer than {task.shortest:,} tokens"
    return ""


def _too_long(task: Task) -> str:
    return f"of more than {min(task.longest, LONGEST):,} tokens"


def _left_out(task: Task, raw: RawFiles) -> list[str]:
    """Warnings of observations that are too long, unless the task itself leaves out long ones."""
    if task.longest <= LONGEST:
        return []
    numbers = {split: raw.tally.dropped[split, _too_long(task)] for split in SPLITS}
    return [
        f"observations of {split} that have more than {LONGEST:,} tokens are left out: {number:,}"
        " (no published one is so long)"
        for split, number in numbers.items()
        if number
    ]


def _tokenize(tokenize: Callable[[str], list[str]], chunk: list[Example]) -> list[_Tokenized]:
    return [(example, _tokens(tokenize, example.text), _tokens(tokenize, example.query)) for example in chunk]


def _tokens(tokenize: Callable[[str], list[str]], text: str) -> list[str] | None:
    """The tokens of `text`; None where it is far too long, or holds a word that is. Splitting a word into tokens takes
    time that grows with the square of its length."""
    if len(text) > _LONGEST_TEXT:
        return None
    if len(text) > _LONGEST_WORD and max(map(len, text.split()), default=0) > _LONGEST_WORD:
        return None
    return tokenize(text)


def _tokenized(task: Task, examples: Iterable[Example], num_workers: int) -> Iterator[_Tokenized]:
    """Examples with the tokens of text and query, in order, whatever the number of processes. The tokens are None
    where a text is so long that it must have too many."""
    source = iter(examples)
    head = list(islice(source, _WORTH_PROCESSES))
    everything = chain(head, source)
    chunks = iter(lambda: list(islice(everything, _CHUNK)), [])
    work = partial(_tokenize, task.tokenize)
    if num_workers < 2 or len(head) < _WORTH_PROCESSES:
        for chunk in chunks:
            yield from work(chunk)
        return
    with _start_pool(num_workers) as pool:
        for done in pool.imap(work, chunks):
            yield from done


def _start_pool(num_workers: int) -> Pool:
    """Processes that never react to Ctrl-C, which a terminal sends to all of them: this process ends them when it ends
    itself, while they would each print a traceback.

    They inherit which signals are blocked. A signal that comes while they are started waits until all of them are
    known to the pool, which otherwise could not end them.
    """
    resource_tracker.ensure_running()  # which lifts the block, if it is done later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        return multiprocessing.get_context("spawn").Pool(num_workers, _accept_sigterm)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _accept_sigterm() -> None:
    """In a new process: end when the pool says so."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _check(task: Task, raw: RawFiles, columns: Mapping[str, _Column]) -> None:
    for name, column in columns.items():
        if not column.label:
            summary = raw.tally.summary(name, task.records)
            raise UserError(f"{raw.place}: no observation of {task.title} for {name}; {summary}; check the files")
    if len(task.labels) <= _FEW_LABELS:
        for name, column in columns.items():
            for label in sorted(set(range(len(task.labels))) - set(column.label)):
                summary = raw.tally.summary(name, task.records)
                raise UserError(
                    f"{raw.place}: none of the {len(column.label):,} {name} observations of {task.title} is"
                    f" {task.labels[label]}; {summary}; check the files"
                )


def _choose_vocabulary(train: _Column, words: list[str], min_document_frequency: int) -> Vocabulary:
    """The words of at least that many training observations; text and query of one observation count once."""
    document = np.concatenate(
        [np.repeat(np.arange(len(n)), n) for n in (np.array(train.lengths), np.array(train.query_lengths)) if len(n)]
    )
    tokens = np.concatenate([np.array(train.tokens), np.array(train.query_tokens, dtype=np.int32)]).astype(np.int64)
    size = len(SPECIALS) + len(words)
    pairs = np.unique(document * size + tokens)
    frequency = np.bincount(pairs % size, minlength=size)[len(SPECIALS) :]
    return Vocabulary.of(word for word, n in zip(words, frequency, strict=True) if n >= min_document_frequency)


def _offsets(lengths: array[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])


def _unpack(arrays: storage.Arrays) -> Dataset:
    state = hashlib.sha256()
    for name in sorted(arrays):
        if name == "warnings":
            continue
        state.update(name.encode() + arrays[name].tobytes())
    splits, first = {}, 0
    for name in SPLITS:
        columns = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        splits[name] = Split(**columns, first=first)
        first += len(splits[name])
    words = arrays["words"].tobytes().decode().split("\n")
    warnings = arrays["warnings"].tobytes().decode() if "warnings" in arrays else ""  # none of a file of format 1
    said = tuple(line for line in warnings.split("\n") if line)
    return Dataset(Vocabulary(tuple(words)), splits, state.hexdigest()[:16], said)


def _as_array(lines: Sequence[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)
