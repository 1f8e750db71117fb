"""Generated data of the shape of a task, and both models with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from baseline import published

from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import Vocabulary
from nlproar.explain.importance import TOKENS_PER_BATCH, Explained, build, explain
from nlproar.flags import choose
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.model.recipes import BiLSTMRecipe
from nlproar.model.train import fit
from nlproar.run.config import usual_measure


@dataclass(frozen=True)
class Shape:
    """Data and model like those of a task. Sizes count the observations a stage works on; 0 leaves it out."""

    title: str
    vocabulary: int
    embedding: int
    hidden: int
    classes: int
    batch: int
    length: Callable[[Any, int], Any]  # (rng, n) -> (n,) words
    epoch: int
    explained: int
    integrated: int
    masked: int
    step: int = 0
    paired: bool = False


SHAPE = {
    "sst": Shape("SST-like", 13_000, 300, 128, 2, 32, lambda rng, n: rng.gamma(4.0, 5.0, n) + 3, 960, 2_000, 16, 5_000),
    "imdb": Shape(
        "IMDB-like", 13_000, 300, 128, 2, 32, lambda rng, n: (170 * rng.lognormal(0, 0.5, n)).clip(7, 398),
        320, 512, 4, 2_000, step=96,
    ),
    "babi-1": Shape(
        "bAbI-1-like", 30, 50, 32, 36, 50, lambda rng, n: 7 * rng.integers(2, 11, n) - 1,
        2_000, 1_000, 50, 5_000, paired=True,
    ),
    "mimic": Shape("MIMIC-like", 20_000, 300, 128, 2, 32, lambda rng, n: rng.normal(2000, 200, n), 4, 8, 0, 200),
}  # fmt: skip


class World:
    """Data, weights and both models of one shape."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.shape, self.device = shape, device
        self.rng = np.random.default_rng(0)
        self.words = Vocabulary(tuple(f"w{i}" for i in range(shape.vocabulary - 5)))
        torch.manual_seed(0)
        size = (shape.vocabulary, shape.embedding, shape.hidden, shape.classes, shape.paired)
        self.ours = BiLSTMAttention(*size).to(device)
        self.theirs = published.Model(*size).to(device)
        published.copy_weights(self.ours, self.theirs)
        self.start = {name: value.clone() for name, value in self.ours.state_dict().items()}

    def split(self, n: int, together: int = 1) -> Split:
        """`n` observations: words by a law like Zipf's, lengths and labels of the shape. Lengths occur `together`
        times, as in a whole data set, where many observations are equally long."""

        def flat(lengths: Any) -> tuple[Any, Any]:
            share = 1 / np.arange(1, self.shape.vocabulary - 4)
            rows = [[1, *self.rng.choice(len(share), k, p=share / share.sum()) + 5, 2] for k in lengths]
            return np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum(lengths + 2)])

        lengths = np.quantile(self.shape.length(self.rng, 10_000), (np.arange(n) // together + 0.5) / -(-n // together))
        lengths = self.rng.permutation(lengths.astype(np.int64))
        query, query_offsets = flat(self.rng.integers(4, 7, n)) if self.shape.paired else (None, None)
        tokens, offsets = flat(lengths)
        return Split(tokens, offsets, self.rng.integers(0, self.shape.classes, n), query, query_offsets)

    def dataset(self, **splits: Split) -> Dataset:
        """A data set of these splits."""
        return Dataset(self.words, splits, "benchmark")

    def explain(self, measure: str, split: Split, samples: int | None = None) -> np.ndarray:
        """The importance of every token of a split for our model, see `explain_all`."""
        return self.explain_all(measure, self.dataset(train=split), samples)["train"]

    def explain_all(self, measure: str, dataset: Dataset, samples: int | None = None) -> dict[str, np.ndarray]:
        """The importance of every token of each split, with `samples` points, or as many as are usual."""
        parameters = choose(usual_measure(measure), {"riemann_samples": samples})
        tokens = TOKENS_PER_BATCH[self.device.type]
        explained = Explained(self.ours, dataset, self.shape.classes, 0, parameters, tokens)
        explainer = build(measure, explained)
        return {name: explain(measure, explainer, explained, name).values for name in dataset.splits}

    def fit(self, model: BiLSTMAttention, train: Split, val: Split, epochs: int) -> None:
        """Train a model of ours with the optimizer that the other side has, too."""
        recipe = BiLSTMRecipe(max_epochs=epochs, batch_size=self.shape.batch)
        fit(model, train, val, recipe=recipe, monitor="accuracy", seed=0, device=self.device)

    def reset(self) -> None:
        """Both models as they were."""
        self.ours.load_state_dict(self.start)
        self.ours.requires_grad_(True)
        published.copy_weights(self.ours, self.theirs)
