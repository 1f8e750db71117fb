"""Any model that can be trained, tested and explained.

Letters: B batch, T tokens, V vocabulary, E embedding, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nlproar.dataset.batch import SequenceBatch
from nlproar.errors import UserError
from nlproar.model import MODELS
from nlproar.model.recipes import Recipe
from nlproar.plugins import imported

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Dataset
    from nlproar.dataset.task import Task


class Prediction(NamedTuple):
    """What a model says of a batch."""

    logits: Tensor  # (B, C)
    attention: Tensor | None  # (B, T), sums to 1 over the maskable tokens, 0 elsewhere; None for a model without


@dataclass(frozen=True)
class Start:
    """What a model is made from, before it is trained."""

    task: Task
    dataset: Dataset
    recipe: Any  # a `Recipe`, of the class that the model's registry entry names
    seed: int  # of the run, from which a seed for each purpose is derived
    raw_dir: Path  # where the user's files are
    cache_dir: Path  # where derived files may be kept


class Classifier(nn.Module, ABC):
    """A model with token embeddings, logits and a way to be trained.

    A subclass is registered in `nlproar.model.MODELS`. `shape` are the arguments of its constructor, as JSON can hold
    them: together with the weights they are the whole model.
    """

    shape: Mapping[str, Any]
    evaluation_tokens: ClassVar[int] = 16_384  # of a batch that is tested
    explained_tokens: ClassVar[Mapping[str, int]] = {}  # the most tokens of a batch that is explained, by device

    @classmethod
    @abstractmethod
    def initial(cls, start: Start) -> Classifier:
        """Return the model before training. It must not depend on masks, so that it is the same at every level."""

    @abstractmethod
    def embed(self, batch: SequenceBatch) -> Tensor:
        """Return the embeddings of the first sequence, (B, T, E): the same space on every device and for every size."""

    @abstractmethod
    def forward(self, batch: SequenceBatch, embedded: Tensor | None = None) -> Prediction:
        """Predict a batch. `embedded` (B, T, E) takes the place of what `embed` returns."""

    @property
    @abstractmethod
    def embedding_matrix(self) -> Tensor:
        """The embeddings of all tokens, (V, E)."""

    def predict_from_tokens(self, batch: SequenceBatch) -> Tensor:
        """Return the logits (B, C) from the tokens of a batch. `nlproar.model.initial` compares them with those from
        embeddings; a subclass whose `forward` always goes by way of embeddings overrides this."""
        prediction: Prediction = self(batch)
        return prediction.logits

    def activations(self, batch: SequenceBatch) -> list[Tensor]:
        """Return, for each layer, the largest activation of each of its D channels over the tokens of an observation,
        (B, D). Padding does not count.

        `nlproar.evaluate.in_distribution` asks for them. A model that has none to offer returns an empty list.
        """
        return []

    def to_full_precision(self) -> None:
        """Compute in the precision of the weights from now on, as a model does that is explained.

        A subclass that may compute in a lower precision overrides this. Predictions may change by rounding.
        """

    def view(self) -> View:
        """Return the model as measures look at it; a subclass may offer a cheaper one. Its weights must not change
        meanwhile."""
        return View(self)

    def attending(self) -> View:
        """Return a view whose predictions have attention weights, if the model has any; a subclass for which that costs
        something offers them here only."""
        return self.view()

    def rolling_out(self) -> View:
        """Return a view whose predictions have attention that is followed through all layers of it.

        Raises UserError for a model that does not offer this.
        """
        raise UserError(
            f"{type(self).__name__} does not follow attention through layers; choose another --importance-measure"
        )

    @abstractmethod
    def optimizer(self, recipe: Recipe) -> torch.optim.Optimizer:
        """Return the optimizer of its parameters."""

    def schedule(self, recipe: Recipe, step: int, steps: int) -> float:
        """Return the share of the learning rate that step `step` (from 0) of the `steps` of a training has.

        It depends on nothing else, so that a training that is continued has the same rates as one that was not stopped.
        """
        return 1.0


@dataclass(frozen=True)
class Inputs:
    """The values at which gradients are taken, for one batch. A subclass holds what else a prediction needs."""

    values: Tensor  # (B, T, P)

    def at(self, values: Tensor, times: int = 1) -> Inputs:
        """Return other values for the same batch, of which each observation is repeated `times` times."""
        return Inputs(values)

    def rows(self, chosen: Tensor) -> Inputs:
        """Return the observations `chosen`: their numbers (n,) int64, or (B,) bool."""
        return Inputs(self.values[chosen])


class View:
    """A model as measures look at it: its inputs, and predictions from other inputs.

    The inputs (B, T, P) are the embeddings of the first sequence, or an image of them under a linear map without a
    constant. A measure may use a view only if its values are the same either way, as those in
    `nlproar.explain.gradient` are. A measure that takes a norm at the embeddings, or adds noise there, works with
    `Classifier.embed` and with `embedded` of `Classifier.forward` instead.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model

    def inputs(self, batch: SequenceBatch) -> Inputs:
        """Return the inputs of a batch."""
        return Inputs(self.model.embed(batch).detach())

    def predict(self, batch: SequenceBatch, inputs: Inputs) -> Prediction:
        """Predict a batch from other inputs."""
        prediction: Prediction = self.model(batch, inputs.values)
        return prediction

    def answer(self, batch: SequenceBatch) -> Prediction:
        """Predict a batch as it is."""
        return self.predict(batch, self.inputs(batch))

    def project(self, embedded: Tensor) -> Tensor:
        """Apply to vectors (*, E) the linear map that makes inputs (*, P) of embeddings."""
        return embedded


def largest(states: Tensor, inside: Tensor) -> Tensor:
    """Return the largest of states (B, T, D) over the positions where `inside` (B, T) is true, (B, D)."""
    lowest = torch.finfo(states.dtype).min
    return states.masked_fill(~inside[..., None], lowest).amax(dim=1)


def build(model_type: str, shape: Mapping[str, Any]) -> Classifier:
    """Return an untrained model. `shape` holds the arguments of its constructor."""
    model: Classifier = class_of(model_type)(**shape)
    model.shape = dict(shape)
    return model


def class_of(model_type: str) -> type[Classifier]:
    """Return the class of a model, by a key of `MODELS`."""
    module, _, name = MODELS[model_type].location.partition(":")
    found: type[Classifier] = getattr(imported(module, f"model {model_type}"), name)
    return found
