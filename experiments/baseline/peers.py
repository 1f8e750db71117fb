"""Other libraries on our own model, with their usual settings."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from captum.attr import IntegratedGradients
from torch import Tensor

from nlproar.dataset.batch import FixedBatches, SequenceBatch
from nlproar.dataset.encoding import Split
from nlproar.model.classifier import Classifier
from nlproar.model.modes import frozen

STEPS = 50  # Captum's default


class Attribution(NamedTuple):
    """What Captum says of a split of N observations with S tokens."""

    values: np.ndarray  # (S,) float32, the absolute value of an integrated gradient
    gap: np.ndarray  # (N,), by how much its sum misses the difference of the logits; 0 where nobody asked for it


def integrated_gradient(
    model: Classifier, split: Split, tokens_per_batch: int, steps: int = STEPS, with_gap: bool = False
) -> Attribution:
    """Return Captum's integrated gradient of every token of a split, from the zero embedding.

    Captum gets the same batches as ours, and as many points at once as fit into `tokens_per_batch` tokens.
    """
    explained = frozen(model)
    device = next(explained.parameters()).device
    values = np.zeros(len(split.tokens), np.float32)
    gap = np.zeros(len(split))

    def forward(embedded: Tensor, *tensors: Tensor) -> Tensor:
        logits: Tensor = explained(SequenceBatch(*tensors), embedded).logits
        return logits

    method: Any = IntegratedGradients(forward)
    for rows, whole in FixedBatches(split, tokens_per_batch):
        batch = whole.to(device)
        tensors = [batch.tokens, batch.length, batch.label, batch.observation]
        if batch.query_tokens is not None and batch.query_length is not None:
            tensors += [batch.query_tokens, batch.query_length]
        attributions = method.attribute(
            explained.embed(batch).detach(),
            target=batch.label,
            additional_forward_args=tuple(tensors),
            n_steps=steps,
            internal_batch_size=max(len(rows), tokens_per_batch // batch.tokens.size(1)),
            return_convergence_delta=with_gap,
        )
        if with_gap:
            attributions, delta = attributions
            gap[rows] = delta.abs().cpu().numpy()
        found = attributions.sum(dim=2).abs().float().cpu().numpy()
        position = np.arange(found.shape[1])
        inside = position < split.lengths[rows][:, None]
        values[(split.offsets[rows][:, None] + position)[inside]] = found[inside]
    return Attribution(values, gap)
