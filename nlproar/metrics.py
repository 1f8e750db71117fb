"""Performance of a classifier from its logits."""

from __future__ import annotations

import numpy as np
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
        score = torch.sigmoid(_score(logits))
        values["auroc"] = classification.binary_auroc(score, label)
    return {name: float(value) for name, value in values.items()}


def at_best_threshold(val: Tensor, val_label: Tensor, test: Tensor, test_label: Tensor) -> float:
    """Return macro F1 of test logits (N, 2) where the threshold between the classes is that of the best macro F1 on
    validation logits (M, 2).

    Macro F1 of `evaluate` is at equal logits. Where it is far below this one, the model still tells the classes apart,
    and only the threshold has drifted.
    """
    threshold = _best_threshold(_score(val).numpy(), val_label.numpy())
    predicted = (_score(test) > threshold).long()
    return float(classification.multiclass_f1_score(predicted, test_label, 2, average="macro"))


def _score(logits: Tensor) -> Tensor:
    return (logits[:, 1] - logits[:, 0]).double()


def _best_threshold(score: np.ndarray, label: np.ndarray) -> float:
    """Return the threshold with the highest macro F1, between two scores; of several the lowest. Scores above it are
    class 1. score (N,), label (N,) of 0 and 1.

    For example, scores 1, 2, 3 with labels 0, 1, 1 give 1.5.
    """
    order = np.argsort(score, kind="stable")
    score, label = score[order], label[order]
    # entry i stands for a threshold above the i lowest scores
    true_0 = np.concatenate([[0], np.cumsum(label == 0)])
    false_0 = np.concatenate([[0], np.cumsum(label == 1)])
    wrong = false_0 + true_0[-1] - true_0
    true_1 = false_0[-1] - false_0
    f1_of_0 = 2 * true_0 / np.maximum(2 * true_0 + wrong, 1)
    f1_of_1 = 2 * true_1 / np.maximum(2 * true_1 + wrong, 1)
    macro_f1 = (f1_of_0 + f1_of_1) / 2
    bounds = np.concatenate([[score[0] - 1], (score[1:] + score[:-1]) / 2, [score[-1] + 1]])
    is_between_equals = np.concatenate([[False], score[1:] == score[:-1], [False]])
    macro_f1[is_between_equals] = -1
    return float(bounds[macro_f1.argmax()])
