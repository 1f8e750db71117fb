"""Training and evaluation mode of a model: dropout and its like are active in the one and not in the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """While this lasts, `model` is in training mode, or in evaluation mode.

    Afterwards, also after an exception, every submodule is in the mode it had before.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode
