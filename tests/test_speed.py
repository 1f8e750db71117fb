"""What would silently bring the waste back, held by counts of operations and bytes, never by seconds."""

import os
import platform
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nlproar import masking
from nlproar.dataset.batch import FixedBatches, make_batch
from nlproar.explain import IntegrationPath
from nlproar.explain.importance import Explained, build, side_by_side
from nlproar.model import bilstm_attention, recurrence
from nlproar.model.bilstm_attention import BiLSTMAttention
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
