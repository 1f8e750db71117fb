"""Words and their ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

SPECIALS = ("[PAD]", "[CLS]", "[EOS]", "[MASK]", "[UNK]")
PAD, CLS, EOS, MASK, UNK = range(len(SPECIALS))
FIRST_MASKABLE = MASK  # [PAD], [CLS] and [EOS] can never be masked; [MASK] and [UNK] count as words


@dataclass(frozen=True)
class Vocabulary:
    """`SPECIALS`, then the words in sorted order, so that ids do not depend on the order of reading."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, words: Iterable[str]) -> Vocabulary:
        """Return the vocabulary of these words, sorted and each once."""
        return cls(tuple(sorted(set(words) - set(SPECIALS))))

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word to id. A word of a text that looks like a special token is not one, and is not in here."""
        return {word: number for number, word in enumerate(self.words, start=len(SPECIALS))}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """`[CLS]`, the ids of `tokens` ([UNK] for those without one), `[EOS]`."""
        return [CLS, *(self.ids.get(token, UNK) for token in tokens), EOS]

    def decode(self, ids: Iterable[int] | np.ndarray) -> list[str]:
        """The tokens of `ids` without `[PAD]`, `[CLS]` and `[EOS]`: the inverse of `encode`."""
        names = SPECIALS + self.words
        return [names[number] for number in ids if number >= FIRST_MASKABLE]
