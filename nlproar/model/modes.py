"""Training and evaluation mode of a model: dropout and its like are active in the one and not in the other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


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


def frozen(model: Model) -> Model:
    """A copy of `model` to be explained: it shares the weights, is in evaluation mode, and computes no gradient of
    them. The model itself stays as it is.

    Recurrent layers lose their dropout instead of training mode, as cuDNN differentiates them in that mode only.
    """
    # `deepcopy` does not copy what stands in its memo, and takes it from there.
    shared: dict[int, Any] = {id(weight): nn.Parameter(weight.detach(), False) for weight in model.parameters()}
    shared |= {id(buffer): buffer.detach() for buffer in model.buffers()}
    copied = copy.deepcopy(model, shared).eval()
    for module in copied.modules():
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0
            module.train()
    return copied
