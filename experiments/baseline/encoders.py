"""Texts, and a transformer with its initial weights, for both sides of the comparison with transformers' own way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline.world import SHAPE
from torch import Tensor

from nlproar.dataset import encoding, load_task
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.task import Example, Task, in_memory
from nlproar.dataset.tokenizer import whitespace
from nlproar.dataset.vocabulary import PAD
from nlproar.explain.importance import Explained, SplitImportance, build, explain
from nlproar.flags import choose
from nlproar.model.classifier import Start
from nlproar.model.recipes import TransformerRecipe
from nlproar.model.train import fit
from nlproar.model.transformer import Transformer
from nlproar.run.config import usual_measure
from nlproar.run.layout import Layout

MEASURE = "integrated-gradient"
GENERATED = {"train": 2_000, "val": 300, "test": 600}  # observations, where no raw files are named


class Encoders:
    """A transformer as nlproar has it, and splits of texts: those of SST, or generated ones of SST's lengths.

    `train`, `val` and `test` are drawn from the whole splits: `observations`, a tenth as many, and half as many.
    `explained` is drawn from the test split.
    """

    def __init__(
        self, model: str, raw: Path | None, folder: Path, observations: int, explained: int, device: torch.device
    ) -> None:
        self.device = device
        self.task = generated_task() if raw is None else load_task("sst")
        layout = Layout(folder)
        self.recipe = replace(TransformerRecipe(model=model).completed(layout), max_epochs=1)
        raw_dir = layout.raw if raw is None else raw
        self.dataset = encoding.load(self.task, "official", raw_dir, layout.cache, 0, self.recipe.subwords())
        start = Start(self.task, self.dataset, self.recipe, 0, raw_dir, layout.cache)
        self.model = Transformer.initial(start).to(device)
        self.initial = self._weights()
        self.trained: dict[str, Tensor] = {}  # the weights after an epoch, once `to_trained` was called
        splits = self.dataset.splits
        self.train = drawn(splits["train"], observations)
        self.val = drawn(splits["val"], -(-observations // 10))
        self.test = drawn(splits["test"], -(-observations // 2))
        self.explained = drawn(splits["test"], explained)

    def reset(self) -> None:
        """Give the model its initial weights."""
        self.model.load_state_dict(self.initial)

    def to_trained(self) -> None:
        """Give the model the weights that an epoch of training leaves."""
        if not self.trained:
            self.fit(self.train, self.val)
            self.trained = self._weights()
        self.model.load_state_dict(self.trained)

    def _weights(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def fit(self, train: Split, val: Split) -> None:
        """Train the model for an epoch from its initial weights, and validate it."""
        self.reset()
        fit(self.model, train, val, recipe=self.recipe, monitor="accuracy", seed=0, device=self.device)

    def explain(self, split: Split, baseline: str) -> SplitImportance:
        """Return the integrated gradient of every token of a split, as a run computes it."""
        explained = self._explained(split, baseline)
        return explain(MEASURE, build(MEASURE, explained), explained, "test")

    def predictions_of_each(self, split: Split, baseline: str) -> float:
        """Return how many predictions an explanation takes for each observation, as a mean: the points of its path."""
        explained = self._explained(split, baseline)
        model: Any = explained.model
        predicted: list[int] = []  # rows of every call

        def count(_: Any, __: Any, output: Any) -> None:
            predicted.append(len(output.logits))

        hook = model.network.register_forward_hook(count)
        explain(MEASURE, build(MEASURE, explained), explained, "test")
        hook.remove()
        return sum(predicted) / len(split)

    @property
    def explained_tokens(self) -> int:
        """The most tokens of a batch that is explained."""
        return self.model.explained_tokens[self.device.type]

    def _explained(self, split: Split, baseline: str) -> Explained:
        dataset = Dataset(self.dataset.vocabulary, {"test": split}, "benchmark")
        parameters = choose(usual_measure(MEASURE), {"integrated_gradient_baseline": baseline})
        return Explained(self.model, dataset, len(self.task.labels), 0, parameters, self.explained_tokens)

    def rows(self, split: Split) -> list[dict[str, Any]]:
        """Return the observations as transformers' own tools take them: a dictionary each, in the model's numbers."""
        permutation = self.model.permutation.cpu().numpy()
        found = []
        for tokens, label in zip(tokens_of_each(split), split.label, strict=True):
            ids = permutation[tokens]
            found.append({"input_ids": ids.tolist(), "attention_mask": [1] * len(ids), "labels": int(label)})
        return found

    @property
    def padding(self) -> int:
        """The model's own number of the padding token."""
        return int(self.model.permutation[PAD])


def drawn(split: Split, n: int) -> Split:
    """Return `n` observations of a split, drawn at random; all of them if there are fewer."""
    rows = np.random.default_rng(0).permutation(len(split))[:n]
    every = list(tokens_of_each(split))
    chosen = [every[row] for row in rows]
    lengths = [len(tokens) for tokens in chosen]
    return Split(np.concatenate(chosen), np.concatenate([[0], np.cumsum(lengths)]), split.label[rows])


def tokens_of_each(split: Split) -> Iterator[np.ndarray]:
    """Yield the tokens of each observation."""
    for start, stop in zip(split.offsets[:-1], split.offsets[1:], strict=True):
        yield split.tokens[start:stop]


def generated_task() -> Task:
    """Return a task whose texts have lengths like those of SST, and one word that says the label."""
    return in_memory("sst-like", list(_generated()), ("negative", "positive"), whitespace)


def _generated() -> Iterator[Example]:
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 2_001)  # a law like Zipf's
    share /= share.sum()
    for split, number in GENERATED.items():
        for index, length in enumerate(SHAPE["sst"].length(rng, number).astype(int)):
            words = [f"w{word}" for word in rng.choice(len(share), length, p=share)]
            words[rng.integers(length)] = ("bad", "good")[index % 2]
            yield Example(split, " ".join(words), index % 2)
