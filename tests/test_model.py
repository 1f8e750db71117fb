"""The model on padded batches is the model on packed sequences, whatever shares the batch."""

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nlproar.dataset.batch import make_batch
from nlproar.model.bilstm_attention import BiLSTM, BiLSTMAttention, last_states, masked_softmax, reverse_within
from tests.reference import reference_model


def test_reversing_twice_changes_nothing_and_padding_stays():
    x, length = torch.arange(24.0).view(2, 6, 2), torch.tensor([4, 6])
    assert torch.equal(reverse_within(reverse_within(x, length), length), x)
    assert torch.equal(reverse_within(x, length)[0, 4:], x[0, 4:])
    assert torch.equal(reverse_within(x, length)[0, 0], x[0, 3])


def test_bilstm_equals_torch_on_packed_sequences():
    torch.manual_seed(0)
    ours, theirs = BiLSTM(5, 4), torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    state = ours.state_dict()
    theirs.load_state_dict(
        {name.partition(".")[2]: v for name, v in state.items() if name.startswith("forward_lstm")}
        | {name.partition(".")[2] + "_reverse": v for name, v in state.items() if name.startswith("backward_lstm")}
    )
    x, length = torch.randn(4, 7, 5), torch.tensor([3, 7, 1, 5])
    results = []
    for packed in (False, True):
        leaf = x.clone().requires_grad_()
        if packed:
            out, (last, _) = theirs(pack_padded_sequence(leaf, length, batch_first=True, enforce_sorted=False))
            out, _ = pad_packed_sequence(out, batch_first=True, total_length=7)
            states = torch.cat([last[0], last[1]], dim=1)
        else:
            out = ours(ours.project(leaf), length)
            states = last_states(out, length)
            out = out * (torch.arange(7) < length[:, None])[..., None]
        (out.pow(2).sum() + states.pow(3).sum()).backward()
        results.append((out, states, leaf.grad))
    for ours_value, theirs_value in zip(*results, strict=True):
        torch.testing.assert_close(ours_value, theirs_value, rtol=1e-5, atol=1e-6)


def test_padding_and_company_do_not_change_a_prediction(world):
    model, dataset = world
    split = dataset.splits["train"]
    together = model(make_batch(split, np.arange(40)))
    for row in range(40):
        alone = model(make_batch(split, np.array([row]), width=30, query_width=25))
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-4, atol=1e-6)


def test_attention_is_a_distribution_over_the_maskable_tokens(world):
    model, dataset = world
    batch = make_batch(dataset.splits["train"], np.arange(40))
    attention = model(batch).attention
    assert not attention[~batch.maskable].any()
    has_word = batch.maskable.any(dim=1)
    torch.testing.assert_close(attention.sum(dim=1), has_word.float())


def test_an_observation_without_words_gives_no_nan():
    assert not masked_softmax(torch.randn(1, 3), torch.zeros(1, 3, dtype=torch.bool)).any()


def test_attention_has_no_decay_in_the_single_model_only():
    assert len(BiLSTMAttention(9, 4, 3, 2, False).undecayed()) == 3
    assert not BiLSTMAttention(9, 4, 3, 2, True).undecayed()


def test_reference_logits_and_attention(oracle):
    for name in ("single", "paired"):
        model, batch, arrays = reference_model(oracle / f"bilstm_attention_{name}.npz")
        prediction = model(batch)
        inside = torch.arange(batch.tokens.size(1)) < batch.length[:, None]
        torch.testing.assert_close(prediction.logits, arrays["logits"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(prediction.attention[inside], arrays["attention"][inside], rtol=1e-5, atol=1e-6)
