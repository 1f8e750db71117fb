"""GradientSHAP: the gradient between the text and texts of random words."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.draws import generator
from nlproar.explain.gradient import FromGradient, input_gradient
from nlproar.explain.importance import Explained, Scores


class GradientShap(FromGradient):
    """|mean of (x - b) · g(b + α (x - b))| over baselines b and points α (Lundberg & Lee 2017, arXiv 1705.07874; Erion
    et al. 2021, arXiv 1906.10670, call it expected gradients).

    A baseline is a text of the same length whose words are drawn from those of the training split, each as often as it
    occurs there; special tokens stay. At a level of Recursive ROAR, some words of the training split are `[MASK]`, so
    `[MASK]` is drawn as well. α is uniform in [0, 1), one for each baseline. The signed values sum to logit(x) minus
    the mean logit of such texts, up to the error of the sampling, which falls with `gradient_shap_samples`.
    """

    invariant = True  # the sum of products of gradient and difference is the same in every space

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        train = explained.dataset.splits["train"]
        self.words = train.tokens[train.maskable]
        self.samples = int(explained.parameters.gradient_shap_samples)
        self.seed = explained.seed

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding and special tokens."""
        return Scores(self.signed(batch).abs())

    def signed(self, batch: SequenceBatch) -> Tensor:
        """Return the mean with its sign, (B, T)."""
        inputs = self.view.inputs(batch)
        total = torch.zeros_like(batch.tokens, dtype=inputs.values.dtype)
        for sample in range(self.samples):
            alpha, words = self._draw(batch, sample)
            tokens = torch.where(batch.maskable, words, batch.tokens)
            baseline = self.view.inputs(batch.with_tokens(tokens)).values
            difference = inputs.values - baseline
            between = inputs.at(baseline + alpha[:, None, None] * difference)
            total += (input_gradient(self.view, batch, between) * difference).sum(dim=2)
        return total / self.samples

    def _draw(self, batch: SequenceBatch, sample: int) -> tuple[Tensor, Tensor]:
        """Return α (B,) and words (B, T) of one sample, from the seed and the number of each observation."""
        width = batch.tokens.size(1)
        alphas, words = [], []
        for number in batch.observation.tolist():
            rng = generator(self.seed, number, sample)
            alphas.append(rng.random(dtype=np.float32))
            words.append(self.words[(rng.random(width) * len(self.words)).astype(np.int64)])
        device = batch.tokens.device
        alpha = torch.tensor(alphas, device=device)
        return alpha, torch.from_numpy(np.stack(words).astype(np.int64)).to(device)
