"""Classifiers of which a test writes only what it looks at."""

from __future__ import annotations

from nlproar.model.classifier import Classifier


class Stub(Classifier):
    """A model that can do nothing."""

    @classmethod
    def initial(cls, start):
        raise NotImplementedError

    def embed(self, batch):
        raise NotImplementedError

    def forward(self, batch, embedded=None):
        raise NotImplementedError

    @property
    def embedding_matrix(self):
        raise NotImplementedError

    def optimizer(self, recipe):
        raise NotImplementedError
