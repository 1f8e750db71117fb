"""What would silently bring the waste back, held by counts of operations and bytes, never by seconds."""

import json
import os
import platform
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nlproar import masking
from nlproar.dataset.batch import FixedBatches, make_batch
from nlproar.explain import IntegrationPath
from nlproar.explain.importance import Explained, build, side_by_side
from nlproar.model import bilstm_attention, recurrence, train
from nlproar.model.bilstm_attention import BiLSTMAttention
from nlproar.model.modes import frozen
from nlproar.model.recipes import BiLSTMRecipe
from tests.conftest import ROOT, random_split

VOCABULARY, EMBEDDING, HIDDEN = 500, 12, 8


class Operations(TorchDispatchMode):
    """Counts operations by name, and keeps the largest number of elements that one of them made and the bytes that
    all `new_...` allocated."""

    def __init__(self):
        super().__init__()
        self.count, self.largest, self.allocated = Counter(), 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count[func.overloadpacket.__name__] += 1
        sizes = [
            value.numel() for value in (out if isinstance(out, (tuple, list)) else [out]) if torch.is_tensor(value)
        ]
        self.largest = max([self.largest, *sizes])
        if func.overloadpacket.__name__.startswith("new_"):
            self.allocated += out.untyped_storage().nbytes()
        return out


@pytest.fixture
def small(monkeypatch):
    """A model like a large one, 32 observations of a vocabulary that is large beside its embedding, their batch."""
    monkeypatch.setattr(bilstm_attention, "SMALL", 0)
    torch.manual_seed(0)
    split = random_split(np.random.default_rng(0), 32, 20, VOCABULARY, 2, False)
    return BiLSTMAttention(VOCABULARY, EMBEDDING, HIDDEN, 2, False), split, make_batch(split, np.arange(32))


def test_a_training_step_packs_no_sequence_and_projects_each_distinct_word_once(small):
    model, _, batch = small
    with Operations() as seen:
        model(batch).logits.sum().backward()
    assert not any("pack" in name or "lstm" in name for name in seen.count)
    tokens, words = batch.tokens.numel(), len(batch.tokens.unique())
    with FlopCounterMode(display=False) as once:
        model(batch).logits.sum().backward()
    with FlopCounterMode(display=False) as direct:  # each token by itself
        model(batch, model.embed(batch)).logits.sum().backward()
    projection = 3 * 2 * EMBEDDING * 8 * HIDDEN  # of one word: forward, gradient of the word, gradient of the weight
    assert direct.get_total_flops() - once.get_total_flops() == (tokens - words) * projection


def test_a_step_of_the_recurrence_is_one_product_for_both_directions(small):
    model, _, batch = small
    with Operations() as seen, torch.no_grad():
        model.encoder(model.view().inputs(batch).values, batch.length)
    assert seen.count["bmm"] == batch.tokens.size(1)


def test_the_gradient_measure_makes_nothing_of_the_size_of_tokens_times_vocabulary(small):
    model, split, batch = small
    explainer = build("gradient", explained(model, split))
    with Operations() as seen:
        explainer(batch)
    assert seen.largest < batch.tokens.numel() * VOCABULARY / 4


def test_explaining_computes_no_gradient_of_a_weight_and_training_one(small, monkeypatch):
    model, split, batch = small
    calls, gradient = [], recurrence._recurrent_gradient
    monkeypatch.setattr(recurrence, "_recurrent_gradient", lambda *args: calls.append(1) or gradient(*args))
    model(batch).logits.sum().backward()
    assert len(calls) == 1
    build("gradient", explained(model, split))(batch)
    assert len(calls) == 1


def test_an_integrated_gradient_takes_its_points_in_batches_not_one_by_one(small, monkeypatch):
    model, split, batch = small
    calls, predict = [], BiLSTMAttention.predict
    monkeypatch.setattr(BiLSTMAttention, "predict", lambda *args: calls.append(1) or predict(*args))
    build("integrated-gradient", explained(model, split, 30, 10 * batch.tokens.numel())).integral(batch)
    assert len(calls) == 3 + 2  # and the two ends of the path


