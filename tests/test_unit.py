"""By word, a word is as important as its tokens together, and all of its tokens are masked or none."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlproar import api, masking, storage
from nlproar.dataset import encoding, subwords
from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import CLS, EOS
from nlproar.errors import UserError
from nlproar.evaluate.erasure import ranks
from nlproar.evaluate.unit import word_starts
from nlproar.explain import MEASURES
from nlproar.report import frame, panels
from nlproar.report.examples import nearest
from nlproar.run import cli, prerequisites, record
from nlproar.run.config import from_identity, resolve
from nlproar.run.context import Context
from nlproar.run.layout import Layout
from nlproar.run.run import run
from tests import made_records

# Masks. An observation is a list of words, and a word is the importance of each of its tokens.

words = st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=4), max_size=8)
observations = st.lists(words, min_size=1, max_size=5)
strategies = st.sampled_from(["count", "quantile"])


def flatten(rows):
    """The flat arrays of observations, with a special token of its own at the start and at the end of each."""
    tokens, starts, maskable, lengths = [], [], [], []
    for row in rows:
        own = [[9], *row, [9]]
        tokens += [value for word in own for value in word]
        starts += [place == 0 for word in own for place in range(len(word))]
        maskable += [False, *[True for word in row for _ in word], False]
        lengths.append(sum(map(len, own)))
    arrays = np.array(tokens, np.float32), np.array(maskable, bool), np.array(starts, bool)
    return *arrays, np.concatenate([[0], np.cumsum(lengths)])


def masks(rows, strategy, k, already=None):
    importance, maskable, starts, offsets = flatten(rows)
    spread = masking.at_tokens(masking.importance_of_words(importance, starts), starts)
    return masking.mask_most_important(spread, maskable, offsets, strategy, k, already, starts)


def of_words(mask, rows):
    """Whether each word of each observation is masked; it must not be in part."""
    found, place = [], 0
    for row in rows:
        place += 1
        own = []
        for word in row:
            part = mask[place : place + len(word)]
            assert part.all() or not part.any()
            own.append(bool(part[0]))
            place += len(word)
        found.append(own)
        place += 1
    return found


@settings(max_examples=40)
@given(observations, strategies, st.integers(0, 100))
def test_the_words_with_the_largest_sums_are_masked_whole(rows, strategy, k):
    masked = of_words(masks(rows, strategy, k), rows)
    for row, own in zip(rows, masked, strict=True):
        number = min(k, len(row)) if strategy == "count" else k * len(row) // 100
        first = sorted(range(len(row)), key=lambda word, row=row: (-sum(row[word]), word))[:number]
        assert set(np.flatnonzero(own)) == set(first)


@settings(max_examples=40)
@given(observations, st.randoms(), strategies, st.integers(0, 100), st.integers(0, 100))
def test_words_that_were_masked_stay_masked_and_count_as_one(rows, random, strategy, k, more):
    low, high = sorted((k, more))
    first = masks(rows, strategy, low)
    others = [[[random.randint(-3, 3) for _ in word] for word in row] for row in rows]
    second = masks(others, strategy, high, already=first)
    assert not (first & ~second).any()
    for row, own in zip(rows, of_words(second, rows), strict=True):
        assert sum(own) == (min(high, len(row)) if strategy == "count" else high * len(row) // 100)


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(-3, 3), max_size=12), min_size=1, max_size=5), strategies, st.integers(0, 100))
def test_with_words_of_one_token_the_masks_are_those_of_tokens(rows, strategy, k):
    rows = [[[value] for value in row] for row in rows]
    importance, maskable, _, offsets = flatten(rows)
    by_token = masking.mask_most_important(importance, maskable, offsets, strategy, k)
    assert (masks(rows, strategy, k) == by_token).all()


@settings(max_examples=40)
@given(observations, st.integers(0, 12))
def test_the_ranks_of_erasure_are_those_of_masking(rows, k):
    importance, maskable, starts, offsets = flatten(rows)
    spread = masking.at_tokens(masking.importance_of_words(importance, starts), starts)
    rank = ranks(spread, maskable, offsets, starts)
    assert (((rank < k) & maskable) == masks(rows, "count", k)).all()


def test_the_example_in_the_docstring_of_masking_by_hand():
    importance = np.array([0.1, 0.2, 0.5, 0.6], np.float32)
    starts = np.array([True, False, False, True])
    assert masking.importance_of_words(importance, starts) == pytest.approx([0.8, 0.6])
    assert masking.offsets_of_words(starts, np.array([0, 4])).tolist() == [0, 2]
    assert masking.at_tokens(np.array([8, 6]), starts).tolist() == [8, 8, 8, 6]
    assert api.mask(importance.tolist(), 1, "count", starts.tolist()).tolist() == [True, True, True, False]
    assert api.mask(importance.tolist(), 1, "count").tolist() == [False, False, False, True]
    assert api.mask(importance.tolist(), 50, "quantile", starts.tolist()).tolist() == [True, True, True, False]
    assert api.mask([0.3, 0.3, 0.6], 1, "count", [True, False, True]).tolist() == [True, True, False]  # a tie


@pytest.mark.parametrize(
    ("how", "expected"), [("sum", [0.9, 0.6]), ("first", [0.2, 0.6]), ("largest", [0.6, 0.6]), ("smallest", [0.1, 0.6])]
)
def test_the_importance_of_a_word_by_hand(how, expected):
    importance = np.array([0.2, 0.1, 0.6, 0.6], np.float32)
    starts = np.array([True, False, False, True])
    assert masking.importance_of_words(importance, starts, how) == pytest.approx(expected)


def test_a_word_comes_with_its_most_important_token_in_the_order_that_changes_most_and_with_its_last_in_the_other():
    importance, starts = np.array([4, 1, 3, 2], np.float32), np.array([True, False, True, False])
    of_most, of_least = MEASURES["beam-search"].of_word, MEASURES["least-beam-search"].of_word
    assert masking.importance_of_words(importance, starts, of_most).tolist() == [4, 3]
    assert masking.importance_of_words(importance, starts, of_least).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("starts", "words"),
    [([True, False], "word_starts has 2 values, and importance 3"), ([False, True, True], "false at the first token")],
)
def test_words_that_do_not_fit_the_tokens_of_a_text_are_refused(starts, words):
    with pytest.raises(UserError, match=words):
        api.mask([0.1, 0.9, 0.2], 1, "count", starts)


def test_random_words_are_about_k_per_cent_and_long_ones_are_not_preferred():
    rng = np.random.default_rng(0)
    rows = [[rng.random(rng.integers(1, 5)).tolist() for _ in range(50)] for _ in range(100)]
    importance, maskable, starts, offsets = flatten(rows)
    spread = masking.at_tokens(masking.importance_of_words(importance, starts, "first"), starts)
    masked = masking.mask_most_important(spread, maskable, offsets, "quantile", 30, word_starts=starts)
    assert all(sum(own) == 15 for own in of_words(masked, rows))
    assert masked.sum() / maskable.sum() == pytest.approx(0.3, abs=0.01)


# Where words begin


def test_a_word_begins_where_its_number_changes_and_at_each_special_token():
    starts = subwords.word_starts([None, 0, 0, 1, 2, 2, None, None])
    assert starts.tolist() == [True, True, False, True, True, False, True, True]
    assert subwords.word_starts([]).tolist() == []


def test_words_follow_the_tokens_of_two_splits_that_are_joined():
    tokens = np.array([CLS, 5, 6, EOS], np.int32)
    one = Split(tokens, np.array([0, 4]), np.zeros(1, int), word_starts=np.array([True, True, False, True]))
    other = replace(one, word_starts=np.ones(4, bool))
    assert one.followed_by(other).word_starts.tolist() == [*one.word_starts, *other.word_starts]
    assert one.masked(np.array([False, True, True, False])).word_starts is one.word_starts


# Runs. The tokenizer of `tiny` learns few pairs of bytes here, so that words have several tokens.


@pytest.fixture
def small_tiny(small_run, monkeypatch):
    """Configurations of the tiny model, whose words have several tokens."""
    monkeypatch.setattr(subwords, "TINY_VOCABULARY", 280)

    def make(**flags):
        return small_run(model="tiny", **flags)

    yield make
    prerequisites.forget_datasets()


def masked_words(config, split="test"):
    """Which words of each observation of a run are masked, as lists of bool; none may be in part."""
    context = Context(config, Layout.of(config))
    data = context.dataset.splits[split]
    assert data.word_starts is not None and not data.word_starts.all()
    mask = config.rules.masks(config, context).of_split[split]
    number = np.cumsum(data.word_starts) - 1
    share = np.bincount(number, mask) / np.bincount(number)
    assert set(share) <= {0, 1}
    offsets = masking.offsets_of_words(data.word_starts, data.offsets)
    return [share[offsets[row] + 1 : offsets[row + 1] - 1] == 1 for row in range(len(data))]


def test_the_words_of_the_data_are_those_of_the_texts(small_tiny):
    config = small_tiny()
    dataset = prerequisites.dataset_of(Layout.of(config), config)
    split = dataset.splits["test"]
    for row in range(len(split)):
        here = slice(split.offsets[row], split.offsets[row + 1])
        spelled = [dataset.vocabulary.words[token - 5] for token in split.tokens[here][1:-1]]
        starts = split.word_starts[here]
        assert starts[[0, 1, -1]].all()
        assert [token.startswith("Ġ") for token in spelled] == starts[1:-1].tolist()


def test_where_words_begin_is_kept_with_the_data_but_does_not_identify_them(small_tiny):
    config = small_tiny()
    layout = Layout.of(config)
    dataset = prerequisites.dataset_of(layout, config)
    (path,) = (layout.cache / "encoded").glob("*.npz")
    arrays, key = storage.stored(path)
    old = {name: values for name, values in arrays.items() if not name.endswith("word_starts")}
    assert len(arrays) - len(old) == 3
    storage.write_arrays(path.with_name(path.name.replace("simulated-", "simulated-0")), key, old)
    assert encoding._unpack(old).digest == dataset.digest and encoding._unpack(old).words_digest is None
    assert encoding.find("babi-1", "simulated", dataset.digest, layout.cache).words_digest == dataset.words_digest
    path.unlink()
    assert encoding.find("babi-1", "simulated", dataset.digest, layout.cache).words_digest is None


@pytest.mark.parametrize("k", [10, 50])
def test_random_masking_masks_whole_words(small_tiny, k):
    flags = {"importance_measure": "random", "roar_strategy": "quantile", "k": k, "unit": "word"}
    for own in masked_words(small_tiny(**flags)):
        assert own.sum() == k * len(own) // 100


def test_a_transform_changes_words_as_a_whole(small_tiny):
    flags = {"importance_measure": "position", "roar_strategy": "count", "k": 3, "unit": "word"}
    for own in masked_words(small_tiny(**flags)):
        assert own[:3].all() and own.sum() == 3
    twin = masked_words(small_tiny(**flags, transform="twin"))
    assert all(own.sum() == 3 for own in twin) and not all(own[:3].all() for own in twin)


def test_a_tokenizer_that_knows_no_words_is_refused_by_word_only(small_tiny, monkeypatch):
    monkeypatch.setattr(subwords.SubwordTokenizer, "knows_words", False)
    flags = {"importance_measure": "random", "k": 1}
    usual = small_tiny(**flags)
    assert usual.rules.masks(usual, Context(usual, Layout.of(usual))).of_split["test"].any()
    config = small_tiny(**flags, unit="word")
    with pytest.raises(UserError, match="--unit word: the tokenizer of tiny does not cut a text into words"):
        config.rules.masks(config, Context(config, Layout.of(config)))


def test_a_tokenizer_that_knows_no_words_is_refused_before_anything_is_trained(small_tiny, monkeypatch):
    monkeypatch.setattr(subwords.SubwordTokenizer, "knows_words", False)
    config = small_tiny(importance_measure="gradient", k=1, seed=9, unit="word", train_missing=True)
    with pytest.raises(UserError, match="--unit word: the tokenizer of tiny does not cut a text into words"):
        run(config)
    assert prerequisites.missing_models(Layout.of(config), config) == config.needs() != []


@pytest.mark.slow
def test_recursive_levels_of_the_command_line_mask_whole_words_that_nest(small_tiny, tmp_path, capsys):
    flags = {"importance_measure": "gradient", "recursive": True, "unit": "word", "evaluation": "masked-fine-tuning"}
    level = {k: small_tiny(**flags, k=k) for k in (1, 2)}
    words = shlex.split(level[2].command())
    assert words[:2] == ["nlproar", "run"] and words[words.index("--unit") :][:2] == ["--unit", "word"]
    cli.carry_out(cli.parse_any_task("", [*words[2:], "--k", "1", "2", "--train-missing"]))
    assert "Masked fine-tuning by word, count" in capsys.readouterr().out
    for one, two in zip(masked_words(level[1]), masked_words(level[2]), strict=True):
        assert one.sum() == min(1, len(one)) and two.sum() == min(2, len(two)) and not (one & ~two).any()
    for config in level.values():
        assert record.read(Layout.of(config).record(config), config).config["unit"] == "word"


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["erasure", "in-distribution", "normalised-erasure", "leave-one-out"])
def test_every_metric_takes_the_unit_or_ignores_it(small_tiny, metric):
    flags = {"evaluation": metric, "importance_measure": "gradient", "train_missing": True, "beams": 1}
    by_word = small_tiny(**flags, unit="word", max_length=12)
    found = run(by_word)
    assert from_identity(by_word.identity).id == by_word.id
    assert (found.config.get("unit") == "word") == (metric != "leave-one-out")


# Identity


def test_by_default_no_run_has_another_name():
    assert resolve("sst", model="tiny", importance_measure="gradient", k=1, unit="token").id == (
        resolve("sst", model="tiny", importance_measure="gradient", k=1).id
    )
    assert "unit" not in resolve("sst", model="tiny", importance_measure="gradient", k=1).identity["parameters"]


def test_what_the_unit_cannot_change_is_one_run_of_both():
    tiny = {"model": "tiny", "importance_measure": "gradient"}
    for flags in ({"k": 0}, {"k": 100, "roar_strategy": "quantile"}, {"evaluation": "masked-fine-tuning", "k": 0}):
        assert resolve("sst", **tiny, **flags, unit="word") == resolve("sst", **tiny, **flags)
    for flags in ({"k": 10}, {"evaluation": "masked-fine-tuning", "k": 10}, {"evaluation": "erasure"}):
        by_word = resolve("sst", **tiny, **flags, unit="word")
        assert by_word.id != resolve("sst", **tiny, **flags).id
        assert by_word.needs() == resolve("sst", **tiny, **flags).needs()
        assert from_identity(by_word.identity) == by_word
    recursive = resolve("sst", **tiny, k=2, recursive=True, unit="word")
    assert recursive.needs() == [resolve("sst", **tiny, k=1, recursive=True, unit="word")]


@pytest.mark.parametrize("flags", [{"k": 10}, {"evaluation": "erasure"}, {"evaluation": "in-distribution"}])
def test_the_tokens_of_a_bilstm_are_words_so_the_unit_does_not_matter(flags):
    usual = resolve("sst", importance_measure="gradient", **flags)
    assert resolve("sst", importance_measure="gradient", **flags, unit="word") == usual
    assert word_starts(usual, Split(np.array([CLS, EOS]), np.array([0, 2]), np.zeros(1, int))) is None


# Reports


def test_each_unit_is_compared_with_random_masking_of_its_own(tmp_path):
    flags = {"model": "tiny", "roar_strategy": "quantile", "persistent_dir": str(tmp_path)}
    performance = {"random": {"token": 0.8, "word": 0.7}, "gradient": {"token": 0.6, "word": 0.5}}
    for measure, by_unit in performance.items():
        for unit, value in by_unit.items():
            made_records.made(resolve("sst", **flags, importance_measure=measure, k=50, unit=unit), value)
    made_records.made(resolve("sst", model="tiny", persistent_dir=str(tmp_path)), 0.9)
    points = frame.points(frame.load([Layout(tmp_path)]).studies)
    found = points[points["k"] == 50].set_index(["masking", "series"])["performance"].to_dict()
    assert found == {
        ("ROAR", "random"): 0.8,
        ("ROAR", "gradient"): 0.6,
        ("ROAR by word", "random"): 0.7,
        ("ROAR by word", "gradient"): 0.5,
    }
    assert (points[points["k"] == 0]["performance"] == 0.9).all() and (points["k"] == 0).sum() == 4
    assert nearest([0, 1, 2, 3], "count", 5) == [0, 1, 2]  # of five words


@pytest.mark.parametrize(
    ("units", "counted"), [(["token"], "tokens"), (["word"], "words"), (["token", "word"], "tokens, or words,")]
)
def test_the_caption_of_curves_says_what_their_levels_count(units, counted, tmp_path):
    flags = {"model": "tiny", "roar_strategy": "quantile", "persistent_dir": str(tmp_path)}
    made_records.made(resolve("sst", model="tiny", persistent_dir=str(tmp_path)), 0.9)
    for unit in units:
        made_records.made(resolve("sst", **flags, importance_measure="random", k=50, unit=unit), 0.8)
    studies = frame.load([Layout(tmp_path)]).studies
    (picture,) = panels.curves(frame.points(studies), studies)
    assert f"where the {counted} that" in picture.caption
    assert f"by the percentage of the {counted.rstrip(',')} that are masked" in picture.caption
