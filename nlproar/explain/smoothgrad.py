"""SmoothGrad: the gradient, averaged over noisy copies of the input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.draws import generator
from nlproar.explain.gradient import FromGradient, input_gradient, vocabulary_factor
from nlproar.explain.importance import Explained, Scores


class SmoothGrad(FromGradient):
    """‖mean(g) Wᵀ‖₂, where g is the gradient at the embedding plus normal noise (Smilkov et al. 2017, arXiv
    1706.03825).

    The standard deviation of the noise is `smoothgrad_noise` times the range of the values of the embedded observation.
    Without noise it is the measure `gradient`. Noise is added at the embeddings, so the cheaper view is not used.
    """

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        self.factor = vocabulary_factor(self.model.embedding_matrix)
        self.samples = int(explained.parameters.smoothgrad_samples)
        self.noise = float(explained.parameters.smoothgrad_noise)
        self.seed = explained.seed

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding."""
        inputs = self.view.inputs(batch)
        deviation = self.noise * _range(inputs.values, batch.length)
        total = torch.zeros_like(inputs.values)
        for sample in range(self.samples):
            noise = self._draw(batch, inputs.values, sample)
            noisy = inputs.at(inputs.values + deviation[:, None, None] * noise)
            total += input_gradient(self.view, batch, noisy)
        return Scores((total / self.samples @ self.factor).norm(dim=2))

    def _draw(self, batch: SequenceBatch, like: Tensor, sample: int) -> Tensor:
        """Return standard normal noise, (B, T, E), from the seed and the number of each observation."""
        shape = like.shape[1:]
        drawn = [
            generator(self.seed, number, sample).standard_normal(shape, dtype=np.float32)
            for number in batch.observation.tolist()
        ]
        return torch.from_numpy(np.stack(drawn)).to(like)


def _range(values: Tensor, length: Tensor) -> Tensor:
    """Return the largest minus the smallest of the values (B, T, E) of each observation, padding aside: (B,)."""
    position = torch.arange(values.size(1), device=values.device)
    is_padding = (position >= length[:, None])[..., None]
    largest = values.masked_fill(is_padding, -torch.inf).amax(dim=(1, 2))
    smallest = values.masked_fill(is_padding, torch.inf).amin(dim=(1, 2))
    return largest - smallest
