"""The BiLSTM with additive attention of Jain & Wallace (2019, arXiv 1902.10186), for one sequence or a pair.

Letters: B batch, T tokens, Q tokens of the query, V vocabulary, E embedding, H hidden per direction, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlproar import storage
from nlproar.dataset import vectors
from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import PAD
from nlproar.model.classifier import Classifier, Inputs, Prediction, Start, View, largest
from nlproar.model.recipes import BiLSTMRecipe
from nlproar.model.recurrence import Recurrence, gate_order
from nlproar.seeds import derive

SMALL = 64  # states a direction up to which torch's LSTM is the faster one on a CPU (experiments/LOG.md)
FEW = 16  # rows up to which it is, whatever the states, where no gradient is wanted


def reverse_within(x: Tensor, length: Tensor) -> Tensor:
    """Each sequence of x (B, T, *) reversed within its own length (B,); padding stays where it is: [a b c pad] becomes
    [c b a pad]."""
    position = torch.arange(x.size(1), device=x.device)
    mirrored = torch.where(position < length[:, None], length[:, None] - 1 - position, position)
    return x.gather(1, mirrored[..., None].expand_as(x))


class BiLSTM(nn.Module):
    """One bidirectional LSTM layer on padded batches, equal to the one on packed sequences.

    It takes what `project` makes of the embeddings, which is linear in them: for a loop that is written out
    (`Recurrence`) the product with the input weights, so that a caller can make it once for words that repeat and for
    points on a line; else, on a GPU and for small states, the embeddings themselves, as cuDNN and oneDNN want them.
    There the backward direction runs forward over sequences reversed within their length, so that neither direction
    sees padding before a token (packed sequences make a CPU several times slower).
    """

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)

    def written_out(self, device: torch.device) -> bool:
        """Whether the loop over the tokens is `Recurrence` there."""
        return device.type == "cpu" and self.forward_lstm.hidden_size > SMALL

    def project(self, x: Tensor) -> Tensor:
        """x (*, E) to (*, P): what enters the recurrence. Linear, without a constant."""
        if not self.written_out(x.device):
            return x
        return nn.functional.linear(
            x, torch.cat([gate_order(weight) for weight in self._parameters_named("weight_ih")])
        )

    def forward(self, projected: Tensor, length: Tensor) -> Tensor:
        """projected (B, T, P), length (B,) to states (B, T, 2H), meaningless at padding."""
        if not self.written_out(projected.device):
            return self.by_torch(projected, length)
        weight = torch.stack([gate_order(one).T for one in self._parameters_named("weight_hh")])
        biases = zip(self._parameters_named("bias_ih"), self._parameters_named("bias_hh"), strict=True)
        bias = torch.stack([gate_order(one + other)[None] for one, other in biases])
        inside = torch.arange(projected.size(1))[:, None] < length
        apply: Any = Recurrence.apply  # which has no types
        states: Tensor = apply(projected.transpose(0, 1), weight, bias, inside)
        return states.transpose(0, 1)

    def by_torch(self, embedded: Tensor, length: Tensor) -> Tensor:
        """Return the same states from the embeddings (B, T, E), by torch's LSTM."""
        ahead, _ = self.forward_lstm(embedded)
        mirrored, _ = self.backward_lstm(reverse_within(embedded, length))
        return torch.cat([ahead, reverse_within(mirrored, length)], dim=2)

    def _parameters_named(self, name: str) -> tuple[Tensor, Tensor]:
        return self.forward_lstm.get_parameter(f"{name}_l0"), self.backward_lstm.get_parameter(f"{name}_l0")


def last_states(states: Tensor, length: Tensor) -> Tensor:
    """The last state of each direction, (B, 2H), of states (B, T, 2H)."""
    ahead, back = states.chunk(2, dim=2)
    return torch.cat([ahead[torch.arange(len(length), device=length.device), length - 1], back[:, 0]], dim=1)


