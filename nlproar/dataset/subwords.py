"""Subwords: the tokens of a pretrained model, numbered in our order.

A pretrained model comes with a tokenizer, which splits texts into parts of words and numbers them in an order of its
own. Here these numbers are permuted so that the padding, the start, the end, the mask and the unknown token come first,
as in `nlproar.dataset.vocabulary`, and the others follow in their own order. Masking, mutual information and the report
then work on subwords as they do on words.

A pair is encoded as the tokenizer joins it, and then split where the first text has ended:

    <s> a man sleeps </s> </s> he rests </s>    first: <s> a man sleeps </s>    second: </s> he rests </s>

so that one after the other they are what the model was trained to read.

A word is what the tokenizer splits into subwords: it first cuts a text at blanks and, usually, around punctuation.

Imports transformers only where texts are encoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from nlproar.dataset.pretrained import load_config, refused
from nlproar.dataset.vocabulary import CLS, EOS, SPECIALS
from nlproar.errors import UserError

VERSION = 3  # part of the cache key: raise it when the same texts come to have other tokens or words
TINY_VOCABULARY = 8000  # tokens of the tokenizer that is trained on the texts of a task

_CHUNK = 1000  # texts that are encoded at a time


@dataclass(frozen=True)
class Subwords:
    """Which tokenizer encodes the texts of a task."""

    model: str  # what the user calls it
    folder: str | None  # where the files of the tokenizer are; None where they are gone, and for `tiny`
    checksum: str | None  # of these files; None for `tiny`, whose tokenizer is trained on the training texts
    longest: int  # tokens of an observation, special tokens included; longer ones are truncated

    @property
    def key(self) -> dict[str, Any]:
        """What decides the tokens besides the texts, as JSON can hold it."""
        return {"version": VERSION, "tokenizer": self.checksum or f"tiny {TINY_VOCABULARY}", "longest": self.longest}


class Encoded(NamedTuple):
    """The tokens of one observation in our numbers."""

    tokens: np.ndarray  # (T,) int32, from [CLS] to [EOS]
    query_tokens: np.ndarray | None  # (Q,) int32, with the special tokens of the second text
    is_truncated: bool
    word_starts: np.ndarray  # (T,) bool: whether a word begins at the token; each special token is a word of its own


class SubwordTokenizer:
    """A tokenizer of transformers, which numbers tokens in our order.

    `permutation` (V,) has the number that the tokenizer itself gives to each of our tokens.
    """

    def __init__(self, tokenizer: Any, subwords: Subwords) -> None:
        self.tokenizer = tokenizer
        self.model = subwords.model
        self.longest = subwords.longest
        start, end = self._start_and_end()
        first = [tokenizer.pad_token_id, start, end, tokenizer.mask_token_id, tokenizer.unk_token_id]
        for name, number in zip(("padding", "start", "end", "mask", "unknown"), first, strict=True):
            if number is None:
                raise UserError(f"--model {self.model}: its tokenizer has no {name} token; choose another model")
        if len(set(first)) < len(first):
            raise UserError(
                f"--model {self.model}: two of its padding, start, end, mask and unknown tokens are the same one;"
                " choose another model"
            )
        self.known = sorted(tokenizer.get_vocab().items(), key=_number)
        rest = [number for _, number in self.known if number not in first]
        self.permutation = np.array([*first, *rest], dtype=np.int64)
        self._ours = np.zeros(self.permutation.max() + 1, dtype=np.int32)
        self._ours[self.permutation] = np.arange(len(self.permutation))

    def _start_and_end(self) -> tuple[int, int]:
        """Return the tokens that the tokenizer puts around a text. Raises UserError if these are not one each."""
        (single,) = self._call(["a"], None)
        (pair,) = self._call(["a"], ["a"])
        special = [position for position, text in enumerate(single.sequence_ids) if text is None]
        inside = len(single.ids) - 2
        is_usual = special == [0, len(single.ids) - 1] and pair.ids[: len(single.ids)] == single.ids
        if not is_usual or inside < 1 or pair.ids[-1] != single.ids[-1]:
            raise UserError(
                f"--model {self.model}: its tokenizer does not put one token at the start and one at the end of each"
                " text; choose another model"
            )
        return int(single.ids[0]), int(single.ids[-1])

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The tokens after the first five, as the tokenizer spells them, each on one line."""
        first = set(self.permutation[: len(SPECIALS)].tolist())
        return tuple(name.replace("\n", "\\n") for name, number in self.known if number not in first)

    @cached_property
    def query_type(self) -> int:
        """The token type of the second text of a pair; 0 where the tokenizer does not tell the two apart."""
        (pair,) = self._call(["a"], ["a"])
        return int(pair.type_ids[-1]) if "token_type_ids" in self.tokenizer.model_input_names else 0

    @cached_property
    def knows_words(self) -> bool:
        """Whether the tokenizer cuts a text into words first. To one that does not, every text is a single word."""
        (two,) = self._call(["a a"], None)
        words = {word for word in two.word_ids if word is not None}
        return len(words) == 2

    def encode(self, texts: Iterable[str], queries: Iterable[str] | None = None) -> Iterator[Encoded]:
        """Yield the tokens of each text, or of each pair of a text and a query."""
        one, other = iter(texts), None if queries is None else iter(queries)
        while chunk := list(islice(one, _CHUNK)):
            beside = None if other is None else list(islice(other, len(chunk)))
            for encoding in self._call(chunk, beside):
                yield self._split(encoding, is_pair=beside is not None)

    def _call(self, texts: Sequence[str], queries: Sequence[str] | None) -> Sequence[Any]:
        """Return the encodings of the library behind transformers, which know what was truncated.

        A special token that is spelled in a text, such as "[SEP]", is split like any other word.
        """
        found = self.tokenizer(
            list(texts),
            None if queries is None else list(queries),
            truncation="longest_first",
            max_length=self.longest,
            split_special_tokens=True,
        )
        encodings: Sequence[Any] = found.encodings
        return encodings

    def _split(self, encoding: Any, is_pair: bool) -> Encoded:
        ids = self._ours[np.array(encoding.ids)]
        is_truncated = bool(encoding.overflowing)
        if not is_pair:
            return Encoded(ids, None, is_truncated, word_starts(encoding.word_ids))
        length = 1 + encoding.sequence_ids.count(0) + 1
        return Encoded(ids[:length], ids[length:], is_truncated, word_starts(encoding.word_ids[:length]))


