"""Transformers: what is explained is what the model computes, special tokens stay, and what cannot be explained is
refused."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BigBirdConfig

from nlproar.dataset import TASKS as REGISTERED
from nlproar.dataset import encoding, pretrained, subwords
from nlproar.dataset.batch import FixedBatches, make_batch
from nlproar.dataset.task import Example, in_memory
from nlproar.dataset.tokenizer import whitespace
from nlproar.dataset.vocabulary import CLS, EOS, FIRST_MASKABLE, MASK, PAD, UNK
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.explain.importance import Explained, build
from nlproar.model import checkpoint, train, training_state, transformer
from nlproar.model.classifier import Start, View
from nlproar.model.initial import check
from nlproar.model.modes import frozen
from nlproar.model.recipes import TransformerRecipe
from nlproar.model.transformer import rollout
from nlproar.run import prerequisites
from nlproar.run.config import from_identity, resolve, usual_measure
from nlproar.run.layout import Layout
from nlproar.run.run import run
from nlproar.script import users_errors
from tests import made_models
from tests.conftest import ROOT

LABELS = ("negative", "positive")


def examples(paired):
    rng = np.random.default_rng(0)
    for split, number in (("train", 40), ("val", 10), ("test", 12)):
        for index in range(number):
            words = rng.choice(["the", "film", "mary", "went", "to", "zebra"], size=rng.integers(1, 15)).tolist()
            words[0] = ("bad", "good")[index % 2]
            query = "where is john" if index % 3 else "film"
            yield Example(split, " ".join(words), index % 2, query if paired else "")


def task_of(paired):
    name = "pairs" if paired else "films"
    return in_memory(name, examples(paired), LABELS, whitespace, paired=paired)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("models")
    return {
        "bert": made_models.bert(place / "bert"),
        "roberta": made_models.roberta(place / "roberta"),
        "tiny": "tiny",
        "given": GIVEN,
    }


# The folder of a pretrained model, on which the identities are tested too.
GIVEN = os.environ.get("NLPROAR_TEST_MODEL")

MADE = [("bert", True), ("roberta", True), ("roberta", False), ("tiny", True), ("tiny", False)]
if GIVEN is not None:
    MADE += [("given", True), ("given", False)]


@pytest.fixture(scope="session", params=MADE, ids=lambda value: f"{value[0]}-{'paired' if value[1] else 'single'}")
def made(request, folders, tmp_path_factory):
    """A task with its data, and a model for it before training: (task, dataset, model, recipe)."""
    name, paired = request.param
    place = tmp_path_factory.mktemp("persistent")
    task = task_of(paired)
    layout = Layout(place)
    recipe = TransformerRecipe(model=str(folders[name])).completed(layout)
    dataset = encoding.load(task, "official", layout.raw, layout.cache, 0, recipe.subwords())
    model = transformer.Transformer.initial(Start(task, dataset, recipe, 0, layout.raw, layout.cache))
    if name == "tiny":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)
    return task, dataset, frozen(model), recipe


def tokenizer_of(made):
    task, _, _, recipe = made
    texts = [text for one in task.read(None) if one.split == "train" for text in (one.text, one.query)]
    return subwords.open_tokenizer(recipe.subwords(), texts)


def batch_of(dataset, rows=range(10), **widths):
    return make_batch(dataset.splits["train"], np.array(rows), **widths)


# Tokens


def test_the_tokens_are_those_of_the_tokenizer_as_it_joins_a_pair(made):
    task, dataset, model, _ = made
    tokenizer = tokenizer_of(made)
    split = dataset.splits["test"]
    chosen = [one for one in task.read(None) if one.split == "test"]
    for row, one in enumerate(chosen):
        ours = split.tokens[split.offsets[row] : split.offsets[row + 1]]
        if task.paired:
            query = split.query_tokens[split.query_offsets[row] : split.query_offsets[row + 1]]
            ours = np.concatenate([ours, query])
        wanted = tokenizer.tokenizer(one.text, one.query if task.paired else None)["input_ids"]
        assert model.permutation[ours].tolist() == wanted


def test_special_tokens_come_first_in_our_order(made):
    tokenizer = tokenizer_of(made)
    theirs = tokenizer.tokenizer
    start, *_, end = theirs("a")["input_ids"]
    wanted = {PAD: theirs.pad_token_id, CLS: start, EOS: end, MASK: theirs.mask_token_id, UNK: theirs.unk_token_id}
    assert {ours: made[2].permutation[ours].item() for ours in wanted} == wanted
    assert sorted(tokenizer.permutation.tolist()) == sorted(theirs.get_vocab().values())
    names = theirs.convert_ids_to_tokens(tokenizer.permutation[5:].tolist())
    assert tuple(names) == tokenizer.words == made[1].vocabulary.words


def test_decoding_gives_the_words_again(made):
    task, dataset, model, _ = made
    tokenizer = tokenizer_of(made)
    split = dataset.splits["train"]
    for row, one in enumerate(example for example in task.read(None) if example.split == "train"):
        tokens = split.tokens[split.offsets[row] : split.offsets[row + 1]]
        assert tokens[0] == CLS and tokens[-1] == EOS and (tokens[1:-1] >= FIRST_MASKABLE).all()
        if (tokens != UNK).all():
            ids = model.permutation[tokens]
            assert tokenizer.tokenizer.decode(ids, skip_special_tokens=True).split() == one.text.split()


def test_words_are_those_of_the_first_text(made):
    task, dataset, _, _ = made
    split = dataset.splits["test"]
    texts = [one.text for one in task.read(None) if one.split == "test"]
    has_parts = any(name.startswith("##") for name in dataset.vocabulary.words)  # of words, as in BERT
    for row, text in enumerate(texts):
        starts = split.word_starts[split.offsets[row] : split.offsets[row + 1]]
        assert starts[[0, 1, -1]].all() and starts[1:-1].sum() == len(text.split())
        if has_parts and "zebra" in text and "zebra" not in dataset.vocabulary.words:
            assert not starts.all()


def test_a_special_token_that_is_spelled_in_a_text_is_not_one(made):
    tokenizer = tokenizer_of(made)
    for name in tokenizer.tokenizer.all_special_tokens:
        (encoded,) = tokenizer.encode([f"good {name} bad"])
        assert (encoded.tokens[1:-1] >= FIRST_MASKABLE).all() and MASK not in encoded.tokens


def test_masks_touch_neither_special_tokens_nor_the_second_sequence(made):
    task, dataset, _, _ = made
    split = dataset.splits["train"]
    masked = split.masked(split.maskable)
    if task.paired:
        assert masked.query_tokens is split.query_tokens
    for row in range(len(split)):
        tokens = masked.tokens[split.offsets[row] : split.offsets[row + 1]]
        assert tokens[0] == CLS and tokens[-1] == EOS and (tokens[1:-1] == MASK).all()


def test_what_is_too_long_is_truncated_and_told_of(folders, tmp_path):
    layout = Layout(tmp_path)
    task = task_of(True)
    recipe = TransformerRecipe(model=str(folders["bert"]), max_length=10).completed(layout)
    dataset = encoding.load(task, "official", layout.raw, layout.cache, 0, recipe.subwords())
    tokenizer = subwords.open_tokenizer(replace(recipe.subwords(), longest=60))
    for name, split in dataset.splits.items():
        lengths = split.lengths + np.diff(split.query_offsets)
        chosen = [one for one in task.read(None) if one.split == name]
        whole = [
            len(one.tokens) + len(one.query_tokens)
            for one in tokenizer.encode([one.text for one in chosen], [one.query for one in chosen])
        ]
        assert (lengths == np.minimum(whole, 10)).all()
        number = sum(length > 10 for length in whole)
        said = f"observations of {name} that are truncated to 10 tokens: {number} of {len(chosen)}"
        assert any(warning.startswith(said) for warning in dataset.warnings)


@pytest.mark.slow
def test_the_tokenizer_of_the_tiny_model_is_the_same_in_every_process():
    code = (
        "from nlproar.dataset.subwords import Subwords, open_tokenizer\n"
        "texts = [f'the film {i} is {i * i} times better than film {i % 7}' for i in range(500)]\n"
        "print(open_tokenizer(Subwords('tiny', None, None, 64), texts).words)"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
        for _ in range(2)
    }
    assert len(said) == 1


# Identities


@torch.no_grad()
def test_logits_from_ids_are_those_from_embeddings(made):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    assert torch.allclose(model.predict_from_tokens(batch), model(batch).logits, atol=1e-5)
    assert torch.equal(model(batch, model.embed(batch)).logits, model(batch).logits)


@torch.no_grad()
def test_neither_padding_nor_company_changes_a_prediction(made):
    _, dataset, model, _ = made
    logits = model(batch_of(dataset)).logits
    padded = model(
        batch_of(dataset, width=40, query_width=20 if dataset.splits["train"].query_tokens is not None else None)
    ).logits
    assert torch.allclose(padded, logits, atol=1e-5)
    for row in range(10):
        assert torch.allclose(model(batch_of(dataset, [row])).logits[0], logits[row], atol=1e-5)


def test_the_second_sequence_matters_where_there_is_one(made):
    task, dataset, model, _ = made
    batch = batch_of(dataset)
    if not task.paired:
        assert batch.query_tokens is None
        return
    other = replace(batch, query_tokens=torch.where(batch.query_tokens > MASK, UNK, batch.query_tokens))
    assert (model(batch).logits - model(other).logits).abs().max() > 1e-4


def gradient_at(model, batch):
    embedded = model.embed(batch).detach().requires_grad_()
    gold = model(batch, embedded).logits.gather(1, batch.label[:, None]).sum()
    (gradient,) = torch.autograd.grad(gold, embedded)
    return gradient


def explained(made, measure):
    task, dataset, model, _ = made
    return build(measure, Explained(model, dataset, len(task.labels), 0, usual_measure(measure), 4096))


def test_the_gradient_is_the_norm_over_the_vocabulary_and_zero_at_padding(made):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    gradient = gradient_at(model, batch)
    direct = (gradient @ model.embedding_matrix.T).norm(dim=2)
    found = explained(made, "gradient")(batch).importance
    assert torch.allclose(found, direct, rtol=1e-3, atol=1e-5 * float(direct.max()))
    assert (found[batch.tokens == PAD] == 0).all() and (found[batch.maskable] > 0).all()


def test_input_times_gradient_is_the_product_with_the_word_embedding(made):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    direct = (gradient_at(model, batch) * model.embedding_matrix[batch.tokens]).sum(dim=2).abs()
    assert torch.allclose(explained(made, "input-times-gradient")(batch).importance, direct, atol=1e-5)


def test_an_integrated_gradient_is_complete(made):
    _, dataset, _, _ = made
    completeness = explained(made, "integrated-gradient")(batch_of(dataset, range(40))).completeness
    assert completeness.gap.sum() < 0.01 * completeness.difference.sum()


OF_THE_MODEL = [
    name for name, measure in MEASURES.items() if measure.needs_model and name != "attention-times-gradient"
]


def often(name):
    """A test of a measure that asks the model many times about a text takes long."""
    asks_often = MEASURES[name].slow or MEASURES[name].random
    return pytest.param(name, marks=pytest.mark.slow) if asks_often else name


@pytest.mark.parametrize("name", [often(name) for name in OF_THE_MODEL])
def test_every_measure_gives_a_token_the_same_value_in_any_company(made, name):
    _, dataset, _, _ = made
    explainer = explained(made, name)
    together = explainer(batch_of(dataset, range(4))).importance
    for row in range(4):
        batch = batch_of(dataset, [row])
        alone = explainer(batch).importance[0][batch.maskable[0]]
        beside = together[row, : batch.tokens.size(1)][batch.maskable[0]]
        assert torch.isfinite(alone).all()
        assert torch.allclose(beside, alone, rtol=1e-3, atol=1e-4 * max(1.0, float(alone.abs().max())))


def test_the_gradient_of_attention_is_not_offered(made):
    with pytest.raises(UserError, match="this model has no attention weights"):
        explained(made, "attention-times-gradient")(batch_of(made[1]))
    with pytest.raises(
        UserError, match="attention-times-gradient does not explain a model of --model-type transformer"
    ):
        resolve("sst", model="tiny", importance_measure="attention-times-gradient", k=1)


def test_a_run_that_explains_nothing_may_name_any_measure():
    config = resolve("sst", model="tiny", importance_measure="attention-times-gradient", k=0)
    assert config.importance_measure is None and config == resolve("sst", model="tiny", k=0)


def test_rollout_is_the_product_of_the_layers_with_half_of_what_entered_each():
    heads = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])[None]  # (1, 2, 2, 2)
    uniform = torch.full((1, 2, 2, 2), 0.5)
    of_layer = torch.tensor([[0.75, 0.25], [0.25, 0.75]])  # of either: both have mean attention of a half
    assert torch.allclose(rollout([heads]), of_layer)
    assert torch.allclose(rollout([heads, uniform]), of_layer @ of_layer)
    first, second = torch.rand(2, 3, 4, 5, 5).softmax(dim=-1)
    one = (first.mean(dim=1) + torch.eye(5)) / 2
    other = (second.mean(dim=1) + torch.eye(5)) / 2
    assert torch.allclose(rollout([first, second]), other @ one)  # the last layer first
    assert torch.allclose(rollout([first, second]).sum(dim=2), torch.ones(3, 5))


def test_rollout_of_a_model_sums_to_one_over_the_words_and_differs_from_its_last_layer(made):
    batch = batch_of(made[1])
    found = explained(made, "attention-rollout")(batch).importance
    has_words = batch.maskable.any(dim=1)
    assert torch.allclose(found.sum(dim=1)[has_words], torch.ones(1)) and (found[~batch.maskable] == 0).all()
    assert not torch.allclose(found, explained(made, "attention")(batch).importance, atol=1e-4)


@torch.no_grad()
def test_attention_is_that_of_the_first_token_in_the_last_layer(made):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    found = explained(made, "attention")(batch).importance
    has_words = batch.maskable.any(dim=1)
    assert torch.allclose(found.sum(dim=1)[has_words], torch.ones(1)) and (found[~batch.maskable] == 0).all()
    network = type(model.network)(model.network.config)
    network.load_state_dict(model.network.state_dict())
    network.eval().set_attn_implementation("eager")
    for row in range(10):
        one = batch_of(dataset, [row])
        tokens = one.tokens if one.query_tokens is None else torch.cat([one.tokens, one.query_tokens], dim=1)
        types = (
            {}
            if not model.query_type
            else {"token_type_ids": (torch.arange(tokens.size(1)) >= one.length).long()[None]}
        )
        output = network(input_ids=model.permutation[tokens], output_attentions=True, **types)
        weights = output.attentions[-1][0, :, 0].mean(dim=0)[1 : one.length - 1]
        assert torch.allclose(found[row, 1 : one.length - 1], weights / weights.sum(), atol=1e-5)
        assert torch.allclose(output.logits, model(one).logits, atol=1e-5)


def test_the_view_of_a_transformer_is_its_embeddings(made):
    assert type(made[2].view()) is View


# bfloat16

BF16 = 2**-8  # the spacing of its numbers, relative to them: 8 bits


@pytest.fixture
def in_bf16(made):
    """The model of `made`, computing in bfloat16."""
    _, _, model, _ = made
    copied = frozen(model)
    copied.bf16 = True
    return copied


def test_in_bfloat16_the_outputs_are_float32_and_close_to_those_of_float32(made, in_bf16):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    exact, rounded = model(batch).logits, in_bf16(batch).logits
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    # a few roundings a layer, which add up like independent errors
    assert float((rounded - exact).abs().max()) < 8 * BF16 * max(1.0, float(exact.abs().max()))
    assert all(weight.dtype == torch.float32 for weight in in_bf16.state_dict().values() if weight.is_floating_point())
    assert {layer.dtype for layer in in_bf16.activations(batch)} == {torch.float32}
    attention = in_bf16.attending().answer(batch).attention
    assert attention.dtype == torch.float32
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(len(batch.tokens)))


def test_in_bfloat16_gradients_are_float32_and_point_the_same_way(made, in_bf16):
    _, dataset, model, _ = made
    batch = batch_of(dataset)
    exact, rounded = gradient_at(model, batch), gradient_at(in_bf16, batch)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    cosine = torch.nn.functional.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0)
    assert cosine > 0.99
    assert not rounded[batch.tokens == PAD].any()


def test_a_model_that_computes_in_bfloat16_is_explained_in_float32_and_stays_as_it_was(made, in_bf16):
    task, dataset, _, recipe = made
    batch = batch_of(dataset)
    scores = explained((task, dataset, in_bf16, recipe), "integrated-gradient")(batch)
    assert torch.equal(scores.importance, explained(made, "integrated-gradient")(batch).importance)
    assert in_bf16.bf16


def test_what_computes_in_bfloat16_is_known_by_it_and_nothing_else_is_renamed(made, tmp_path):
    task, dataset, model, recipe = made
    assert "bf16" not in model.shape and "bf16" not in resolve("sst", model="tiny").identity["recipe"]
    assert resolve("sst", model="tiny", bf16=False) == resolve("sst", model="tiny")
    assert resolve("sst", model="tiny", bf16=True).identity["recipe"] == {"model": "tiny", "bf16": True}
    assert "--bf16" in resolve("sst", model="tiny", bf16=True).arguments()
    layout = Layout(ROOT / "nowhere")
    start = Start(task, dataset, replace(recipe, bf16=True), 0, layout.raw, layout.cache)
    other = transformer.Transformer.initial(start)
    said = {"model_type": "transformer", "shape": other.shape, "dataset": "d", "config": {}, "masks": "m"}
    checkpoint.save(tmp_path, other, said)
    again = checkpoint.load(tmp_path, "d", {}, "").eval()
    assert again.bf16
    batch = batch_of(dataset)
    torch.testing.assert_close(again(batch).logits, frozen(other)(batch).logits, rtol=0, atol=8 * BF16)


@pytest.mark.slow
def test_in_bfloat16_a_run_learns_explains_and_tests(small_run, tmp_path):
    flags = {"model": "tiny", "max_epochs": 2}
    exact, rounded = run(small_run(**flags)), run(small_run(**flags, bf16=True))
    assert rounded.sources["weights"] != exact.sources["weights"] and rounded.config["bf16"] is True
    first, *_, last = [epoch["loss"] for epoch in rounded.training["epochs"]]
    assert last < first
    asked = {"importance_measure": "integrated-gradient", "k": 1, "max_epochs": 1, "model": "tiny", "bf16": True}
    level = run(small_run(**asked, riemann_samples=5, train_missing=True))
    assert all(np.isfinite(error) for error in level.diagnostics["completeness_error"].values())


def test_weights_on_disk_are_the_whole_model(made, tmp_path):
    _, dataset, model, _ = made
    said = {
        "model_type": "transformer",
        "shape": model.shape,
        "dataset": "d",
        "config": {},
        "masks": "m",
        "vectors": None,
    }
    checkpoint.save(tmp_path, model, said)
    again = checkpoint.load(tmp_path, "d", {}, "").eval()
    batch = batch_of(dataset)
    torch.testing.assert_close(again(batch).logits, model(batch).logits, rtol=1e-5, atol=1e-6)  # up to rounding
    assert torch.equal(again.permutation, model.permutation)


# Training


def fit(made, state=None, **changes):
    task, dataset, _, recipe = made
    layout = Layout(ROOT / "nowhere")
    recipe = replace(recipe, max_epochs=3, batch_size=8, learning_rate=1e-2, **changes)
    model = transformer.Transformer.initial(Start(task, dataset, recipe, 0, layout.raw, layout.cache))
    return model, train.fit(
        model, dataset.splits["train"], dataset.splits["val"], recipe=recipe, monitor="cross_entropy", seed=0,
        device=torch.device("cpu"), state=state,
    )  # fmt: skip


class Killed(BaseException):
    """Stands for the death of the process."""


@pytest.mark.slow
def test_killed_and_continued_a_training_has_the_same_numbers(made, tmp_path, monkeypatch):
    monkeypatch.setitem(train.CEILING, "cross_entropy", float("inf"))
    model, trained = fit(made)
    write = training_state.write

    def write_and_die(*arguments):
        write(*arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training_state, "write", write_and_die)
        with pytest.raises(Killed):
            fit(made, tmp_path / "training.npz")
    torch.rand(3)
    again, continued = fit(made, tmp_path / "training.npz")
    assert continued.earlier_epochs == 1
    assert [(one.loss, one.monitor) for one in continued.epochs] == [(one.loss, one.monitor) for one in trained.epochs]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_rate_rises_and_falls_linearly_and_vectors_have_no_weight_decay(made):
    _, _, model, recipe = made
    shares = [model.schedule(replace(recipe, warm_up=0.2), step, 10) for step in range(10)]
    assert np.allclose(shares, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    matrices, vectors = model.optimizer(recipe).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.01, 0) and matrices["betas"] == (0.9, 0.98)
    assert all(parameter.dim() == 1 for parameter in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


def test_the_initial_model_depends_on_the_seed_only(made):
    task, dataset, _, recipe = made
    layout = Layout(ROOT / "nowhere")

    def head(seed):
        model = transformer.Transformer.initial(Start(task, dataset, recipe, seed, layout.raw, layout.cache))
        return torch.cat([value.flatten() for name, value in model.state_dict().items() if "classifier" in name])

    assert torch.equal(head(1), head(1))
    if recipe.named is None or "roberta" in recipe.named:  # else the head is that of the folder
        assert not torch.equal(head(1), head(2))


# What is refused


def test_a_model_that_looks_at_padding_is_refused(made, monkeypatch):
    _, dataset, model, _ = made
    surroundings = transformer.Transformer._surroundings

    def everything(self, batch, place):
        return {**surroundings(self, batch, place), "attention_mask": torch.ones_like(place)}

    monkeypatch.setattr(transformer.Transformer, "_surroundings", everything)
    with pytest.raises(UserError, match=r"--model x: .* cannot be explained, as its logits .*; choose another model"):
        check(model, dataset.splits["train"], "--model x")


def test_a_model_whose_embeddings_are_not_all_it_reads_is_refused(made, monkeypatch):
    _, dataset, model, _ = made
    from_tokens = transformer.Transformer.predict_from_tokens
    monkeypatch.setattr(transformer.Transformer, "predict_from_tokens", lambda *of: from_tokens(*of) + 1)
    with pytest.raises(UserError, match="its logits from embeddings are not those from tokens"):
        check(model, dataset.splits["train"], "--model x")


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def configure(**changes):
    """Change entries of config.json."""

    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def rename_weights(folder):
    path = folder / "model.safetensors"
    save_file({f"wrapped.{name}": weights for name, weights in load_file(path).items()}, path, {"format": "pt"})


def leave_a_link(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "blobs" / "gone")


def leave_an_index(folder):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": []}')


def test_a_big_bird_is_the_same_function_for_short_and_for_long_texts(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BigBirdConfig(**sizes, intermediate_size=16, attention_type="block_sparse")
    model = transformer.Transformer(**transformer.shape_of(config, 50, 4096, 0))
    assert model.network.config.attention_type == "original_full"


# What is done to the folder of a BERT, and what is said of it then.
BROKEN = {
    "no model": (remove("config.json"), "this is not a model, as it has no config.json"),
    "pickle": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "its weights are a pickle",
    ),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "its tokenizer is missing"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not JSON"),
    "unknown kind": (configure(model_type="other", auto_map={"AutoConfig": "x.Y"}), "the configuration cannot be read"),
    "no weights": (remove("model.safetensors"), "there are no weights in it"),
    "link to nowhere": (leave_a_link, "model.safetensors is a link that leads nowhere"),
    "no map": (leave_an_index, "index.json has no weight_map"),
    "other names": (rename_weights, "the weights do not fit its configuration, as bert.embeddings"),
    "other size": (configure(vocab_size=99), "the weights do not fit its configuration, as bert.embeddings.word_emb"),
    "decoder": (made_models.gpt2, "gpt2 is a decoder"),
    "few tokens": (configure(max_position_embeddings=7), "by its files it takes at most 7 tokens, and 8 are needed"),
    "no mask": (lambda folder: made_models.roberta(folder, mask=False), "its tokenizer has no mask token"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_folder_that_cannot_be_used_is_refused_with_the_reason(kind, small_run, tmp_path):
    spoil, said = BROKEN[kind]
    made_models.bert(tmp_path / "model")
    spoil(tmp_path / "model")
    with pytest.raises(UserError, match=said) as error:
        run(small_run(model=str(tmp_path / "model")))
    assert "\n" not in str(error.value) and str(error.value).startswith("--model ")


def test_where_nothing_can_be_downloaded_to_the_message_says_where_a_model_can_be_put(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "models").touch()  # permissions are nothing to root, but no folder can be made here
    with pytest.raises(UserError, match="cannot be written to") as error:
        resolve("babi-1", model="roberta-base", persistent_dir=str(tmp_path))
    assert "\n" not in str(error.value)
    place = tmp_path / "raw" / "models" / "roberta-base"
    assert str(error.value).endswith(f"into {place}, or into any other folder and name that one")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that sets what a download from the hub does in its folder, and what it leaves out or raises."""

    def set_to(*left_out, error=None):
        def download(name, local_dir, **asked):
            made_models.bert(local_dir)
            for file in left_out:
                (local_dir / file).unlink()
            if error is not None:
                raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    return set_to


