"""What the benchmark compares with: the method's steps done the way the published code does them.

Random batches that are packed, Adam without fusion, the gradient with respect to the one-hot tokens as a (B, T, V)
matrix, fifty Riemann steps one after the other, masking observation by observation, masked data as lists. Every
import is at the top, as in a script whose `--help` waits for all of them.

Two liberties, both in its favour: there is no logging, bar or checkpoint, and the lists are written by `marshal`,
which is as fast as `pickle` and cannot run code when it is read. Sizes are those of `pickle`, which is more compact.
"""

import argparse
import marshal
import pickle
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning  # noqa: F401  the published scripts start with all of these
import torch
import torchmetrics  # noqa: F401
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader

FIRST_MASKABLE, MASK = 3, 3

Tensors = dict[str, Tensor]  # of an observation, or of a batch, by their names


class Encoder(nn.Module):
    """Embedding and BiLSTM of one of the two sequences."""

    def __init__(self, vocabulary_size: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=0)
        self.rnn = nn.LSTM(embedding_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, embedded: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """The states of every token, and the last ones."""
        packed = pack_padded_sequence(embedded, length.cpu(), batch_first=True, enforce_sorted=False)
        hidden, (last, _) = self.rnn(packed)
        hidden, _ = pad_packed_sequence(hidden, batch_first=True)
        return hidden, torch.cat([last[0], last[1]], dim=1)


class Model(nn.Module):
    """The same function of the same weights as nlproar's model (see `copy_weights`)."""

    def __init__(
        self, vocabulary_size: int, embedding_size: int, hidden_size: int, num_classes: int, paired: bool
    ) -> None:
        super().__init__()
        states = 2 * hidden_size
        self.paired = paired
        self.encoder = Encoder(vocabulary_size, embedding_size, hidden_size)
        self.key, self.score = nn.Linear(states, hidden_size), nn.Linear(hidden_size, 1, bias=False)
        if paired:
            self.query_encoder = Encoder(vocabulary_size, embedding_size, hidden_size)
            self.query = nn.Linear(states, hidden_size)
            self.decode_context, self.decode_query = nn.Linear(states, hidden_size), nn.Linear(states, hidden_size)
        self.decode = nn.Linear(hidden_size if paired else states, num_classes)

    def forward(self, batch: Tensors, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits and attention."""
        if embedded is None:
            embedded = self.encoder.embedding(batch["tokens"])
        hidden, _ = self.encoder(embedded, batch["length"])
        key = self.key(hidden)
        if self.paired:
            query_embedded = self.query_encoder.embedding(batch["query"])
            _, query = self.query_encoder(query_embedded, batch["query_length"])
            key = key + self.query(query).unsqueeze(1)
        scores = self.score(torch.tanh(key)).squeeze(2).masked_fill(~batch["mask"], -1e30)
        attention = torch.softmax(scores, dim=1)
        context = torch.bmm(attention.unsqueeze(1), hidden).squeeze(1)
        if self.paired:
            context = torch.tanh(self.decode_context(context) + self.decode_query(query))
        return self.decode(context), attention


def copy_weights(ours: nn.Module, theirs: Model) -> None:
    """Give `theirs`, a `Model`, the weights of nlproar's."""
    state = {}
    for name, value in ours.state_dict().items():
        query = "query_" if name.startswith("query_") else ""
        if "embedding" in name:
            name = f"{query}encoder.embedding.weight"
        elif "_lstm." in name:
            weight = name.rpartition(".")[2] + ("_reverse" if "backward_lstm" in name else "")
            name = f"{query}encoder.rnn.{weight}"
        state[name.removeprefix("attention.")] = value
    theirs.load_state_dict(state)


def observations(split: Any) -> list[Tensors]:
    """A split as a list of dictionaries of tensors."""

    def rows(flat: np.ndarray, offsets: np.ndarray) -> list[Tensor]:
        return [torch.tensor(flat[a:b], dtype=torch.int64) for a, b in pairwise(offsets)]

    found = [
        {
            "tokens": tokens,
            "mask": tokens >= FIRST_MASKABLE,
            "length": torch.tensor(len(tokens)),
            "label": torch.tensor(label),
            "index": torch.tensor(index),
        }
        for index, (tokens, label) in enumerate(
            zip(rows(split.tokens, split.offsets), split.label.tolist(), strict=True)
        )
    ]
    if split.query_tokens is not None:
        for one, query in zip(found, rows(split.query_tokens, split.query_offsets), strict=True):
            one["query"], one["query_length"] = query, torch.tensor(len(query))
    return found


def collate(rows: Sequence[Tensors]) -> Tensors:
    """Observations as a batch, padded to the longest of them."""
    batch = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        batch[name] = pad_sequence(values, batch_first=True) if first.dim() else torch.stack(values)
    return batch


def batches(rows: list[Tensors], batch_size: int, device: torch.device, shuffle: bool = False) -> Iterator[Tensors]:
    """Observations in batches on the device."""
    dataset: Any = rows  # a list is all that a loader needs
    for batch in DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=collate):
        yield {name: value.to(device) for name, value in batch.items()}


def train(
    model: Model, rows: list[Tensors], val: list[Tensors], batch_size: int, device: torch.device, epochs: int = 1
) -> None:
    """Epochs over `rows`, each followed by the accuracy on `val`."""
    attention = [p for name, p in model.named_parameters() if name.startswith(("key", "score"))]
    undecayed = {id(p) for p in attention} if not model.paired else set()
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in undecayed], "weight_decay": 1e-5},
        {"params": [p for p in model.parameters() if id(p) in undecayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]], lr=1e-3, amsgrad=True)
    for _ in range(epochs):
        for batch in batches(rows, batch_size, device, shuffle=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch)[0], batch["label"])
            torch.autograd.backward(loss)
            optimizer.step()
        test(model, val, batch_size, device)


