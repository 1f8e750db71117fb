"""Padded batches of observations, as models take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import FIRST_MASKABLE, PAD
from nlproar.masking import mask_at_random

_POOL = 50  # training batches that are sorted by length together
_ROUND = 8  # the width of a fixed batch is a multiple of this


@dataclass(frozen=True)
class SequenceBatch:
    """B observations, padded with [PAD] (0) to T tokens; the query of paired tasks to its own length."""

    tokens: Tensor  # (B, T) int64
    length: Tensor  # (B,) int64, [CLS] and [EOS] included
    label: Tensor  # (B,) int64
    observation: Tensor  # (B,) int64, the number of the observation in the data set
    query_tokens: Tensor | None = None  # (B, Q) int64
    query_length: Tensor | None = None  # (B,) int64

    @property
    def maskable(self) -> Tensor:
        """(B, T) bool: true but at [PAD], [CLS] and [EOS]."""
        return self.tokens >= FIRST_MASKABLE

    @property
    def width(self) -> int:
        """The tokens of an observation, padding included: of the longer sequence of a pair."""
        if self.query_tokens is None:
            return self.tokens.size(1)
        return max(self.tokens.size(1), self.query_tokens.size(1))

    def to(self, device: torch.device | str, **kwargs: object) -> SequenceBatch:
        """Return the batch on another device."""
        return self._map(lambda value: value.to(device))

    def repeat(self, times: int) -> SequenceBatch:
        """All B observations `times` times: (times * B) rows."""
        return self._map(lambda value: value.repeat(times, *[1] * (value.dim() - 1)))

    def rows(self, chosen: Tensor) -> SequenceBatch:
        """Return the observations `chosen` of the batch: their numbers (n,) int64, or (B,) bool."""
        return self._map(lambda value: value[chosen])

    def with_tokens(self, tokens: Tensor) -> SequenceBatch:
        """Return the batch with other tokens (B, T), of which as many are padding."""
        return replace(self, tokens=tokens)

    def _map(self, change: Callable[[Tensor], Tensor]) -> SequenceBatch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return SequenceBatch(**{name: change(value) for name, value in values.items() if value is not None})


def make_batch(
    split: Split, rows: np.ndarray, width: int | None = None, query_width: int | None = None
) -> SequenceBatch:
    """The observations `rows` (B,) of `split`, padded to `width` tokens or to the longest of them."""
    tokens, length = _padded(split.tokens, split.offsets, rows, width)
    query: tuple[Tensor | None, Tensor | None] = None, None
    if split.query_tokens is not None and split.query_offsets is not None:
        query = _padded(split.query_tokens, split.query_offsets, rows, query_width)
    return SequenceBatch(
        tokens, length, torch.from_numpy(split.label[rows]), torch.from_numpy(split.first + rows), *query
    )


def _padded(flat: np.ndarray, offsets: np.ndarray, rows: np.ndarray, width: int | None) -> tuple[Tensor, Tensor]:
    start, length = offsets[rows], offsets[rows + 1] - offsets[rows]
    position = np.arange(width or length.max())
    inside = position < length[:, None]
    tokens = np.where(inside, flat[np.where(inside, start[:, None] + position, 0)], PAD)
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(length)


class TrainingBatches:
    """Batches of `batch_size` in a new order at every pass: shuffled, then sorted by length in pools, so that
    little is padding, then the batches shuffled. The order depends on `seed` and the number of the pass."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        self.split, self.batch_size = split, batch_size
        self.rng = np.random.default_rng(seed)

    @property
    def state(self) -> dict[str, Any]:
        """What decides the order of the passes to come, as JSON can hold it. Set it between two passes."""
        return dict(self.rng.bit_generator.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.rng.bit_generator.state = state

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __iter__(self) -> Iterator[SequenceBatch]:
        split = self._of_this_pass()
        order = self.rng.permutation(len(split))
        pool = _POOL * self.batch_size
        lengths = split.lengths
        batches: list[np.ndarray] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        for number in self.rng.permutation(len(batches)):
            yield make_batch(split, batches[number])

    def _of_this_pass(self) -> Split:
        return self.split


class RandomlyMaskedBatches(TrainingBatches):
    """The same, with other random masks at every pass: each observation is masked with probability 1/2, and to
    another extent, see `nlproar.masking.mask_at_random`."""

    SHARE = 0.5

    def _of_this_pass(self) -> Split:
        return self.split.masked(mask_at_random(self.split.maskable, self.split.offsets, self.rng, self.SHARE))


class FixedBatches:
    """Every observation of `split` once, in batches of at most `tokens_per_batch` tokens (or one observation).

    Of pairs, neither the first sequences nor the second ones have more tokens than that. An observation is padded to
    widths that depend on its own lengths only. Iterating yields (rows, batch).
    """

    def __init__(self, split: Split, tokens_per_batch: int) -> None:
        self.split, self.tokens_per_batch = split, tokens_per_batch

    def __iter__(self) -> Iterator[tuple[np.ndarray, SequenceBatch]]:
        return ((rows, make_batch(self.split, rows, *widths)) for rows, *widths in self.plan())

    def plan(self) -> Iterator[tuple[np.ndarray, int, int]]:
        """The rows of each batch, its width and that of its query, for those who make the batches elsewhere."""
        width = _round_up(self.split.lengths)
        query_width = np.zeros_like(width)
        if self.split.query_offsets is not None:
            query_width = _round_up(np.diff(self.split.query_offsets))
        order = np.lexsort((-query_width, -width))  # the largest first: memory shows early, threads end together
        change = np.flatnonzero(np.diff(width[order]) | np.diff(query_width[order])) + 1
        for group in np.split(order, change):
            if not len(group):
                continue
            t, q = int(width[group[0]]), int(query_width[group[0]])
            size = max(1, self.tokens_per_batch // max(t, q))
            for i in range(0, len(group), size):
                yield group[i : i + size], t, q


def _round_up(lengths: np.ndarray) -> np.ndarray:
    return -(-lengths // _ROUND) * _ROUND