def test_what_a_killed_download_left_is_removed_by_the_next_one(hub, tmp_path):
    class Killed(BaseException):
        pass

    def folders_there():
        return sorted(path.name for path in (tmp_path / "raw" / "models").iterdir() if path.is_dir())

    hub(error=Killed())
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
        pretrained.locate("owner/name", Layout(tmp_path))
    (left,) = folders_there()
    (tmp_path / "raw" / "models" / left / "half").touch()
    hub()
    _, folder = pretrained.locate("owner/name", Layout(tmp_path))
    assert folders_there() == ["owner--name"] == [folder.name] and not (folder / "half").exists()


def test_a_full_disk_is_no_missing_model_of_the_hub(hub, tmp_path):
    hub(error=OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(UserError, match=r"No space left on device: .*owner--name"), users_errors():
        pretrained.locate("owner/name", Layout(tmp_path))
    hub(error=ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
    with pytest.raises(UserError, match=r"the Hugging Face hub gives no such model \(ConnectionRefusedError\)"):
        pretrained.locate("owner/name", Layout(tmp_path))


def test_a_model_of_the_hub_without_safetensors_is_said_to_have_none(hub, tmp_path):
    hub("model.safetensors")
    with pytest.raises(UserError, match=r"the hub has no model.safetensors of it, and other weights are not read"):
        pretrained.locate("owner/name", Layout(tmp_path))
    assert not (tmp_path / "raw" / "models" / "owner--name").exists()


def test_the_name_of_a_model_is_that_of_its_folder_also_from_inside(folders, tmp_path, monkeypatch):
    shutil.copytree(folders["bert"], tmp_path / "model")
    (tmp_path / "model" / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "model" / "inside")
    found, _ = pretrained.locate("..", Layout(tmp_path))
    assert found.identity.startswith("model@")


@pytest.mark.slow
def test_a_name_of_the_hub_without_a_network_is_one_line(few_questions, tmp_path):
    command = [sys.executable, "-m", "nlproar", "run", "--dataset", "babi-1", "--source", "simulated"]
    command += ["--model-type", "roberta", "--persistent-dir", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**few_questions, "HF_HUB_OFFLINE": "1"}, cwd=ROOT
    )
    assert done.returncode == 2 and done.stdout == ""
    *_, said = done.stderr.splitlines()
    assert said.startswith("error: --model roberta-base: it is not a folder") and "HF_HUB_OFFLINE is set" in said
    assert said.endswith("put config.json, model.safetensors and the files of its tokenizer into"
                         f" {tmp_path / 'raw' / 'models' / 'roberta-base'}")  # fmt: skip


# Runs


@pytest.mark.slow
def test_a_run_of_a_folder_is_read_again_without_the_folder(folders, small_run, tmp_path, caplog):
    shutil.copytree(folders["bert"], tmp_path / "model")
    config = small_run(model=str(tmp_path / "model"))
    done = run(config)
    assert config.model_type == "transformer" and done.config["model"].startswith("model@")
    base = small_run(model=str(tmp_path / "model"), importance_measure="gradient", k=1)
    assert run(base).masked["test"] > 0
    shutil.rmtree(tmp_path / "model")
    assert small_run(model=str(tmp_path / "model")).id == config.id
    assert run(small_run(model=str(tmp_path / "model"))) == done
    assert from_identity(config.identity).id == config.id
    with pytest.raises(UserError, match="its folder is gone; put it back"):
        run(small_run(model=str(tmp_path / "model"), importance_measure="gradient", k=2))
    with pytest.raises(UserError, match="its folder is gone; put it back"):  # no tokenizer is made in its place
        run(small_run(model=str(tmp_path / "model"), max_length=9))


def test_a_model_is_known_by_its_content_not_by_its_place(folders, small_run, tmp_path):
    for place in ("a", "b"):
        shutil.copytree(folders["bert"], tmp_path / place / "model")
    one, other = [small_run(model=str(tmp_path / place / "model")) for place in ("a", "b")]
    assert one.id == other.id
    weights = tmp_path / "b" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert small_run(model=str(tmp_path / "b" / "model")).id != one.id


def test_a_model_that_lies_in_the_raw_folder_is_found_by_its_name(folders, small_run, tmp_path):
    shutil.copytree(folders["roberta"], tmp_path / "persistent" / "raw" / "models" / "roberta-base")
    config = small_run(model_type="roberta")
    assert config.model_type == "transformer" and config.recipe.model.startswith("roberta-base@")
    assert "--model roberta-base" in config.command() and "--max-epochs 1" in config.command()


def test_what_depends_on_the_model_is_named_only_where_it_was_chosen():
    usual = resolve("sst", model="tiny")
    assert usual.identity["recipe"] == {"model": "tiny"}
    assert usual.values["learning_rate"] == 5e-4 and usual.values["max_epochs"] == 8
    assert resolve("sst", model="tiny", learning_rate=1e-3).identity["recipe"] == {
        "model": "tiny",
        "learning_rate": 1e-3,
    }
    assert resolve("sst", model="tiny", model_type="rnn") == resolve("sst")


@pytest.mark.slow
def test_a_level_of_recursive_roar_through_the_command_line(few_questions, tmp_path):
    command = [sys.executable, "experiments/babi.py", "--source", "simulated", "--model", "tiny", "--max-epochs", "1"]
    command += ["--persistent-dir", str(tmp_path), "--device", "cpu", "--train-missing", "--recursive"]
    command += ["--importance-measure", "input-times-gradient", "--roar-strategy", "count", "--k", "1", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env=few_questions, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(command, capture_output=True, text=True, env=few_questions, cwd=ROOT)
    assert again.stderr.count("done already") == 2 and "training" not in again.stderr
    assert again.stdout == done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "flags"), [("masked-fine-tuning", {"k": 1}), ("erasure", {}), ("in-distribution", {})]
)
def test_the_other_metrics_take_a_transformer(small_run, metric, flags):
    found = run(small_run(model="tiny", evaluation=metric, importance_measure="gradient", train_missing=True, **flags))
    assert found.config["model"] == "tiny"


@pytest.mark.slow
def test_activations_do_not_depend_on_padding_or_company(small_run):
    config = small_run(model="tiny")
    run(config)
    layout = Layout.of(config)
    dataset = prerequisites.dataset_of(layout, config)
    split = dataset.splits["test"]
    model = checkpoint.load(layout.checkpoint(config), dataset.digest, config.identity, "").eval()
    rows = np.arange(6)
    with torch.no_grad():
        together = model.activations(make_batch(split, rows, int(split.lengths.max()) + 3))
        for row in rows:
            alone = model.activations(make_batch(split, rows[row : row + 1]))
            assert all(
                torch.allclose(one[row], other[0], atol=1e-5) for one, other in zip(together, alone, strict=True)
            )


@pytest.mark.slow
def test_the_tokens_of_a_run_are_in_its_record(small_run):
    config = small_run(model="tiny")
    dataset = prerequisites.dataset_of(Layout.of(config), config)
    assert run(config).data["vocabulary"] == len(dataset.vocabulary)
    rows = sum(len(rows) for rows, _ in FixedBatches(dataset.splits["test"], 512))
    assert rows == len(dataset.splits["test"]) and "babi-1" in REGISTERED