@torch.no_grad()
def test(model: Model, rows: list[Tensors], batch_size: int, device: torch.device) -> float:
    """The accuracy."""
    hits = [(model(b)[0].argmax(dim=1) == b["label"]).float() for b in batches(rows, batch_size, device)]
    return float(torch.cat(hits).mean())


def _gradient(model: Model, batch: Tensors, embedded: Tensor) -> Tensor:
    """d logit[gold] / d embedded, (B, T, E)."""
    leaf = embedded.detach().requires_grad_()
    gold = model(batch, leaf)[0].gather(1, batch["label"].unsqueeze(1)).sum()
    (gradient,) = torch.autograd.grad(gold, leaf)
    return gradient


def attention(model: Model, batch: Tensors) -> Tensor:
    """The weights of the attention."""
    with torch.no_grad():
        _, weights = model(batch)
    return torch.as_tensor(weights)


def gradient(model: Model, batch: Tensors) -> Tensor:
    """The norm of the gradient with respect to the one-hot tokens."""
    weight = model.encoder.embedding.weight.detach()
    by_word = torch.matmul(_gradient(model, batch, model.encoder.embedding(batch["tokens"])), weight.T)
    norm: Tensor = by_word.norm(dim=2)
    return norm


def input_times_gradient(model: Model, batch: Tensors) -> Tensor:
    """The size of that gradient's part for the token itself."""
    weight = model.encoder.embedding.weight.detach()
    by_word = torch.matmul(_gradient(model, batch, model.encoder.embedding(batch["tokens"])), weight.T)
    own: Tensor = by_word.gather(2, batch["tokens"].unsqueeze(2)).squeeze(2)
    return own.abs()


def integrated_gradient(model: Model, batch: Tensors, steps: int = 50) -> Tensor:
    """The true one, by right-Riemann steps; the published sum costs the same and is another quantity."""
    embedded = model.encoder.embedding(batch["tokens"]).detach()
    mean: Tensor = torch.zeros_like(embedded)
    for step in range(1, steps + 1):
        mean += (_gradient(model, batch, embedded * (step / steps)) - mean) / step
    signed: Tensor = (mean * embedded).sum(dim=2)
    return signed.abs()


MEASURES: dict[str, Callable[[Model, Tensors], Tensor]] = {
    "attention": attention,
    "gradient": gradient,
    "input-times-gradient": input_times_gradient,
    "integrated-gradient": integrated_gradient,
}


def explain(measure: str, model: Model, rows: list[Tensors], batch_size: int, device: torch.device) -> list[Tensor]:
    """Importance of each observation's tokens, as a list of tensors."""
    found: list[Tensor] = []
    for batch in batches(rows, batch_size, device):
        values = MEASURES[measure](model, batch).cpu()
        found += [value[:n] for value, n in zip(values, batch["length"].tolist(), strict=True)]
    return found


def mask(rows: list[Tensors], importance: list[Tensor], percent: int) -> list[dict[str, Any]]:
    """The rows with their most important tokens masked, as lists, one observation after the other."""
    masked = []
    for row, values in zip(rows, importance, strict=True):
        values, tokens = values.clone(), row["tokens"].clone()
        values[torch.logical_not(row["mask"])] = -np.inf
        values[tokens == MASK] = np.inf
        _, found = torch.topk(values, k=percent * int(row["mask"].sum()) // 100, sorted=False)
        tokens[found] = MASK
        masked.append({name: value.tolist() for name, value in {**row, "tokens": tokens}.items()})
    return masked


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Store masked rows."""
    path.write_bytes(marshal.dumps(rows))


def pickled_size(rows: list[Tensors], importance: list[Tensor], percent: int) -> int:
    """Bytes of the masked rows as the published code stores them."""
    return len(pickle.dumps(mask(rows, importance, percent)))


def read(path: Path) -> list[Tensors]:
    """The rows that `write` stored, as tensors again."""
    types = {"mask": torch.bool}
    return [
        {name: torch.tensor(value, dtype=types.get(name, torch.int64)) for name, value in row.items()}
        for row in marshal.loads(path.read_bytes())
    ]


def mutual_information(rows: list[Tensors], vocabulary_size: int, num_classes: int) -> np.ndarray:
    """Per word, with one document more per label that holds every word, from a dense document-word matrix a label."""
    present = np.zeros((num_classes, vocabulary_size))
    count = np.zeros(num_classes)
    for row in rows:
        label = int(row["label"])
        count[label] += 1
        for word in set(row["tokens"].tolist()):
            present[label, word] += 1
    present, count = present + 1, count + 1
    total, word = count.sum(), present.sum(axis=0)
    result = np.zeros(vocabulary_size)
    for label in range(num_classes):
        both = present[label]
        for joint, a, b in (
            (both, word, count[label]),
            (word - both, word, total - count[label]),
            (count[label] - both, total - word, count[label]),
            (total - count[label] - word + both, total - word, total - count[label]),
        ):
            with np.errstate(divide="ignore", invalid="ignore"):
                term = joint / total * np.log2(joint * total / (a * b))
            result += count[label] / total * np.where(joint > 0, term, 0)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=0)
    parser.add_argument("--importance-measure", choices=tuple(MEASURES))
    parser.parse_args()