class BiLSTMAttention(Classifier):
    """Logits from the attention-weighted mean of the states of the first sequence.

    With `paired`, attention is queried by the last states of the second sequence, which has an encoder and an
    embedding of its own and also enters the decoder: linear(tanh(P context + Q query)).
    """

    def __init__(
        self, vocabulary_size: int, embedding_size: int, hidden_size: int, num_classes: int, paired: bool
    ) -> None:
        super().__init__()
        states = 2 * hidden_size
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=PAD)
        self.encoder = BiLSTM(embedding_size, hidden_size)
        self.attention = nn.ModuleDict(
            {"key": nn.Linear(states, hidden_size), "score": nn.Linear(hidden_size, 1, bias=False)}
        )
        self.paired = paired
        if paired:
            self.query_embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=PAD)
            self.query_encoder = BiLSTM(embedding_size, hidden_size)
            self.attention["query"] = nn.Linear(states, hidden_size)
            self.decode_context = nn.Linear(states, hidden_size)
            self.decode_query = nn.Linear(states, hidden_size)
            self.decode = nn.Linear(hidden_size, num_classes)
        else:
            self.decode = nn.Linear(states, num_classes)

    @classmethod
    def initial(cls, start: Start) -> BiLSTMAttention:
        """Return the model before training, with the word vectors of the recipe."""
        recipe: BiLSTMRecipe = start.recipe
        seed = derive(start.seed, "vectors")
        known = _word_vectors(start, seed)
        embedding = vectors.initial_embedding(**known, unknown=recipe.unknown_vectors, seed=seed)
        shape = {
            "vocabulary_size": len(start.dataset.vocabulary),
            "embedding_size": embedding.shape[1],
            "hidden_size": recipe.hidden_size,
            "num_classes": len(start.task.labels),
            "paired": start.task.paired,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(start.seed, "initialisation"))
            model = cls(**shape)
        model.shape = shape
        model.set_embedding(torch.from_numpy(embedding))
        return model

    def set_embedding(self, values: Tensor) -> None:
        """Start from `values` (V, E), for both sequences."""
        with torch.no_grad():
            self.embedding.weight.copy_(values)
            if self.paired:
                self.query_embedding.weight.copy_(values)

    def optimizer(self, recipe: BiLSTMRecipe) -> torch.optim.Optimizer:  # type: ignore[override]
        """Return Adam. The attention of the single-sequence model has no weight decay (Jain & Wallace)."""
        decayed = []
        undecayed = []
        for name, parameter in self.named_parameters():
            if name.startswith("attention.") and not self.paired:
                undecayed.append(parameter)
            else:
                decayed.append(parameter)
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}]
        if undecayed:
            groups.append({"params": undecayed, "weight_decay": 0.0})
        return torch.optim.Adam(groups, lr=recipe.learning_rate, amsgrad=True, fused=True)

    @property
    def embedding_matrix(self) -> Tensor:
        """The word vectors of the first sequence, (V, E)."""
        return self.embedding.weight

    def embed(self, batch: SequenceBatch) -> Tensor:
        """Return the word vectors of the first sequence, (B, T, E)."""
        embedded: Tensor = self.embedding(batch.tokens)
        return embedded

    def forward(self, batch: SequenceBatch, embedded: Tensor | None = None) -> Prediction:
        """Predict a batch. `embedded` (B, T, E) takes the place of the word vectors of the first sequence."""
        if embedded is None and self.has_few_rows(batch):
            hidden = self.encoder.by_torch(self.embed(batch), batch.length)
            return self.decide(batch, hidden, self.encode_query(batch))
        if embedded is None:
            projected = _project_words(self.embedding, self.encoder, batch.tokens)
        else:
            projected = self.encoder.project(embedded)
        return self.predict(batch, projected, self.encode_query(batch))

    def encode_query(self, batch: SequenceBatch, projected: Tensor | None = None) -> Tensor | None:
        """Return the last states of the second sequence, (B, 2H); None for a single one.

        `projected` (B, Q, P) takes the place of what enters its recurrence.
        """
        if not self.paired:
            return None
        assert batch.query_tokens is not None and batch.query_length is not None
        if projected is None:
            projected = _project_words(self.query_embedding, self.query_encoder, batch.query_tokens)
        return last_states(self.query_encoder(projected, batch.query_length), batch.query_length)

    def predict(self, batch: SequenceBatch, projected: Tensor, query: Tensor | None) -> Prediction:
        """Predict from what enters the recurrence, (B, T, P), and from the states of the query, (B, 2H)."""
        return self.decide(batch, self.encoder(projected, batch.length), query)

    @staticmethod
    def has_few_rows(batch: SequenceBatch) -> bool:
        """Return whether a loop over the tokens that is written out would take many small steps: of long texts, only a
        few fit into a batch."""
        return not torch.is_grad_enabled() and len(batch.tokens) <= FEW

    def decide(self, batch: SequenceBatch, hidden: Tensor, query: Tensor | None) -> Prediction:
        """Predict from the states of the first sequence, (B, T, 2H), and of the query, (B, 2H)."""
        attention, context = self.attend(batch, hidden, query)
        return Prediction(self.decode(context), attention)

    def attend(self, batch: SequenceBatch, hidden: Tensor, query: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the attention (B, T), and what is decoded: (B, 2H), or of a pair (B, H)."""
        key = self.attention["key"](hidden)
        if query is not None:
            key = key + self.attention["query"](query)[:, None]
        attention = masked_softmax(self.attention["score"](torch.tanh(key)).squeeze(2), batch.maskable)
        context = (attention[:, None] @ hidden).squeeze(1)
        if query is not None:
            context = torch.tanh(self.decode_context(context) + self.decode_query(query))
        return attention, context

    def activations(self, batch: SequenceBatch) -> list[Tensor]:
        """See `Classifier.activations`: of the states of the first sequence, and of what is decoded."""
        projected = _project_words(self.embedding, self.encoder, batch.tokens)
        hidden = self.encoder(projected, batch.length)
        _, context = self.attend(batch, hidden, self.encode_query(batch))
        inside = torch.arange(hidden.size(1), device=hidden.device) < batch.length[:, None]
        return [largest(hidden, inside), context]

    def view(self) -> View:
        """See `Classifier.view`: where the loop over the tokens is written out, gradients are taken behind the product
        with its input weights, which is made once for every word."""
        return _ProjectedVocabulary(self)


def _word_vectors(start: Start, seed: int) -> storage.Arrays:
    """Return the vectors of the words that have one, by what the recipe names."""
    recipe: BiLSTMRecipe = start.recipe
    if recipe.vectors == "random":
        return vectors.drawn(start.dataset.vocabulary, recipe.random_dimensions, seed)
    if recipe.vectors == "word2vec":
        return vectors.from_training_data(
            start.dataset, start.task.name, recipe.random_dimensions, seed, start.cache_dir
        )
    return vectors.from_file(_vectors_file(start), start.dataset.vocabulary, start.cache_dir)


def _vectors_file(start: Start) -> Path:
    """Return the file of vectors that the recipe names. A published one is downloaded if it is not there."""
    recipe: BiLSTMRecipe = start.recipe
    if recipe.vectors_file is not None:
        return Path(recipe.vectors_file)
    return vectors.find(recipe.vectors, start.raw_dir, start.cache_dir)


@dataclass(frozen=True)
class _Projected(Inputs):
    """What enters the recurrence of the first sequence, and the states of the second one, (B, 2H) or None."""

    query: Tensor | None

    def at(self, values: Tensor, times: int = 1) -> _Projected:
        """See `Inputs.at`."""
        query = None if self.query is None else self.query.repeat(times, 1)
        return _Projected(values, query)

    def rows(self, chosen: Tensor) -> _Projected:
        """See `Inputs.rows`."""
        query = None if self.query is None else self.query[chosen]
        return _Projected(self.values[chosen], query)


class _ProjectedVocabulary(View):
    """All words of a model, projected once, for many batches."""

    model: BiLSTMAttention

    def __init__(self, model: BiLSTMAttention) -> None:
        super().__init__(model)
        with torch.no_grad():
            self.words = model.encoder.project(model.embedding.weight)  # (V, P)
            if model.paired:
                self.query_words = model.query_encoder.project(model.query_embedding.weight)

    def inputs(self, batch: SequenceBatch) -> _Projected:
        """See `View.inputs`."""
        query = None
        if batch.query_tokens is not None:
            query = self.model.encode_query(batch, _look_up(self.query_words, batch.query_tokens))
        return _Projected(_look_up(self.words, batch.tokens), query)

    def predict(self, batch: SequenceBatch, inputs: Inputs) -> Prediction:
        """See `View.predict`."""
        assert isinstance(inputs, _Projected)
        return self.model.predict(batch, inputs.values, inputs.query)

    def answer(self, batch: SequenceBatch) -> Prediction:
        """See `View.answer`."""
        if self.model.has_few_rows(batch):
            prediction: Prediction = self.model(batch)
            return prediction
        return super().answer(batch)

    def project(self, embedded: Tensor) -> Tensor:
        """See `View.project`."""
        return self.model.encoder.project(embedded)


def _project_words(embedding: nn.Embedding, encoder: BiLSTM, tokens: Tensor) -> Tensor:
    """The projected embeddings (B, T, P) of tokens (B, T); each distinct word is projected once."""
    if not encoder.written_out(tokens.device):
        return encoder.project(embedding(tokens))
    words, index = torch.unique(tokens, return_inverse=True)
    return _look_up(encoder.project(embedding(words)), index)


def _look_up(words: Tensor, index: Tensor) -> Tensor:
    """(B, T, P), rows of words (*, P) by index (B, T), laid out as the recurrence goes: token after token."""
    return nn.functional.embedding(index.T, words).transpose(0, 1)


def masked_softmax(scores: Tensor, maskable: Tensor) -> Tensor:
    """Softmax of scores (B, T) over the true positions of `maskable`; 0 elsewhere, also where a row has none."""
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~maskable, lowest), dim=1) * maskable
