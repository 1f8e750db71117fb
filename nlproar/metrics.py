"""Performance of a classifier from its logits."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar import process

with process.without_rank():
    from torchmetrics.functional import classification


def evaluate(logits: Tensor, label: Tensor) -> dict[str, float]:
    """Metrics of logits (N, C) against label (N,): accuracy, macro_f1, micro_f1 in 0 to 1, cross_entropy in nats.

    Two classes also have auroc, of the difference of the logits; 0.5 is chance. Macro F1 is the mean over the
    classes that are a label or a prediction at least once.
    """
    classes = logits.size(1)
    predicted = logits.argmax(dim=1)
    hits = (predicted == label).float().mean()
    values = {
        "accuracy": hits,
        "macro_f1": classification.multiclass_f1_score(predicted, label, classes, average="macro"),
        "micro_f1": classification.multiclass_f1_score(predicted, label, classes, average="micro"),
        "cross_entropy": torch.nn.functional.cross_entropy(logits.double(), label),
    }
    if classes == 2:
        # sigmoid is monotone; in double precision it keeps logits apart that single precision would tie
        score = torch.sigmoid((logits[:, 1] - logits[:, 0]).double())
        values["auroc"] = classification.binary_auroc(score, label)
    return {name: float(value) for name, value in values.items()}