def word_starts(word_ids: Sequence[int | None]) -> np.ndarray:
    """Return at which tokens a word begins, (T,) bool, from the number of the word of each token.

    The number is None for special tokens, each of which counts as a word: None 0 0 1 None gives 1 1 0 1 1.
    """
    numbers = np.array([-1 if word is None else word for word in word_ids])
    starts = np.ones(len(numbers), dtype=bool)
    starts[1:] = (numbers[1:] != numbers[:-1]) | (numbers[1:] == -1)
    return starts


def _number(entry: tuple[str, int]) -> int:
    return entry[1]


def open_tokenizer(subwords: Subwords, training_texts: Iterable[str] = ()) -> SubwordTokenizer:
    """Return the tokenizer. Raises UserError where it cannot be read, or lacks what masking needs."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns wherever a process is started
    if subwords.checksum is None:
        return SubwordTokenizer(_trained(training_texts), subwords)
    config = load_config(folder_of(subwords), subwords.model)
    from transformers import AutoTokenizer

    with refused(subwords.model, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            subwords.folder, config=config, use_fast=True, local_files_only=True, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise UserError(f"--model {subwords.model}: its tokenizer is not a fast one (tokenizer.json); convert it")
    return SubwordTokenizer(tokenizer, subwords)


def folder_of(subwords: Subwords) -> str:
    """Return the folder of a model that has files. Raises UserError where it is gone."""
    if subwords.folder is None:
        raise UserError(
            f"--model {subwords.model}: its folder is gone; put it back, name where it lies now or, for a model of the"
            f" hub, fetch it with nlproar prepare TASK --model {subwords.model}"
        )
    return subwords.folder


def _trained(texts: Iterable[str]) -> Any:
    """Return a tokenizer of byte pairs (Sennrich et al. 2016) that is trained on `texts`.

    The same texts give the same tokenizer. It is in lower case, knows every byte, and has our special tokens under our
    numbers.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    padding, start, end, mask, unknown = SPECIALS
    bytes_of_text = pre_tokenizers.ByteLevel(add_prefix_space=True)
    pairs = Tokenizer(models.BPE(unk_token=unknown))
    pairs.normalizer = normalizers.Lowercase()
    pairs.pre_tokenizer = bytes_of_text
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TINY_VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(bytes_of_text.alphabet()),
        show_progress=False,
    )
    pairs.train_from_iterator(texts, trainer)
    pairs.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(start, CLS), (end, EOS)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pairs,
        pad_token=padding,
        cls_token=start,
        sep_token=end,
        mask_token=mask,
        unk_token=unknown,
    )
