"""What every model, also one of a user's own, must do before it is trained."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nlproar.dataset.vocabulary import MASK
from nlproar.errors import UserError
from nlproar.model import MODELS, Model
from nlproar.model.classifier import Classifier, Prediction
from nlproar.model.initial import check, initial_model
from nlproar.model.recipes import Recipe
from tests.conftest import random_split
from tests.stubs import Stub


class Mean(Stub):
    """Linear in the mean of the embeddings of the words."""

    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(30, 4)
        self.decode = torch.nn.Linear(4, 2)

    @classmethod
    def initial(cls, start):
        model = cls()
        model.shape = {}
        return model

    def embed(self, batch):
        return self.embedding(batch.tokens)

    def forward(self, batch, embedded=None):
        embedded = self.embed(batch) if embedded is None else embedded
        return Prediction(self.decode(self.pooled(batch, embedded)), None)

    def pooled(self, batch, embedded):
        words = batch.maskable[..., None]
        return (embedded * words).sum(dim=1) / words.sum(dim=1).clamp(min=1)


class WithPadding(Mean):
    """Padding counts, too."""

    def pooled(self, batch, embedded):
        return embedded.mean(dim=1)


class WithDifferentTokens(Mean):
    """Masked tokens are looked at besides the embeddings."""

    def forward(self, batch, embedded=None):
        logits = super().forward(batch, embedded).logits
        if embedded is None:
            logits = logits + (batch.tokens == MASK).any(dim=1, keepdim=True)
        return Prediction(logits, None)


class WithoutEmbeddings(Mean):
    """Tokens are looked up again whatever the embeddings are."""

    def forward(self, batch, embedded=None):
        return super().forward(batch, None)


class Forgetful(Mean):
    """Nobody could build it again."""

    @classmethod
    def initial(cls, start):
        return cls()


@pytest.fixture
def split():
    return random_split(np.random.default_rng(0), 20, 12, 25, 2, paired=False)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (WithPadding, "its logits depend on the padding of the batch"),
        (WithDifferentTokens, "its logits from embeddings are not those from tokens"),
        (WithoutEmbeddings, "its logits have no gradient with respect to the embeddings that it is given"),
        (Stub, "it takes no embeddings in the place of tokens"),
    ],
)
def test_a_model_whose_explanations_would_be_wrong_is_refused(model, said, split):
    with pytest.raises(UserError, match=f"--model-type x: this model cannot be explained, as {said}"):
        check(model(), split, "--model-type x")


def test_a_model_that_looks_at_its_words_only_is_not_refused(split):
    check(Mean(), split, "--model-type x")


def test_the_bilstm_is_not_refused(world):
    model, dataset = world
    check(model, dataset.splits["train"], "--model-type rnn")


def test_a_model_that_could_not_be_saved_is_refused_before_it_is_trained(split, monkeypatch):
    start = SimpleNamespace(dataset=SimpleNamespace(splits={"train": split}), recipe=Recipe())
    monkeypatch.setitem(MODELS, "mean", Model("tests.test_initial:Mean", Recipe, lambda task: Recipe()))
    monkeypatch.setitem(MODELS, "forgetful", Model("tests.test_initial:Forgetful", Recipe, lambda task: Recipe()))
    assert isinstance(initial_model("mean", start), Mean)
    with pytest.raises(UserError, match="--model-type forgetful: `initial` of Forgetful does not set `shape`"):
        initial_model("forgetful", start)


def test_a_model_that_lacks_what_every_model_has_cannot_be_made():
    class Incomplete(Classifier):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Incomplete()
