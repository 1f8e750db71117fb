"""Masks of a whole data set: which tokens are `[MASK]`, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nlproar.dataset.encoding import Dataset


@dataclass(frozen=True, eq=False)
class Masks:
    """For each split, which of its tokens are masked: (S,) bool."""

    of_split: Mapping[str, np.ndarray]

    @classmethod
    def nothing(cls, dataset: Dataset) -> Masks:
        """Return the masks in which no token is masked."""
        return cls({name: np.zeros(len(split.tokens), bool) for name, split in dataset.splits.items()})

    @classmethod
    def everything(cls, dataset: Dataset) -> Masks:
        """Return the masks in which every token is masked that can be."""
        return cls({name: split.maskable for name, split in dataset.splits.items()})

    @cached_property
    def digest(self) -> str:
        """What identifies the masks: their content, whichever way led to it."""
        state = hashlib.sha256()
        for name in sorted(self.of_split):
            mask = self.of_split[name]
            state.update(f"{name} {len(mask)} ".encode())
            state.update(np.packbits(mask).tobytes())
        return state.hexdigest()

    def share(self, dataset: Dataset) -> dict[str, float]:
        """Return the share of the maskable tokens that are masked, for each split."""
        shares = {}
        for name, mask in self.of_split.items():
            maskable = dataset.splits[name].maskable
            shares[name] = float(mask.sum() / max(maskable.sum(), 1))
        return shares