def test_training_updates_all_weights_in_one_operation(small):
    model, _, _ = small
    optimizer = model.optimizer(BiLSTMRecipe())
    assert all(group["fused"] for group in optimizer.param_groups)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_validation_keeps_nothing_for_a_way_back(small):
    model, _, batch = small
    allocated = {}
    inputs = model.view().inputs(batch).values
    for wanted in (False, True):
        with Operations() as seen:
            model.encoder.requires_grad_(wanted)(inputs, batch.length)
        allocated[wanted] = seen.allocated
    assert allocated[False] < inputs.nbytes / 2 < inputs.nbytes < allocated[True]


def test_equally_long_observations_share_a_batch(small):
    _, split, _ = small
    widths = len(np.unique(-(-split.lengths // 8)))
    assert len(list(FixedBatches(split, 16_384))) == widths


def test_two_threads_explain_two_batches_at_a_time_and_are_there_again_afterwards():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = threading.Barrier(2, timeout=30)
        with side_by_side(torch.device("cpu")) as each:
            assert sorted(each(lambda _: both.wait(), range(2))) == [0, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_largest_batches_come_first(small):
    _, split, _ = small
    widths = [width for _, width, _ in FixedBatches(split, 40).plan()]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) > 1


def test_a_mask_takes_hardly_more_than_its_information():
    masked = np.random.default_rng(0).random(80_000)
    for share in (0.1, 0.5, 0.9):
        information = -share * np.log2(share) - (1 - share) * np.log2(1 - share)  # bits a token
        assert masking.pack(masked < share).nbytes < 1.05 * information * 10_000 + 100


def test_the_help_imports_no_torch():
    code = (
        "import runpy, sys\nsys.argv = ['imdb.py', '--help']\n"
        "try: runpy.run_path('experiments/imdb.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'scipy', 'pytorch_lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)


def explained(model, split, samples=30, tokens_per_batch=16_384):
    from nlproar.dataset.encoding import Dataset
    from nlproar.dataset.vocabulary import Vocabulary

    words = Vocabulary(tuple(f"w{i:03d}" for i in range(VOCABULARY - 5)))
    return Explained(
        model, Dataset(words, {"train": split}, "d"), 2, 0, IntegrationPath(riemann_samples=samples), tokens_per_batch
    )


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_large_blocks_cost_no_page_faults_once_there_are_enough():
    code = (  # ten times 64 MiB are 160,000 pages of 4 KiB
        "import resource; from nlproar import process; process.prepare(); import torch\n"
        "def faults(): torch.zeros(1 << 24); return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "found = [faults() for _ in range(60)]; print(found[-1] - found[-11])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000


def test_tests_that_run_side_by_side_divide_the_cores():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    assert torch.get_num_threads() * workers <= max(workers, os.cpu_count() or 1)


# The benchmark of transformers. It is no part of the package, so it is found where its script is.


@pytest.fixture
def encoders(monkeypatch, tmp_path):
    """A tiny transformer and few texts, as the benchmark has them."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from baseline import encoders

    monkeypatch.setattr(encoders, "GENERATED", {"train": 100, "val": 20, "test": 40})
    return encoders.Encoders("tiny", None, tmp_path, 100, 3, torch.device("cpu"))


def test_our_training_batches_hold_less_padding_than_random_ones(encoders):
    from baseline import transformers_stages

    ours = transformers_stages.padding_of_ours(encoders)
    assert 0 < ours < transformers_stages.padding_of(encoders.train, encoders.recipe.batch_size) < 1


@pytest.mark.slow
def test_the_plain_way_learns_and_predicts_as_ours(encoders):
    """One step on all observations together: no order is left in which the two sides could differ."""
    from baseline import transformers_peers, transformers_stages

    everything = replace(encoders.recipe, batch_size=100, warm_up=0.0)
    encoders.recipe = everything
    encoders.model.eval()
    for module in encoders.model.modules():  # dropout draws other numbers on each side
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    network = transformers_stages.initial_network(encoders)
    collate = transformers_peers.collator(encoders.padding)
    rows = encoders.rows(encoders.train)
    transformers_peers.loop_train(network, rows, collate, everything, encoders.device)
    theirs = transformers_peers.loop_predict(network, encoders.rows(encoders.test), collate, 16, encoders.device)
    before = train.predict(encoders.model, encoders.test)
    encoders.fit(encoders.train, encoders.val)
    ours = train.predict(encoders.model, encoders.test)
    assert (ours - theirs).abs().max() < 0.01 * (ours - before).abs().max()


@pytest.mark.parametrize("baseline", ["zero", "mask"])
def test_the_integrated_gradient_of_captum_is_ours_with_fewer_points(encoders, baseline):
    from baseline import peers, transformers_peers

    tokens = encoders.explained_tokens
    if baseline == "zero":
        theirs = peers.integrated_gradient(encoders.model, encoders.explained, tokens, with_gap=True)
    else:
        model = frozen(encoders.model)
        theirs = transformers_peers.layer_integrated_gradient(model, encoders.explained, 4, tokens, with_gap=True)
    ours = encoders.explain(encoders.explained, baseline)
    np.testing.assert_allclose(theirs.values, ours.values, atol=1e-3 * ours.values.max())
    assert theirs.gap.sum() < 1e-2 * ours.difference.sum()
    assert 0 < encoders.predictions_of_each(encoders.explained, baseline) < peers.STEPS


@pytest.mark.slow
def test_trainer_takes_as_many_steps_as_ours(encoders):
    from baseline import transformers_peers

    rows, collate = encoders.rows(encoders.train), transformers_peers.collator(encoders.padding)
    for by in ("random", "group_by_length"):
        made = transformers_peers.trainer(encoders.model.network, rows, collate, encoders.recipe, encoders.device, by)
        made.train()
        assert made.state.global_step == -(-len(rows) // encoders.recipe.batch_size)


@pytest.mark.slow
def test_the_benchmark_times_every_stage_of_a_transformer(script, tmp_path):
    flags = ("--model", "tiny", "--observations", 40, "--explained", 2, "--rounds", 1, "--clock", "cpu")
    done = script("benchmark", *flags, "--json", tmp_path / "numbers.json")
    stages = {one["stage"] for one in json.loads((tmp_path / "numbers.json").read_text())["results"]}
    assert stages >= {"train, loop", "test, loop", "explain from zero, Captum", "explain from mask, Captum"}
    for by_trainer in ("train, Trainer", "train, Trainer by length", "test, Trainer"):
        assert (by_trainer in stages) != (f"{by_trainer:25} left out" in done.stdout)


def test_the_cost_of_roberta_is_measured_on_any_device(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from baseline import roberta

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    monkeypatch.setattr(roberta, "RobertaConfig", partial(roberta.RobertaConfig, vocab_size=50, **small))
    *measured, last = roberta.run(torch.device("cpu"), 1, "cpu")
    assert len(measured) == 4 and all(one["seconds"][0] > 0 for one in measured)
    assert set(last["hours"]) == set(roberta.SIZES) and "sst" in capsys.readouterr().out


def test_the_estimate_for_roberta_counts_every_step_of_every_model(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from baseline import roberta

    size = roberta.Size(train=33, val=1, test=1, tokens=10.0, epochs=2)
    only_steps = roberta.Costs(step=3600.0, trained_token=0.0, tested_token=0.0, explained_token=0.0)
    assert roberta.hours_of_training(size, only_steps) == 5 * 38 * 2 * 3
    assert roberta.hours_of_explaining(size, only_steps) == 0
    only_explaining = roberta.Costs(step=0.0, trained_token=0.0, tested_token=0.0, explained_token=3600.0)
    assert roberta.hours_of_explaining(size, only_explaining) == 5 * 9 * 35 * 10 * (1 + 1 + 50)
