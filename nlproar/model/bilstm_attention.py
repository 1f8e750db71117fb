"""The BiLSTM with additive attention of Jain & Wallace (2019, arXiv 1902.10186), for one sequence or a pair.

Letters: B batch, T tokens, Q tokens of the query, V vocabulary, E embedding, H hidden per direction, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import PAD


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

    The backward direction runs forward over sequences reversed within their length, so neither direction ever
    sees padding before a token; pack_padded_sequence makes the backward pass several times slower on a CPU.
    """

    def __init__(self, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.forward_lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)
        self.backward_lstm = nn.LSTM(embedding_size, hidden_size, batch_first=True)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, E), length (B,) to outputs (B, T, 2H), meaningless at padding, and last states (B, 2H)."""
        ahead, _ = self.forward_lstm(x)
        mirrored, _ = self.backward_lstm(reverse_within(x, length))
        last = (length - 1)[:, None, None].expand(-1, 1, ahead.size(2))
        states = torch.cat([ahead.gather(1, last), mirrored.gather(1, last)], dim=2).squeeze(1)
        return torch.cat([ahead, reverse_within(mirrored, length)], dim=2), states


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
        """(B, T, E), of the first sequence: what gradients are taken with respect to."""
        embedded: Tensor = self.embedding(batch.tokens)
        return embedded

    def encode_query(self, batch: SequenceBatch) -> Tensor | None:
        """(B, 2H), the last states of the second sequence; None for a single one."""
        if not self.paired:
            return None
        _, states = self.query_encoder(self.query_embedding(batch.query_tokens), batch.query_length)
        return states

    def forward(self, batch: SequenceBatch, embedded: Tensor | None = None, query: Tensor | None = None) -> Prediction:
        """Predict `batch`; `embedded` (B, T, E) and `query` (B, 2H) take the place of what it would compute."""
        if query is None:
            query = self.encode_query(batch)
        hidden, _ = self.encoder(self.embed(batch) if embedded is None else embedded, batch.length)
        key = self.attention["key"](hidden)
        if query is not None:
            key = key + self.attention["query"](query)[:, None]
        attention = masked_softmax(self.attention["score"](torch.tanh(key)).squeeze(2), batch.maskable)
        context = (attention[:, None] @ hidden).squeeze(1)
        if query is not None:
            context = torch.tanh(self.decode_context(context) + self.decode_query(query))
        return Prediction(self.decode(context), attention)


def masked_softmax(scores: Tensor, maskable: Tensor) -> Tensor:
    """Softmax of scores (B, T) over the true positions of `maskable`; 0 elsewhere, also where a row has none."""
    lowest = torch.finfo(scores.dtype).min
    return torch.softmax(scores.masked_fill(~maskable, lowest), dim=1) * maskable
