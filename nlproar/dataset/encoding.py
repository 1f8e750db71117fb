"""Encoded data: flat arrays of token ids, which are made from raw files and kept in a cache.

Letters: N observations of a split, S tokens of all of them, one observation after the other. Each observation begins
with [CLS] and ends with [EOS].
"""

from __future__ import annotations

import hashlib
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from nlproar import process, storage
from nlproar.dataset import raw as raw_files
from nlproar.dataset.download import download
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.sources import Source
from nlproar.dataset.subwords import Subwords, SubwordTokenizer, open_tokenizer
from nlproar.dataset.task import SPLITS, Example, Task, checked_tokens
from nlproar.dataset.vocabulary import CLS, EOS, FIRST_MASKABLE, MASK, SPECIALS, UNK, Vocabulary
from nlproar.errors import UserError
from nlproar.progress import stage

log = logging.getLogger(__name__)

FORMAT = 2  # part of every cache key: raise it when preparation changes

# The most tokens of a text or a query. The longest of SST, SNLI and bAbI has less than 2,000.
LONGEST = 10_000

# A longer text, or one with a longer word (characters without a blank), is left out without being tokenized.
_LONGEST_TEXT = 100 * LONGEST  # characters
_LONGEST_WORD = LONGEST  # characters

# With so few labels, each must occur in every split. Of the 36 words of bAbI few are answers.
_FEW_LABELS = 5

_CHUNK = 1000  # examples that are tokenized at a time
_WORTH_PROCESSES = 20_000  # fewer examples take less time than starting processes

# An example with the tokens of its text and of its query, or None for one that is so long that it was not tokenized.
_Tokenized = tuple[Example, list[str] | None, list[str] | None]


@dataclass(frozen=True)
class Split:
    """The observations of one split. A masked split has the same type.

    Observation i is tokens[offsets[i]:offsets[i + 1]], from [CLS] to [EOS]. In paired tasks its query has the same
    layout in `query_tokens` and `query_offsets`, which are None in other tasks. For example, two texts of one and two
    words are

        tokens  = [CLS] a [EOS] [CLS] b c [EOS]
        offsets = [0, 3, 7]

    If the tokens are subwords, `word_starts` says at which of them a word begins; [CLS] and [EOS] count as words. For
    example, "unbelievable film" in four subwords is

        tokens      = [CLS] un believ able film [EOS]
        word_starts =   1    1    0    0    1     1
    """

    tokens: np.ndarray  # (S,) int32
    offsets: np.ndarray  # (N + 1,) int64
    label: np.ndarray  # (N,) int64
    query_tokens: np.ndarray | None = None  # (Q,) int32, for Q tokens of all queries
    query_offsets: np.ndarray | None = None  # (N + 1,) int64
    first: int = 0  # `first + i` is the number of observation i in the whole data set
    word_starts: np.ndarray | None = None  # (S,) bool; None if each token is a word, and if words are not known

    def __len__(self) -> int:
        return len(self.label)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each observation, [CLS] and [EOS] included: (N,) int64."""
        return np.diff(self.offsets)

    @property
    def maskable(self) -> np.ndarray:
        """Whether each token can be masked, as all but [PAD], [CLS] and [EOS] can: (S,) bool."""
        return self.tokens >= FIRST_MASKABLE

    def masked(self, mask: np.ndarray) -> Split:
        """Return this split with [MASK] in the place of every token where `mask` (S,) is true."""
        return replace(self, tokens=np.where(mask, np.int32(MASK), self.tokens))

    def part(self, chosen: np.ndarray) -> Split:
        """Return the observations where `chosen` (N,) is true, in their order; they are numbered anew."""
        tokens, offsets = _of_chosen(self.tokens, self.offsets, chosen)
        own = replace(self, tokens=tokens, offsets=offsets, label=self.label[chosen], first=0)
        if self.word_starts is not None:
            own = replace(own, word_starts=self.word_starts[np.repeat(chosen, self.lengths)])
        if self.query_tokens is None or self.query_offsets is None:
            return own
        query_tokens, query_offsets = _of_chosen(self.query_tokens, self.query_offsets, chosen)
        return replace(own, query_tokens=query_tokens, query_offsets=query_offsets)

    def followed_by(self, other: Split) -> Split:
        """Return the observations of this split, followed by those of another one of the same task."""
        tokens, offsets = _joined(self.tokens, self.offsets, other.tokens, other.offsets)
        joined = replace(
            self,
            tokens=tokens,
            offsets=offsets,
            label=np.concatenate([self.label, other.label]),
        )
        if self.word_starts is not None and other.word_starts is not None:
            joined = replace(joined, word_starts=np.concatenate([self.word_starts, other.word_starts]))
        if self.query_tokens is None or self.query_offsets is None:
            return joined
        assert other.query_tokens is not None and other.query_offsets is not None
        query_tokens, query_offsets = _joined(
            self.query_tokens,
            self.query_offsets,
            other.query_tokens,
            other.query_offsets,
        )
        return replace(joined, query_tokens=query_tokens, query_offsets=query_offsets)


def _of_chosen(tokens: np.ndarray, offsets: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and offsets of the sequences where `chosen` (N,) is true."""
    lengths = np.diff(offsets)
    return tokens[np.repeat(chosen, lengths)], np.concatenate([[0], np.cumsum(lengths[chosen])])


