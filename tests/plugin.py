"""A measure, a task, a model and a metric that are not a part of the package: `--plugin tests/plugin.py`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nlproar.dataset import TASKS as REGISTERED_TASKS
from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.task import Example, in_memory
from nlproar.dataset.tokenizer import whitespace
from nlproar.dataset.vocabulary import PAD
from nlproar.evaluate import EVALUATIONS
from nlproar.evaluate.evaluation import Evaluation
from nlproar.evaluate.roar import Level, Roar
from nlproar.explain import MEASURES, Measure
from nlproar.explain.importance import Scores
from nlproar.flags import flag
from nlproar.model import MODELS, Model
from nlproar.model.classifier import Classifier, Prediction
from nlproar.model.recipes import Recipe
from nlproar.seeds import derive

# A task: a word says the label, and the others say nothing.


def _examples() -> list[Example]:
    draws = random.Random(0)
    examples = []
    for split, number in (("train", 200), ("val", 60), ("test", 60)):
        for index in range(number):
            label = index % 2
            words = draws.choices(["a", "the", "film", "plot", "end"], k=7)
            words[draws.randrange(7)] = ("bad", "good")[label]
            examples.append(Example(split, " ".join(words), label))
    return examples


TASKS = {"films": in_memory("films", _examples(), ("negative", "positive"), whitespace, title="Films")}
REGISTERED_TASKS["films"] = "plugin"


# A measure with a parameter.


@dataclass(frozen=True)
class Favourite:
    """Parameters of the measure."""

    favourite: str = flag("good", "the word that is always the most important")


class FavouriteWord:
    """1 for one word and 0 for all others."""

    def __init__(self, explained):
        self.word = explained.dataset.vocabulary.ids.get(explained.parameters.favourite, -1)

    def __call__(self, batch: SequenceBatch) -> Scores:
        return Scores((batch.tokens == self.word).float().cpu())


MEASURES["favourite"] = Measure("plugin:FavouriteWord", needs_model=False, parameters=Favourite)


# A model: the mean of the embeddings, with dropout.


@dataclass(frozen=True)
class BagRecipe(Recipe):
    """How the model is built and trained."""

    size: int = flag(8, "numbers of an embedding", limits=(1, 1000))


class Bag(Classifier):
    """Linear in the mean embedding of the words."""

    def __init__(self, vocabulary_size: int, size: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, size, padding_idx=PAD)
        self.dropout = nn.Dropout(0.1)
        self.decode = nn.Linear(size, num_classes)

    @classmethod
    def initial(cls, start):
        shape = {
            "vocabulary_size": len(start.dataset.vocabulary),
            "size": start.recipe.size,
            "num_classes": len(start.task.labels),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(start.seed, "initialisation"))
            model = cls(**shape)
        model.shape = shape
        return model

    def embed(self, batch: SequenceBatch) -> Tensor:
        return self.embedding(batch.tokens)

    def forward(self, batch: SequenceBatch, embedded: Tensor | None = None) -> Prediction:
        embedded = self.embed(batch) if embedded is None else embedded
        words = batch.maskable[..., None]
        mean = (embedded * words).sum(dim=1) / words.sum(dim=1).clamp(min=1)
        return Prediction(self.decode(self.dropout(mean)), None)

    @property
    def embedding_matrix(self) -> Tensor:
        return self.embedding.weight

    def optimizer(self, recipe):
        return torch.optim.Adam(self.parameters(), lr=0.05)


MODELS["bag"] = Model("plugin:Bag", BagRecipe, lambda task: BagRecipe(max_epochs=4, batch_size=20))


# A metric without retraining: the unmasked model is tested on masked data.


class Erase(Roar):
    """Test performance of the unmasked model on data without the most important tokens."""

    Parameters = Level
    shares_base_of = "roar"

    def canonical(self, config):
        found = super().canonical(replace(config, parameters=replace(config.parameters, recursive=False)))
        if found.importance_measure is None:  # nothing or everything masked is a run of ROAR
            return replace(found, evaluation="roar")
        return found

    def previous(self, config):
        return None if config.importance_measure is None else _unmasked(config)

    def needs(self, config):
        return [_unmasked(config)]

    def compared(self, config):
        return []

    def carry_out(self, config, context):
        importance = self.importance(config, context)
        masks = self.masks(config, context)
        metrics = context.test(config, context.load_model(_unmasked(config)), masks)
        return context.record(config, metrics, masks, importance=importance)

    def base(self, grid, dataset: str, seed: int) -> Iterator:
        yield grid.config(dataset, seed, k=0)

    def name_parts(self, config):
        return ["erase", *super().name_parts(config)]

    def title(self, values):
        return "Erasing"


def _unmasked(config):
    return Roar().canonical(replace(config, evaluation="roar", parameters=Level(k=0)))


assert issubclass(Erase, Evaluation)
EVALUATIONS["erase"] = "plugin:Erase"
