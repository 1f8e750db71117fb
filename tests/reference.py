"""The reference models: weights and expected arrays from a file, as our model and batch."""

from pathlib import Path

import numpy as np
import torch

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.vocabulary import SPECIALS, Vocabulary
from nlproar.model.bilstm_attention import BiLSTMAttention

_NAMES = {  # theirs -> ours, by prefix
    "encoder.embedding": "embedding",
    "encoder_premise.embedding": "embedding",
    "encoder_hypothesis.embedding": "query_embedding",
    "encoder.rnn": "encoder",
    "encoder_premise.rnn": "encoder",
    "encoder_hypothesis.rnn": "query_encoder",
    "attention.W1_premise": "attention.key",
    "attention.W1_hypothesis": "attention.query",
    "attention.W1": "attention.key",
    "attention.W2": "attention.score",
    "decoder.decoder_premise": "decode_context",
    "decoder.decoder_hypothesis": "decode_query",
    "decoder.decoder_final": "decode",
    "decoder": "decode",
}


def _rename(name: str) -> str:
    prefix = next(p for p in _NAMES if name.startswith(p + "."))
    rest = name.removeprefix(prefix + ".")
    if not prefix.endswith(".rnn"):
        return f"{_NAMES[prefix]}.{rest}"
    direction = "backward_lstm" if rest.endswith("_reverse") else "forward_lstm"
    return f"{_NAMES[prefix]}.{direction}.{rest.removesuffix('_reverse')}"


def reference_model(path: Path) -> tuple[BiLSTMAttention, SequenceBatch, dict[str, torch.Tensor]]:
    arrays = {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(path).items()}
    state = {_rename(n.removeprefix("state.")): v for n, v in arrays.items() if n.startswith("state.")}
    paired = "query_tokens" in arrays
    vocabulary_size, embedding_size = state["embedding.weight"].shape
    classes, hidden = len(state["decode.bias"]), state["attention.score.weight"].size(1)
    model = BiLSTMAttention(vocabulary_size, embedding_size, hidden, classes, paired)
    model.load_state_dict(state)
    batch = SequenceBatch(
        arrays["tokens"], arrays["length"], arrays["label"], torch.arange(len(arrays["label"])),
        arrays.get("query_tokens"), arrays.get("query_length"),
    )  # fmt: skip
    assert torch.equal(batch.maskable, arrays["maskable"])
    return model, batch, arrays


def as_dataset(batch: SequenceBatch, vocabulary_size: int) -> Dataset:
    """The observations of `batch` as a data set whose splits are all the same."""

    def flat(tokens, length):
        rows = [row[:n] for row, n in zip(tokens.numpy(), length.numpy(), strict=True)]
        return np.concatenate(rows).astype(np.int32), np.concatenate([[0], np.cumsum(length.numpy())])

    query, query_offsets = None, None
    if batch.query_tokens is not None:
        query, query_offsets = flat(batch.query_tokens, batch.query_length)
    tokens, offsets = flat(batch.tokens, batch.length)
    split = Split(tokens, offsets, batch.label.numpy(), query, query_offsets)
    words = Vocabulary(tuple(f"w{i:03d}" for i in range(vocabulary_size - len(SPECIALS))))
    return Dataset(words, {"train": split, "val": split, "test": split}, "reference")
