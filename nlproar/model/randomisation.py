"""Models of which some layers have lost what they learned, as Adebayo et al. 2018 (arXiv 1810.03292) compare them."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection

import torch

from nlproar.model.classifier import Classifier
from nlproar.seeds import derive


def layers(model: Classifier) -> dict[str, list[str]]:
    """Return the names of the parameters of each layer, from the output of a model to its input.

    A layer is a module with parameters of its own. Modules in one of several numbered blocks, such as
    `encoder.layer.3.attention` and `encoder.layer.3.output`, make up one layer, `encoder.layer.3`. The order is that in
    which the model declares its modules, backwards.
    """
    of_layer: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        of_layer.setdefault(_layer_of(name), []).append(name)
    return dict(reversed(of_layer.items()))


def _layer_of(parameter: str) -> str:
    """Return the layer of a parameter: "a.layer.3" for "a.layer.3.b.weight", and "a.b" for "a.b.weight"."""
    # What matches in the first example is "a.layer.3": the shortest beginning that ends with a number.
    block = re.match(r".*?\.\d+(?=\.)", parameter)
    if block:
        return block.group()
    return parameter.rpartition(".")[0] or parameter


@torch.no_grad()
def with_shuffled(model: Classifier, parameters: Collection[str], seed: int) -> Classifier:
    """Return a copy of a model in which the values of each of these parameters stand in a random order.

    The values themselves stay, so the scale of each layer is that of the trained model, and activations do not vanish
    or saturate. A parameter has the same order whatever the others are.
    """
    copied = copy.deepcopy(model)
    for name, weight in copied.named_parameters():
        if name in parameters:
            generator = torch.Generator().manual_seed(derive(seed, f"shuffled {name}"))
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
    return copied