def _joined(
    tokens: np.ndarray,
    offsets: np.ndarray,
    more_tokens: np.ndarray,
    more_offsets: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and offsets of two groups of sequences, one group after the other."""
    all_tokens = np.concatenate([tokens, more_tokens])
    shifted = offsets[-1] + more_offsets[1:]  # the first one is the end of the first group
    all_offsets = np.concatenate([offsets, shifted])
    return all_tokens, all_offsets


@dataclass(frozen=True)
class Dataset:
    """The encoded data of a task. `digest` is a hash of their content.

    `warnings` are sentences about the raw files, for example that they have fewer records than the published ones.
    They are not part of the content.
    """

    vocabulary: Vocabulary
    splits: Mapping[str, Split]  # "train", "val" and "test"
    digest: str
    warnings: tuple[str, ...] = ()

    @cached_property
    def words_digest(self) -> str | None:
        """A hash of where words begin, which is no part of `digest`; None if that is not known."""
        state = hashlib.sha256()
        for name in sorted(self.splits):
            starts = self.splits[name].word_starts
            if starts is None:
                return None
            state.update(f"{name} {len(starts)} ".encode())
            state.update(np.packbits(starts).tobytes())
        return state.hexdigest()[:16]

    def masked(self, masks: Mapping[str, np.ndarray]) -> Dataset:
        """Return the same data with [MASK] where the mask (S,) bool of each split is true."""
        splits = {name: split.masked(masks[name]) for name, split in self.splits.items()}
        return replace(self, splits=splits)


def load(
    task: Task,
    source: str,
    raw_dir: Path,
    cache_dir: Path,
    num_workers: int = 0,
    subwords: Subwords | None = None,
) -> Dataset:
    """Return the encoded data of `task` from `source`: those in the cache, or new ones, which are stored there.

    The tokens are the words of the task, or the `subwords` of a pretrained model. Warnings about the raw files are
    logged at every call, and are in `warnings` of the result.
    """
    raw = _open(task, source, raw_dir, cache_dir, download)
    published: Mapping[str, int] = task.published
    if callable(task.sources[source]):
        published = {}  # generated data, which no publication counts
    path, key = _cache_entry(task, source, raw, cache_dir, subwords)
    make = partial(encode, task, raw, num_workers, published, subwords)
    dataset = _unpack(storage.cached(path, key, make))
    for warning in dataset.warnings:
        log.warning("%s: %s", task.title, warning)
    return dataset


def present(
    task: Task,
    source: str,
    raw_dir: Path,
    cache_dir: Path,
    subwords: Subwords | None = None,
) -> Dataset | None:
    """Return what `load` would return if it finds the data in the cache, without downloading or tokenizing anything.

    Return None if the raw files are not there, if they were not encoded yet, or if they cannot be read.
    """
    try:
        raw = _open(task, source, raw_dir, cache_dir, raw_files.nothing_is_fetched)
        path, key = _cache_entry(task, source, raw, cache_dir, subwords)
        found = storage.stored(path)
    except (UserError, OSError):  # `load` raises the same error where the data are needed
        return None
    if found is None:
        return None
    arrays, stored_key = found
    if stored_key != key:
        return None
    return _unpack(arrays)


def _open(
    task: Task,
    source: str,
    raw_dir: Path,
    cache_dir: Path,
    fetch: Callable[[Source, Path], Path],
) -> RawFiles:
    """Return the raw files of a source, which `fetch` downloads if they are missing, or the generated data."""
    file_or_generator = task.sources[source]
    if callable(file_or_generator):
        return raw_files.generated(file_or_generator())
    return raw_files.open_raw(file_or_generator, raw_dir, task.members, cache_dir, fetch)


RawState = frozenset[tuple[str, int, int]]


def raw_state(task: Task, source: str, raw_dir: Path) -> RawState:
    """Return the names, times and sizes of what lies in the raw folder of a source, by which a process notices that its
    files are others now. What changes deeper in it is not noticed: that would take a look at 100,000 files of IMDB.

    It is empty for generated data, and where there is no such folder.
    """
    file_or_generator = task.sources[source]
    if callable(file_or_generator):
        return frozenset()
    try:
        with os.scandir(raw_dir / file_or_generator.folder) as entries:
            states = [(entry.name, entry.stat()) for entry in entries]
    except FileNotFoundError:
        return frozenset()
    return frozenset((name, state.st_mtime_ns, state.st_size) for name, state in states)


def _cache_entry(
    task: Task,
    source: str,
    raw: RawFiles,
    cache_dir: Path,
    subwords: Subwords | None,
) -> tuple[Path, dict[str, Any]]:
    """Return the path of the encoded data in the cache, and the key: everything that decides their content."""
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
    if task.version != 1:
        key["version"] = task.version
    name = f"{task.name}_{source}-{storage.digest(key)[:8]}.npz"
    return cache_dir / "encoded" / name, key


def find(task: str, source: str, digest: str, cache_dir: Path) -> Dataset | None:
    """Return the encoded data with this `digest` if they are still in the cache, else None.

    The raw files are not needed. Files in the cache that hold something else are ignored. Raises OSError if the folder
    cannot be read.
    """
    folder = cache_dir / "encoded"
    if not folder.exists():
        return None
    without_words = None  # the same data, from a version that did not keep where words begin
    for name in sorted(os.listdir(folder)):
        if not (name.startswith(f"{task}_{source}-") and name.endswith(".npz")):
            continue
        try:
            found = storage.stored(folder / name)
        except (OSError, UserError) as error:  # another file may hold the same data
            log.warning("%s cannot be read: %s", folder / name, error)
            continue
        if found is None:
            continue
        arrays, key = found
        if not _is_encoded(arrays):
            continue
        dataset = _unpack(arrays)
        if dataset.digest != digest:
            continue
        if dataset.words_digest is not None or "subwords" not in key:
            return dataset
        if without_words is None:
            without_words = dataset
    return without_words


def _is_encoded(arrays: storage.Arrays) -> bool:
    """Return whether `arrays` could be encoded data: names, types and shapes as from `encode`, and ids in range."""
    expected = {"words"}
    if "warnings" in arrays:
        expected.add("warnings")
        if _as_text(arrays["warnings"]) is None:
            return False
    words = _as_text(arrays.get("words", _NO_ARRAY))
    if words is None:
        return False
    vocabulary_size = len(SPECIALS) + len(words.split("\n"))
    for name in SPLITS:
        of_split = _names_of_split(arrays, name, vocabulary_size)
        if of_split is None:
            return False
        expected |= of_split
    return set(arrays) == expected


def _names_of_split(arrays: storage.Arrays, name: str, vocabulary_size: int) -> set[str] | None:
    """Return the names of the arrays of a split; None if one of them is missing or cannot be what it should."""
    label = arrays.get(f"{name}.label", _NO_ARRAY)
    if label.dtype != np.int64 or label.ndim != 1 or (label < 0).any():
        return None
    names = {f"{name}.label"}
    prefixes = [f"{name}."]
    if f"{name}.query_tokens" in arrays:
        prefixes.append(f"{name}.query_")
    for prefix in prefixes:
        if not _are_sequences(arrays, prefix, len(label), vocabulary_size):
            return None
        names |= {f"{prefix}tokens", f"{prefix}offsets"}
    starts = arrays.get(f"{name}.{_WORD_STARTS}")
    if starts is not None:
        if not _are_word_starts(starts, arrays[f"{name}.tokens"], arrays[f"{name}.offsets"]):
            return None
        names.add(f"{name}.{_WORD_STARTS}")
    return names


def _as_text(array: np.ndarray) -> str | None:
    """Return the text that an array of bytes holds in UTF-8; None if it holds none."""
    if array.dtype != np.uint8 or array.ndim != 1:
        return None
    try:
        return array.tobytes().decode()
    except UnicodeDecodeError:
        return None


_WORD_STARTS = "word_starts"  # the array of a split that says where words begin

_NO_ARRAY = np.empty(0, dtype=object)  # stands for a missing array; no array has this type


def _are_sequences(
    arrays: storage.Arrays,
    prefix: str,
    number: int,
    vocabulary_size: int,
) -> bool:
    """Return whether the arrays `prefix`tokens and `prefix`offsets hold `number` sequences of ids of the vocabulary."""
    tokens = arrays.get(f"{prefix}tokens", _NO_ARRAY)
    offsets = arrays.get(f"{prefix}offsets", _NO_ARRAY)
    if tokens.dtype != np.int32 or tokens.ndim != 1:
        return False
    if offsets.dtype != np.int64 or offsets.shape != (number + 1,):
        return False
    if (tokens < 0).any() or (tokens >= vocabulary_size).any():
        return False
    if offsets[0] != 0 or offsets[-1] != len(tokens):
        return False
    return bool((np.diff(offsets) >= 0).all())


def _are_word_starts(starts: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> bool:
    """Return whether `starts` says of each token whether a word begins there, and does at the start of a sequence."""
    if starts.dtype != np.bool_ or starts.shape != tokens.shape:
        return False
    first = offsets[:-1][np.diff(offsets) > 0]
    return bool(starts[first].all())


@dataclass
class _Column:
    """The observations of one split while they are read, one after the other, without offsets.

    The type "i" holds integers of 32 bits, and "q" those of 64. Words have provisional numbers, see `encode`.
    """

    tokens: array[int] = field(default_factory=lambda: array("i"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    query_tokens: array[int] = field(default_factory=lambda: array("i"))
    query_lengths: array[int] = field(default_factory=lambda: array("q"))
    label: array[int] = field(default_factory=lambda: array("q"))
    word_starts: bytearray = field(default_factory=bytearray)  # 1 where a word begins


def encode(
    task: Task,
    raw: RawFiles,
    num_workers: int = 0,
    published: Mapping[str, int] | None = None,
    subwords: Subwords | None = None,
) -> storage.Arrays:
    """Tokenize the texts, choose the vocabulary on the training split, and replace words by ids.

    Returns the arrays that `_unpack` takes. With `subwords` the tokens and their ids are those of a pretrained model.
    The observations are the same ones in both cases: the number of words decides which of them are too short or long.

    `published` has the number of records of each published file. The array `warnings` says which of the raw files have
    another number, and how many observations were left out because they are longer than any published one.

    Raises UserError if a split or the vocabulary is empty, if a task has few labels and one of them does not occur in a
    split, and if a token holds a line break.
    """
    if subwords is not None:
        return _encode_subwords(task, raw, num_workers, published or {}, subwords)
    columns, numbers = _read_words(task, raw, num_workers)
    _check(task, raw, columns)
    vocabulary = _choose_vocabulary(columns["train"], list(numbers), task.min_document_frequency)
    if not vocabulary.words:
        problem = (
            f"no word occurs in {task.min_document_frequency} of the {len(columns['train'].label):,} training"
            f" observations of {task.title}"
        )
        raise _too_little(task, raw, problem, "train")

    broken = next((word for word in vocabulary.words if "\n" in word), None)
    if broken is not None:
        length = len(broken)  # the token itself may be confidential
        raise UserError(
            f"{task.title}: a token of {length} characters holds a line break; its tokenizer must leave these out"
        )

    # The vocabulary is known only now. `ids` maps every provisional number to the id that replaces it.
    ids_of_words = [vocabulary.ids.get(word, UNK) for word in numbers]
    ids = np.array([*range(len(SPECIALS)), *ids_of_words], dtype=np.int32)
    warnings = [*raw.tally.warnings(published or {}, task.records), *_left_out(task, raw)]
    arrays = {"words": _as_array(vocabulary.words), "warnings": _as_array(warnings)}
    for name, column in columns.items():
        arrays |= _as_arrays(name, column, task.paired)
        arrays[f"{name}.tokens"] = ids[arrays[f"{name}.tokens"]]
        if task.paired:
            arrays[f"{name}.query_tokens"] = ids[arrays[f"{name}.query_tokens"]]
    return arrays


def _read_words(
    task: Task,
    raw: RawFiles,
    num_workers: int,
) -> tuple[dict[str, _Column], dict[str, int]]:
    """Return the observations of each split, and the provisional number of each word in them.

    Words are numbered in the order in which they are met, after the special tokens.
    """
    numbers: dict[str, int] = {}

    def append(tokens: list[str], flat: array[int], lengths: array[int]) -> None:
        flat.append(CLS)
        flat.extend(numbers.setdefault(token, len(SPECIALS) + len(numbers)) for token in tokens)
        flat.append(EOS)
        lengths.append(len(tokens) + 2)

    columns = {name: _Column() for name in SPLITS}
    for example, text, query in _kept(task, raw, num_workers):
        column = columns[example.split]
        append(text, column.tokens, column.lengths)
        if task.paired:
            append(query, column.query_tokens, column.query_lengths)
        column.label.append(example.label)
    return columns, numbers


def _kept(
    task: Task,
    raw: RawFiles,
    num_workers: int,
) -> Iterator[tuple[Example, list[str], list[str]]]:
    """Yield the observations that are neither too short nor too long, with the words of text and query.

    The others are counted in `raw.tally`.
    """
    with stage(f"encoding {task.title}", None, "observations") as bar:
        for example, text, query in _tokenized(task, task.read(raw), num_workers):
            bar.update(1)
            if text is None or query is None:
                raw.tally.drop(_too_long(task), example.split)
                continue
            reason = _too_short_or_long(task, text, query)
            if reason is None:
                yield example, text, query
            else:
                raw.tally.drop(reason, example.split)


def _encode_subwords(
    task: Task,
    raw: RawFiles,
    num_workers: int,
    published: Mapping[str, int],
    subwords: Subwords,
) -> storage.Arrays:
    """Return the encoded data with the tokens of a pretrained model, see `encode`."""
    examples: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for example, _, _ in _kept(task, raw, num_workers):
        examples[example.split].append(example)
    columns = {}
    for name, examples_of_split in examples.items():
        labels = [example.label for example in examples_of_split]
        columns[name] = _Column(label=array("q", labels))
    _check(task, raw, columns)

    training_texts = []
    for example in examples["train"]:
        training_texts += [example.text, example.query]
    tokenizer = open_tokenizer(subwords, training_texts)
    arrays: storage.Arrays = {"words": _as_array(tokenizer.words)}
    warnings = [*raw.tally.warnings(published, task.records), *_left_out(task, raw)]
    for name, column in columns.items():
        total = len(examples[name])
        truncated = _append_subwords(tokenizer, examples[name], task.paired, column)
        if truncated > 0:
            warnings.append(
                f"observations of {name} that are truncated to {subwords.longest:,} tokens:"
                f" {truncated:,} of {total:,} ({truncated / total:.1%})"
            )
        arrays |= _as_arrays(name, column, task.paired)
        if tokenizer.knows_words:
            arrays[f"{name}.{_WORD_STARTS}"] = np.frombuffer(column.word_starts, dtype=np.bool_)
    arrays["warnings"] = _as_array(warnings)
    return arrays


def _append_subwords(
    tokenizer: SubwordTokenizer,
    examples: Sequence[Example],
    paired: bool,
    column: _Column,
) -> int:
    """Append the subwords of `examples` to `column`, and return how many of the examples were truncated."""
    texts = [example.text for example in examples]
    queries = [example.query for example in examples] if paired else None
    truncated = 0
    for encoded in tokenizer.encode(texts, queries):
        column.tokens.extend(encoded.tokens)
        column.lengths.append(len(encoded.tokens))
        column.word_starts.extend(encoded.word_starts.tobytes())
        if encoded.query_tokens is not None:
            column.query_tokens.extend(encoded.query_tokens)
            column.query_lengths.append(len(encoded.query_tokens))
        truncated += encoded.is_truncated
    return truncated


def _as_arrays(name: str, column: _Column, paired: bool) -> storage.Arrays:
    """Return the arrays of one split, whose names begin with that of the split."""
    arrays = {
        f"{name}.tokens": np.array(column.tokens, dtype=np.int32),
        f"{name}.offsets": _offsets(column.lengths),
        f"{name}.label": np.array(column.label, dtype=np.int64),
    }
    if paired:
        arrays[f"{name}.query_tokens"] = np.array(column.query_tokens, dtype=np.int32)
        arrays[f"{name}.query_offsets"] = _offsets(column.query_lengths)
    return arrays


def _too_short_or_long(task: Task, text: list[str], query: list[str]) -> str | None:
    """Return why an observation with these words is left out; None if it is not."""
    if len(text) > min(task.longest, LONGEST) or len(query) > LONGEST:
        return _too_long(task)
    if len(text) < task.shortest:
        return f"of fewer than {task.shortest:,} tokens"
    return None


def _too_long(task: Task) -> str:
    """Return the reason for which a long observation is left out."""
    return f"of more than {min(task.longest, LONGEST):,} tokens"


def _left_out(task: Task, raw: RawFiles) -> list[str]:
    """Return a warning for each split with observations that are too long.

    There are none for a task that leaves out long observations itself, as the published preparation did.
    """
    if task.longest <= LONGEST:
        return []
    warnings = []
    for split in SPLITS:
        number = raw.tally.dropped[split, _too_long(task)]
        if number > 0:
            warnings.append(
                f"observations of {split} that have more than {LONGEST:,} tokens are left out:"
                f" {number:,} (no published one is so long)"
            )
    return warnings


def _tokenize(name: str, tokenize: Callable[[str], list[str]], chunk: list[Example]) -> list[_Tokenized]:
    """Return the examples of a chunk of the task `name` with their tokens. It may run in another process."""
    tokenized: list[_Tokenized] = []
    for example in chunk:
        text = _tokens(name, tokenize, example.text)
        query = _tokens(name, tokenize, example.query)
        tokenized.append((example, text, query))
    return tokenized


def _tokens(name: str, tokenize: Callable[[str], list[str]], text: str) -> list[str] | None:
    """Return the tokens of `text`; None if it is far too long, or has a word that is. The task is called `name`.

    The time to split a word into tokens grows with the square of its length.
    """
    if len(text) > _LONGEST_TEXT:
        return None
    if len(text) > _LONGEST_WORD:
        longest_word = max(map(len, text.split()), default=0)
        if longest_word > _LONGEST_WORD:
            return None
    return checked_tokens(name, tokenize(text))


def _tokenized(
    task: Task,
    examples: Iterable[Example],
    num_workers: int,
) -> Iterator[_Tokenized]:
    """Yield the examples with the tokens of text and query, in their order, whatever the number of processes is."""
    remaining = iter(examples)
    first_examples = list(islice(remaining, _WORTH_PROCESSES))
    chunks = _chunks(chain(first_examples, remaining))
    work = partial(_tokenize, task.name, task.tokenize)
    if num_workers < 2 or len(first_examples) < _WORTH_PROCESSES or not _can_be_sent(task.tokenize):
        for chunk in chunks:
            yield from work(chunk)
        return
    for tokenized in process.in_processes(num_workers, work, chunks):
        yield from tokenized


def _can_be_sent(tokenize: Callable[[str], list[str]]) -> bool:
    """Return whether a new process can import a function, which it cannot for one of a plug-in, or a lambda."""
    module = getattr(tokenize, "__module__", None) or ""
    return module.partition(".")[0] == "nlproar" and hasattr(tokenize, "__name__")


def _chunks(examples: Iterator[Example]) -> Iterator[list[Example]]:
    """Yield the examples in lists of `_CHUNK`, of which the last may be shorter."""
    chunk = list(islice(examples, _CHUNK))
    while chunk:
        yield chunk
        chunk = list(islice(examples, _CHUNK))


def _check(task: Task, raw: RawFiles, columns: Mapping[str, _Column]) -> None:
    """Raise UserError for a split without observations and, of few labels, for one that does not occur in a split."""
    for name, column in columns.items():
        if not column.label:
            raise _too_little(task, raw, f"no observation of {task.title} for {name}", name)
    if len(task.labels) > _FEW_LABELS:
        return
    for name, column in columns.items():
        labels = set(column.label)
        for label, label_name in enumerate(task.labels):
            if label in labels:
                continue
            problem = f"none of the {len(column.label):,} {name} observations of {task.title} is {label_name}"
            raise _too_little(task, raw, problem, name)


def _too_little(task: Task, raw: RawFiles, problem: str, split: str) -> UserError:
    """Return what to say of a task where too little is left of a split."""
    if task.is_in_memory:
        return UserError(f"{problem}; {raw.tally.left_out(split)}; add examples to the task")
    return UserError(f"{raw.place}: {problem}; {raw.tally.summary(split, task.records)}; check the files")


def _choose_vocabulary(
    train: _Column,
    words: list[str],
    min_document_frequency: int,
) -> Vocabulary:
    """Return the words that occur in at least `min_document_frequency` training observations.

    A word that occurs in the text and in the query of an observation counts once. `words` are in the order of their
    provisional numbers.
    """
    # The number of the observation that each token belongs to: 0 0 0 1 1 1 1 for texts of 3 and 4 tokens.
    observations = np.arange(len(train.lengths))
    observation = np.repeat(observations, np.array(train.lengths))
    tokens = np.array(train.tokens, dtype=np.int64)
    if len(train.query_lengths) > 0:
        observation_of_query = np.repeat(observations, np.array(train.query_lengths))
        observation = np.concatenate([observation, observation_of_query])
        tokens = np.concatenate([tokens, np.array(train.query_tokens, dtype=np.int64)])

    # A pair of observation and token is one number, so that `unique` finds the different pairs. With `size` 10, token 7
    # of observation 2 is 27, and 27 % 10 is the token again.
    size = len(SPECIALS) + len(words)
    pairs = np.unique(observation * size + tokens)
    frequency = np.bincount(pairs % size, minlength=size)
    frequency_of_words = frequency[len(SPECIALS) :]
    chosen = []
    for word, number in zip(words, frequency_of_words, strict=True):
        if number >= min_document_frequency:
            chosen.append(word)
    return Vocabulary.of(chosen)


def _offsets(lengths: array[int]) -> np.ndarray:
    """Return the offsets (N + 1,) int64 of sequences with these lengths: [3, 4] becomes [0, 3, 7]."""
    ends = np.cumsum(np.array(lengths, dtype=np.int64))
    return np.concatenate([[0], ends])


def _unpack(arrays: storage.Arrays) -> Dataset:
    """Return the data set that `encode` has put into arrays."""
    # The warnings are about the raw files, and are not part of the content. Where words begin changes no run that ranks
    # tokens: the digest of the data stays what it was before this was kept.
    state = hashlib.sha256()
    for name in sorted(arrays):
        if name != "warnings" and not name.endswith(f".{_WORD_STARTS}"):
            state.update(name.encode() + arrays[name].tobytes())

    splits = {}
    first = 0
    for name in SPLITS:
        prefix = f"{name}."
        columns = {}
        for key, values in arrays.items():
            if key.startswith(prefix):
                columns[key.removeprefix(prefix)] = values
        splits[name] = Split(**columns, first=first)
        first += len(splits[name])

    words = arrays["words"].tobytes().decode().split("\n")
    warnings: list[str] = []
    if "warnings" in arrays:  # data of format 1 have none
        lines = arrays["warnings"].tobytes().decode().split("\n")
        warnings = [line for line in lines if line]
    return Dataset(
        vocabulary=Vocabulary(tuple(words)),
        splits=splits,
        digest=state.hexdigest()[:16],
        warnings=tuple(warnings),
    )


def _as_array(lines: Sequence[str]) -> np.ndarray:
    """Return lines of text as an array of bytes in UTF-8, with a newline between two lines."""
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)
