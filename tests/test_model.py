"""The model on padded batches is the model on packed sequences, whatever shares the batch."""

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from nlproar.dataset.batch import make_batch
from nlproar.model import bilstm_attention
from nlproar.model.bilstm_attention import (
    BiLSTM,
    BiLSTMAttention,
    last_states,
    masked_softmax,
    reverse_within,
)
from nlproar.model.classifier import View
from nlproar.model.modes import frozen
from nlproar.model.recipes import BiLSTMRecipe
from nlproar.model.recurrence import Recurrence
from tests.reference import reference_model


def test_reversing_twice_changes_nothing_and_padding_stays():
    x, length = torch.arange(24.0).view(2, 6, 2), torch.tensor([4, 6])
    assert torch.equal(reverse_within(reverse_within(x, length), length), x)
    assert torch.equal(reverse_within(x, length)[0, 4:], x[0, 4:])
    assert torch.equal(reverse_within(x, length)[0, 0], x[0, 3])


def packed_lstm(ours):
    """torch.nn.LSTM with the weights of a BiLSTM, on packed sequences: states, 0 at padding, and last states."""
    theirs = torch.nn.LSTM(5, 4, batch_first=True, bidirectional=True)
    theirs.load_state_dict({torch_name(name): value for name, value in ours.state_dict().items()})

    def run(x, length):
        out, (last, _) = theirs(pack_padded_sequence(x, length, batch_first=True, enforce_sorted=False))
        out, _ = pad_packed_sequence(out, batch_first=True, total_length=x.size(1))
        return out, torch.cat([last[0], last[1]], dim=1)

    return theirs, run


def torch_name(name):
    direction, _, parameter = name.partition(".")
    return parameter + {"forward_lstm": "", "backward_lstm": "_reverse"}[direction]


def test_bilstm_and_all_its_gradients_equal_torch_on_packed_sequences(loop):
    torch.manual_seed(0)
    ours = BiLSTM(5, 4)
    theirs, packed = packed_lstm(ours)
    x, length = torch.randn(4, 7, 5), torch.tensor([3, 7, 1, 5])

    def padded(x, length):
        out = ours(ours.project(x), length)
        return out * (torch.arange(7) < length[:, None])[..., None], last_states(out, length)

    results = []
    for run in (padded, packed):
        leaf = x.clone().requires_grad_()
        out, states = run(leaf, length)
        (out.pow(2).sum() + states.pow(3).sum()).backward()
        results.append((out, states, leaf.grad))
    for ours_value, theirs_value in zip(*results, strict=True):
        torch.testing.assert_close(ours_value, theirs_value, rtol=1e-5, atol=1e-6)
    expected = dict(theirs.named_parameters())
    assert len(expected) == len(dict(ours.named_parameters())) == 8
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[torch_name(name)].grad, rtol=1e-5, atol=1e-5)


def test_the_recurrences_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    inputs = torch.randn(4, 3, 16, dtype=torch.double, requires_grad=True)
    weight = torch.randn(2, 2, 8, dtype=torch.double, requires_grad=True)
    bias = torch.randn(2, 1, 8, dtype=torch.double, requires_grad=True)
    inside = torch.arange(4)[:, None] < torch.tensor([2, 4, 1])
    assert torch.autograd.gradcheck(Recurrence.apply, (inputs, weight, bias, inside))


def test_states_are_the_same_with_and_without_a_gradient(loop):
    torch.manual_seed(0)
    encoder, length = BiLSTM(5, 4), torch.tensor([3, 7, 1, 5])
    x = encoder.project(torch.randn(4, 7, 5)).detach()
    with torch.no_grad():
        without = encoder(x, length)
    frozen = encoder.requires_grad_(False)(x.requires_grad_(), length)
    assert torch.equal(without, frozen) and frozen.requires_grad


def test_a_second_derivative_is_refused(monkeypatch):
    monkeypatch.setattr(bilstm_attention, "SMALL", 0)
    encoder = BiLSTM(5, 4)
    x = encoder.project(torch.randn(2, 3, 5)).detach().requires_grad_()
    states = encoder(x, torch.tensor([3, 2]))
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(states.sum(), x, create_graph=True)


