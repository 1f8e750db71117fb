"""The model that always answers the most frequent training label: what nothing but the labels allows."""

from __future__ import annotations

import numpy as np


def majority_performance(train_label: np.ndarray, test_label: np.ndarray, metric: str) -> float:
    """Test performance, 0 to 1, of always answering the most frequent of `train_label` (N,); of equally frequent
    ones the first. Macro F1 as in `nlproar.metrics`: over the classes that are a label or a prediction."""
    answer = np.bincount(train_label).argmax()
    right = float((test_label == answer).mean())
    if metric == "auroc":
        return 0.5
    if not metric.startswith("macro_f1"):
        return right  # accuracy, micro F1
    classes = np.union1d(test_label, [answer])
    return 2 * right / (1 + right) / len(classes)
