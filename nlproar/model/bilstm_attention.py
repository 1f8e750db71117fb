"""The BiLSTM with additive attention of Jain & Wallace (2019, arXiv 1902.10186), for one sequence or a pair.

Letters: B batch, T tokens, Q tokens of the query, V vocabulary, E embedding, H hidden per direction, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import PAD
from nlproar.model.recurrence import Recurrence, gate_order

SMALL = 64  # states a direction up to which torch's LSTM is the faster one on a CPU (experiments/LOG.md)


class Prediction(NamedTuple):
    logits: Tensor  # (B, C)
    attention: Tensor  # (B, T), sums to 1 over the maskable tokens, 0 elsewhere


def reverse_within(x: Tensor, length: Tensor) -> Tensor:
    """Each sequence of x (B, T, *) reversed within its own length (B,); padding stays where it is."""
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
            ahead, _ = self.forward_lstm(projected)
            mirrored, _ = self.backward_lstm(reverse_within(projected, length))
            return torch.cat([ahead, reverse_within(mirrored, length)], dim=2)
        weight = torch.stack([gate_order(one).T for one in self._parameters_named("weight_hh")])
        biases = zip(self._parameters_named("bias_ih"), self._parameters_named("bias_hh"), strict=True)
        bias = torch.stack([gate_order(one + other)[None] for one, other in biases])
        inside = torch.arange(projected.size(1))[:, None] < length
        states: Tensor = Recurrence.apply(projected.transpose(0, 1), weight, bias, inside)
        return states.transpose(0, 1)

    def _parameters_named(self, name: str) -> tuple[Tensor, Tensor]:
        return self.forward_lstm.get_parameter(f"{name}_l0"), self.backward_lstm.get_parameter(f"{name}_l0")


def last_states(states: Tensor, length: Tensor) -> Tensor:
    """The last state of each direction, (B, 2H), of states (B, T, 2H)."""
    ahead, back = states.chunk(2, dim=2)
    return torch.cat([ahead[torch.arange(len(length), device=length.device), length - 1], back[:, 0]], dim=1)


class BiLSTMAttention(nn.Module):
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

    def set_embedding(self, vectors: Tensor) -> None:
        """Start from `vectors` (V, E), for both sequences."""
        with torch.no_grad():
            self.embedding.weight.copy_(vectors)
            if self.paired:
                self.query_embedding.weight.copy_(vectors)

    def undecayed(self) -> list[nn.Parameter]:
        """Parameters without weight decay: the attention of the single-sequence model (Jain & Wallace)."""
        return [] if self.paired else list(self.attention.parameters())

    def embed(self, batch: SequenceBatch) -> Tensor:
        """(B, T, E), the embeddings of the first sequence: the same on every device and for every size of model."""
        embedded: Tensor = self.embedding(batch.tokens)
        return embedded

    def encode_query(self, batch: SequenceBatch, projected: Tensor | None = None) -> Tensor | None:
        """(B, 2H), the last states of the second sequence; None for a single one. `projected` (B, Q, P) takes the
        place of its projected embeddings."""
        if not self.paired:
            return None
        assert batch.query_tokens is not None and batch.query_length is not None
        if projected is None:
            projected = _project_words(self.query_embedding, self.query_encoder, batch.query_tokens)
        return last_states(self.query_encoder(projected, batch.query_length), batch.query_length)

    def forward(
        self,
        batch: SequenceBatch,
        embedded: Tensor | None = None,
        query: Tensor | None = None,
        projected: Tensor | None = None,
    ) -> Prediction:
        """Predict `batch`. `embedded` (B, T, E) takes the place of `embed`.

        For measures that would compute the same again and again: `query` (B, 2H) takes the place of `encode_query`, and
        `projected` (B, T, P), what `BiLSTM.project` makes of the embeddings, that of both.
        """
        if projected is None:
            projected = self.project(batch) if embedded is None else self.encoder.project(embedded)
        if query is None:
            query = self.encode_query(batch)
        hidden = self.encoder(projected, batch.length)
        key = self.attention["key"](hidden)
        if query is not None:
            key = key + self.attention["query"](query)[:, None]
        attention = masked_softmax(self.attention["score"](torch.tanh(key)).squeeze(2), batch.maskable)
        context = (attention[:, None] @ hidden).squeeze(1)
        if query is not None:
            context = torch.tanh(self.decode_context(context) + self.decode_query(query))
        return Prediction(self.decode(context), attention)

    def project(self, batch: SequenceBatch) -> Tensor:
        """(B, T, P), the projected embeddings of the first sequence: what enters the recurrence."""
        return _project_words(self.embedding, self.encoder, batch.tokens)


class EmbeddedInputs:
    """The embeddings of a model, for measures that differentiate with respect to them or change them.

    They are a model's inputs (B, T, E): the same space on every device and for every size of model.
    """

    def __init__(self, model: BiLSTMAttention) -> None:
        self.model = model

    def inputs(self, batch: SequenceBatch) -> Tensor:
        """The inputs of `batch`, without a gradient of the weights."""
        return self.model.embed(batch).detach()

    def encode_query(self, batch: SequenceBatch) -> Tensor | None:
        """(B, 2H), what the model makes of the second sequence; None for a single one."""
        return self.model.encode_query(batch)

    def predict(self, batch: SequenceBatch, inputs: Tensor, query: Tensor | None) -> Prediction:
        """The prediction for `batch` with these inputs in the place of its own."""
        return self.model(batch, embedded=inputs, query=query)

    def of_embeddings(self, x: Tensor) -> Tensor:
        """The inputs that embeddings x (*, E) would be."""
        return x


class ProjectedInputs(EmbeddedInputs):
    """A shortcut for measures whose values are the same with respect to anything that is linear in the embeddings.

    Their inputs (B, T, P) are what enters the recurrence: all words of the model, projected once, are looked up for
    every batch. What that is depends on the device and the size of the model. The weights must not change meanwhile.
    """

    def __init__(self, model: BiLSTMAttention) -> None:
        super().__init__(model)
        with torch.no_grad():
            self.words = model.encoder.project(model.embedding.weight)  # (V, P)
            if model.paired:
                self.query_words = model.query_encoder.project(model.query_embedding.weight)

    def inputs(self, batch: SequenceBatch) -> Tensor:
        return _look_up(self.words, batch.tokens)

    def encode_query(self, batch: SequenceBatch) -> Tensor | None:
        if batch.query_tokens is None:
            return None
        return self.model.encode_query(batch, _look_up(self.query_words, batch.query_tokens))

    def predict(self, batch: SequenceBatch, inputs: Tensor, query: Tensor | None) -> Prediction:
        return self.model(batch, projected=inputs, query=query)

    def of_embeddings(self, x: Tensor) -> Tensor:
        return self.model.encoder.project(x)


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