@pytest.mark.usefixtures("loop")
def test_a_vocabulary_projected_once_gives_the_same_inputs(world):
    model, dataset = world
    batch = make_batch(dataset.splits["train"], np.arange(20))
    inputs = model.view().inputs(batch)
    torch.testing.assert_close(inputs.values, model.encoder.project(model.embed(batch)))
    torch.testing.assert_close(inputs.query, model.encode_query(batch))


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("own", [False, True], ids=["embeddings", "the cheaper ones"])
def test_a_models_own_inputs_give_its_own_prediction(world, own):
    model, dataset = world
    batch = make_batch(dataset.splits["train"], np.arange(20))
    view = model.view() if own else View(model)
    inputs = view.inputs(batch)
    torch.testing.assert_close(view.predict(batch, inputs), model(batch))
    torch.testing.assert_close(view.predict(batch, inputs.at(inputs.values)), model(batch))
    torch.testing.assert_close(view.project(model.embed(batch)), inputs.values)


def test_the_embedding_is_the_rows_of_its_matrix_and_takes_the_place_of_the_words(world):
    model, dataset = world
    batch = make_batch(dataset.splits["train"], np.arange(20))
    assert torch.equal(model.embed(batch), model.embedding.weight[batch.tokens])
    torch.testing.assert_close(model(batch, model.embed(batch)), model(batch))
    zero = model(batch, torch.zeros_like(model.embed(batch)))
    with torch.no_grad():
        model.embedding.weight.zero_()
    torch.testing.assert_close(model(batch), zero)


def test_a_frozen_copy_shares_the_weights_and_predicts_as_in_evaluation_mode():
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"lstm": torch.nn.LSTM(4, 3, 2, dropout=0.5), "dropout": torch.nn.Dropout(0.5)})
    model.register_buffer("scale", torch.tensor(2.0))
    model.train()
    copied, x = frozen(model), torch.randn(5, 2, 4, requires_grad=True)
    expected = model.eval()["dropout"](model["lstm"](x)[0])
    for _ in range(2):
        assert torch.equal(copied["dropout"](copied["lstm"](x)[0]), expected)
    copied["lstm"](x)[0].sum().backward()
    assert x.grad.any() and all(weight.grad is None for weight in model.parameters())
    assert copied["lstm"].training and model["lstm"].dropout == 0.5  # cuDNN differentiates no other
    for name, value in model.state_dict().items():
        assert copied.state_dict()[name].data_ptr() == value.data_ptr()
    with torch.no_grad():
        model["lstm"].bias_hh_l0.add_(1)
    assert torch.equal(copied["lstm"](x)[0], model["lstm"](x)[0])


@pytest.mark.usefixtures("loop")
def test_padding_and_company_do_not_change_a_prediction(world):
    model, dataset = world
    split = dataset.splits["train"]
    together = model(make_batch(split, np.arange(20)))
    for row in range(20):
        alone = model(make_batch(split, np.array([row]), width=30, query_width=25))
        torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-4, atol=1e-6)


def test_large_states_on_a_cpu_take_the_loop_that_is_written_out():
    device = torch.device("cpu")
    assert BiLSTM(5, 128).written_out(device) and not BiLSTM(5, 32).written_out(device)


@pytest.mark.usefixtures("loop")
def test_attention_is_a_distribution_over_the_maskable_tokens(world):
    model, dataset = world
    batch = make_batch(dataset.splits["train"], np.arange(20))
    attention = model(batch).attention
    assert not attention[~batch.maskable].any()
    has_word = batch.maskable.any(dim=1)
    torch.testing.assert_close(attention.sum(dim=1), has_word.float())


def test_an_observation_without_words_gives_no_nan():
    assert not masked_softmax(torch.randn(1, 3), torch.zeros(1, 3, dtype=torch.bool)).any()


def test_attention_has_no_decay_in_the_single_model_only():
    recipe = BiLSTMRecipe(weight_decay=0.5)
    decayed, attention = BiLSTMAttention(9, 4, 3, 2, False).optimizer(recipe).param_groups
    assert (decayed["weight_decay"], attention["weight_decay"], len(attention["params"])) == (0.5, 0.0, 3)
    (everything,) = BiLSTMAttention(9, 4, 3, 2, True).optimizer(recipe).param_groups
    assert everything["weight_decay"] == 0.5


def test_logits_and_attention_are_those_of_the_reference(oracle, loop):
    for name in ("single", "paired"):
        model, batch, arrays = reference_model(oracle / f"bilstm_attention_{name}.npz")
        prediction = model(batch)
        inside = torch.arange(batch.tokens.size(1)) < batch.length[:, None]
        torch.testing.assert_close(prediction.logits, arrays["logits"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(prediction.attention[inside], arrays["attention"][inside], rtol=1e-5, atol=1e-6)
