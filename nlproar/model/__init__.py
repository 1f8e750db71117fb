"""The models that can be trained and explained, by the name that `--model-type` takes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from nlproar.model import recipes

if TYPE_CHECKING:
    from nlproar.dataset.task import Task


class Model(NamedTuple):
    """Where a model is, and how it is trained."""

    location: str  # module and class, a `nlproar.model.classifier.Classifier`
    recipe_type: type[recipes.Recipe]  # the dataclass of its recipe, whose fields are flags
    recipe: Callable[[Task], Any]  # the usual recipe for a task
    lacks: tuple[str, ...] = ()  # measures that explain models of another kind
    title: str | None = None  # what a reader calls it, if that is another word than the name


MODELS = {
    "rnn": Model(
        "nlproar.model.bilstm_attention:BiLSTMAttention",
        recipes.BiLSTMRecipe,
        recipes.bilstm,
        lacks=("attention-rollout",),
        title="BiLSTM",
    ),
    "transformer": Model(
        "nlproar.model.transformer:Transformer",
        recipes.TransformerRecipe,
        recipes.transformer,
        lacks=("attention-times-gradient",),
    ),
}

ALIASES = {"roberta": "transformer"}  # the name in the published code; the usual transformer is roberta-base


def model_named(name: str) -> str:
    """Return the name of a model, also from the name that it has in the published code."""
    return ALIASES.get(name, name)
