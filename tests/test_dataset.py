"""From files to arrays: what is read is what the task says, and decoding gives it back."""

import json
import re
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlproar.dataset import TASKS, babi, babi_simulation, encoding, load_task, stanford_sentiment
from nlproar.dataset import raw as raw_files
from nlproar.dataset.raw import generated
from nlproar.dataset.sources import SST, Source
from nlproar.dataset.task import SPLITS, Example, drawn, in_memory
from nlproar.dataset.tokenizer import english, whitespace
from nlproar.dataset.vocabulary import EOS, MASK, SPECIALS, UNK, Vocabulary
from nlproar.errors import UserError
from nlproar.explain import MEASURES
from nlproar.run import prerequisites
from nlproar.run.config import resolve
from nlproar.run.layout import Layout

words = st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=4))


@given(words)
def test_decoding_gives_the_tokens_back(tokens):
    vocabulary = Vocabulary.of(tokens)
    assert vocabulary.decode(vocabulary.encode(tokens)) == [t if t not in SPECIALS else "[UNK]" for t in tokens]


@given(words)
def test_ids_depend_on_the_set_of_words_only(tokens):
    assert Vocabulary.of(tokens) == Vocabulary.of(reversed(tokens * 2))
    assert sorted(Vocabulary.of(tokens).ids.values()) == list(range(len(SPECIALS), len(Vocabulary.of(tokens))))


def toy(examples, **changes):
    task = replace(load_task("babi-1"), read=lambda raw: examples, **changes)
    return encoding._unpack(encoding.encode(task, generated({})))


def example(split, text, query="q", label=0):
    return Example(split, text, label, query)


def test_encoding_keeps_every_observation_in_order():
    texts = {"train": ["a b", "", "b c c"], "val": ["c x"], "test": ["a"]}
    data = toy([example(split, text, label=i) for split in texts for i, text in enumerate(texts[split])])
    for name, split in data.splits.items():
        for i, text in enumerate(texts[name]):
            ids = split.tokens[split.offsets[i] : split.offsets[i + 1]]
            expected = [word if word != "x" else "[UNK]" for word in text.split()]  # x is not in training
            assert data.vocabulary.decode(ids) == expected and ids[-1] == EOS
        assert list(split.label) == list(range(len(texts[name])))
    assert [split.first for split in data.splits.values()] == [0, 3, 4]


def test_a_word_counts_once_per_document_and_only_in_training():
    examples = [example("train", "a a a", "b"), example("train", "b", "b"), example("val", "a"), example("test", "a")]
    assert toy(examples, min_document_frequency=2).vocabulary.words == ("b",)


def test_a_text_cannot_forge_a_special_token():
    data = toy([example("train", "[MASK] [PAD] a"), example("val", "a"), example("test", "a")])
    assert list(data.splits["train"].tokens[1:3]) == [UNK, UNK]


def test_masking_a_split_changes_nothing_else():
    split = toy([example("train", "a b c"), example("val", "a"), example("test", "a")]).splits["train"]
    masked = split.masked(split.maskable)
    assert (masked.tokens[1:-1] == MASK).all() and masked.tokens[0] == split.tokens[0]
    assert (split.tokens != MASK).all() and masked.offsets is split.offsets


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_an_empty_split_is_refused(missing):
    with pytest.raises(UserError, match=missing):
        toy([example(name, "a") for name in ("train", "val", "test") if name != missing])


def test_no_word_and_a_label_that_never_occurs_are_refused():
    everywhere = [example(name, "") for name in ("train", "val", "test")]
    with pytest.raises(UserError, match="no word"):
        toy([replace(one, query="") for one in everywhere])
    with pytest.raises(UserError, match="positive"):
        toy(everywhere, labels=("negative", "positive"))


@pytest.mark.slow
def test_tokenizing_in_processes_gives_the_same(monkeypatch):
    monkeypatch.setattr(encoding, "_WORTH_PROCESSES", 1500)
    task = load_task("babi-2")
    raw = generated({name: babi_simulation.write(2, part) for part, name in babi.members(2).items()})
    alone, together = encoding.encode(task, raw), encoding.encode(task, raw, num_workers=2)
    assert all(np.array_equal(alone[name], together[name]) for name in alone)


def films(*changed, tokenize=whitespace, **facts):
    """A task in memory with two observations a split, and others beside them."""
    texts = [("a good film", 1), ("a bad film", 0)]
    usual = [Example(split, text, label) for split in SPLITS for text, label in texts]
    return in_memory("films", [*usual, *changed], ("negative", "positive"), tokenize, **facts)


def test_a_process_reads_data_again_when_the_task_or_the_files_are_others(tmp_path, monkeypatch):
    """In a notebook, the same name is registered again with other texts."""
    module = ModuleType("of_a_notebook")
    monkeypatch.setitem(sys.modules, "of_a_notebook", module)
    monkeypatch.setitem(TASKS, "films", "of_a_notebook")

    def digest():
        return prerequisites.load_dataset("films", "official", Layout(tmp_path), 0).digest

    module.TASKS = {"films": films()}
    first = digest()
    assert digest() == first
    module.TASKS = {"films": films(Example("train", "another film", 1))}
    assert digest() != first

    def read(raw):
        ((_, text),) = raw.contents("words.txt")
        return [Example(split, text, label) for split in SPLITS for label in (0, 1)]

    source = Source("films", (), None)
    own = films()
    module.TASKS = {"films": replace(own, sources={"official": source}, members=("words.txt",), read=read)}
    (tmp_path / "raw" / "films").mkdir(parents=True)
    found = []
    for words in ("a film", "a longer film"):
        (tmp_path / "raw" / "films" / "words.txt").write_text(words)
        found.append(digest())
    assert found[0] != found[1]


def test_another_version_of_a_task_is_encoded_again(tmp_path):
    """Which words a tokenizer makes is not seen from outside."""

    def words(task):
        generated_texts = {"official": lambda: {"a": "b"}}
        own = replace(task, sources=generated_texts, read=lambda raw: [
            Example(split, "Word-0 word", label) for split in SPLITS for label in (0, 1)
        ])  # fmt: skip
        return encoding.load(own, "official", tmp_path / "raw", tmp_path / "cache").vocabulary.words

    one = films()
    assert words(one) == ("Word-0", "word")
    other = replace(one, tokenize=lambda text: text.lower().split())
    assert words(replace(other, version=2)) == ("word", "word-0")


def test_a_function_that_no_other_process_knows_tokenizes_in_this_one(monkeypatch):
    monkeypatch.setattr(encoding, "_WORTH_PROCESSES", 2)
    monkeypatch.setattr(encoding, "_CHUNK", 2)
    own = films(tokenize=lambda text: text.split())
    assert encode(own, num_workers=2) == encode(films())


def encode(task, **options):
    return encoding._unpack(encoding.encode(task, generated({}), **options)).digest


@pytest.mark.parametrize(
    ("example", "said"),
    [
        (Example("dev", "a film", 1), "example 6: its split is another one than train, val, test"),
        (Example("train", float("nan"), 1), "the text or the query is not a text (their types are float, str)"),
        (Example("train", "half \ud800", 1), "the text or the query holds half a character"),
        (Example("train", "a film", "positive"), "the label is not a whole number (its type is str)"),
        (Example("train", "a film", 1.0), "the label is not a whole number (its type is float)"),
        (Example("train", "a film", 2), "the label is 2; it must be from 0 to 1"),
        (Example("train", "a film", -100), "the label is -100"),
        (Example("train", "a film", 1, "a query"), "only a task with paired=True has"),
    ],
)
def test_an_example_of_ones_own_that_cannot_be_is_named(example, said):
    with pytest.raises(UserError, match=f"task films, .*{re.escape(said)}"):
        films(example)


def test_what_is_no_example_is_named():
    with pytest.raises(UserError, match=r"task films, example 6: it is no Example \(its type is tuple\)"):
        films(("train", "a film", 1))


@pytest.mark.parametrize("labels", [(0, 1), ("positive",), ("a", "a"), "ab", ("a", ""), ()])
def test_labels_of_a_task_are_two_or_more_different_names(labels):
    with pytest.raises(UserError, match=r"task films: labels=.*; give two or more different names"):
        in_memory("films", [], labels, whitespace)
    with pytest.raises(UserError, match=r"task films: labels="):
        replace(films(), labels=labels)
    assert in_memory("films", [], ["a", "b"], whitespace).labels == ("a", "b")


@pytest.mark.parametrize("name", ["a/b", "../escaped", "..", ".hidden", "", "a b", "-k"])
def test_a_name_that_becomes_a_part_of_a_path_leads_nowhere_else(name, monkeypatch):
    with pytest.raises(UserError, match="give it a name of letters, digits"):
        in_memory(name, [], ("a", "b"), whitespace)
    with pytest.raises(UserError, match="give it a name of letters, digits"):
        replace(films(), sources={name: dict})
    monkeypatch.setitem(TASKS, name, TASKS["sst"])
    monkeypatch.setitem(MEASURES, name, MEASURES["random"])
    for dataset, flags in ((name, {}), ("sst", {"importance_measure": name})):
        with pytest.raises(UserError, match="give it a name of letters, digits"):
            resolve(dataset, **flags)


@pytest.mark.parametrize(
    ("tokenize", "said"),
    [
        (lambda text: None, "returned an object of type NoneType, not a list of texts"),
        (str.lower, "returned an object of type str, not a list of texts"),
        (lambda text: (word for word in text.split()), "returned an object of type generator"),
        (lambda text: [len(word) for word in text.split()], "a list whose elements have the type int, not str"),
    ],
)
def test_a_tokenizer_that_returns_no_list_of_texts_is_named(tokenize, said):
    with pytest.raises(UserError, match=f"task films: its tokenizer .*{said}"):
        films(tokenize=tokenize)
    with pytest.raises(UserError, match=f"task films: its tokenizer .*{said}"):
        encode(replace(films(), tokenize=tokenize))


def test_a_split_without_examples_of_ones_own_asks_for_examples():
    without = [Example(split, "a film", label) for split in ("train", "test") for label in (0, 1)]
    task = in_memory("films", without, ("negative", "positive"), whitespace)
    with pytest.raises(UserError, match=r"^no observation of films for val; left out: none; add examples to the task$"):
        encode(task)


@pytest.mark.parametrize("fact", ["monitor", "metric"])
def test_a_metric_of_a_task_of_ones_own_that_does_not_exist_is_named(fact):
    for name in ("f1", "cross_entropy"):
        with pytest.raises(UserError, match=f"task films: {fact} '{name}': choose from accuracy, auroc, macro_f1"):
            films(**{fact: name})
    with pytest.raises(UserError, match="'auroc': choose from accuracy, macro_f1, micro_f1"):
        in_memory("films", [], ("bad", "good", "other"), whitespace, **{fact: "auroc"})
    films(**{fact: "auroc"})
    films(metric="macro_f1_at_best_threshold")


@pytest.mark.parametrize("label", [np.int64(1), np.bool_(True), True])
def test_a_label_may_be_an_integer_or_a_truth_value_of_any_library(label):
    (*_, last) = films(Example("test", "a film", label)).read(generated({}))
    assert last == Example("test", "a film", 1) and type(last.label) is int


def test_another_tokenizer_of_ones_own_is_other_data(tmp_path):
    def load(task):
        return encoding.load(task, "official", tmp_path / "raw", tmp_path / "cache", 0).digest

    by_words = load(films())
    assert load(films(tokenize=list)) != by_words == load(films())


def test_a_token_with_a_line_break_is_refused_without_showing_it():
    """It may be the whole of a confidential text."""
    with pytest.raises(UserError, match=r"films: a token of 5 characters holds a line break") as error:
        encode(films(Example("train", "ill\nb", 1), tokenize=lambda text: [text]))
    assert "ill" not in str(error.value)


@pytest.mark.parametrize("swapped", [Example("ill", "train", 1), Example("train", 1, "ill")])
def test_an_example_whose_fields_are_swapped_is_refused_without_its_text(swapped):
    with pytest.raises(UserError) as error:
        films(swapped)
    assert "ill" not in str(error.value)


def test_english_tokens_are_lower_case_and_split_by_rule():
    assert english("It doesn't  Work") == ["it", "does", "n't", "work"]


def test_sst_reads_roots_and_drops_neutral_and_short():
    """Each tree holds the sentiment of its root as a word."""
    tree = "(2 (2 The) (2 (2 -LRB-) (2 film))) (3 (2 (2 -RRB-) (2 does)) (3 (2 n't) (3 (2 bore) (2 {root}) (2 .))))"
    lines = [f"({root} {tree.format(root=root)})" for root in range(5)]
    lines += ["(4 (2 a) (2 very) (2 good) (2 film) (2 .))", "(1 (2 not) (2 a) (2 very) (2 good) (2 film) (2 .))", ""]
    texts = dict.fromkeys(stanford_sentiment.MEMBERS, "\n".join(lines))
    sentences = [(f"The film does n t bore {root}", label) for root, label in ((0, 0), (1, 0), (3, 1), (4, 1))]
    sentences.append(("not a very good film", 0))
    expected = [Example(split, text, label) for split in SPLITS for text, label in sentences]
    assert list(stanford_sentiment.read(generated(texts))) == expected


def test_a_line_that_is_no_tree_is_named():
    texts = dict.fromkeys(stanford_sentiment.MEMBERS, "<xml>")
    with pytest.raises(UserError, match=r"trees/train.txt, line 1: not a sentiment tree"):
        list(stanford_sentiment.read(generated(texts)))


@pytest.mark.parametrize("blank", ["\xa0", "\u2009", "\u3000", "\x85"])
def test_a_leaf_may_hold_a_blank_that_is_no_plain_one(blank):
    line = f"(3 (2 (2 8{blank}1\\/2) (2 of)) (3 (2 ten) (3 (3 is) (3 (2 good) (3 (2 work) (2 .))))))"
    texts = dict.fromkeys(stanford_sentiment.MEMBERS, line)
    assert next(stanford_sentiment.read(generated(texts))).text == "8 1 2 of ten is good work"


@pytest.mark.parametrize(
    "tree",
    ["(3 (2 a) (2 ))", "(3 (2 a) (2 b)", "(3 (2 a) (2 b)))", "(3 (2 a) b (2 c))", "(3 a (2 b))", "(3 (2 a b) (2 c))",
     "(3)", "(3 )", "()", "(7 (2 a) (2 b))", "(3 (2 a) (2 b)) (2 c)", "x (3 (2 a) (2 b))", "(3 (x a) (2 b))",
     "(3 (2 a)(b))", "(3 ((2 a)) (2 b))"],
)  # fmt: skip
def test_a_tree_whose_leaves_do_not_add_up_is_refused_by_its_line(tree):
    assert stanford_sentiment.leaves_of(tree) is None
    texts = dict.fromkeys(stanford_sentiment.MEMBERS, f"(3 (2 a) (2 b))\n{tree}\n")
    with pytest.raises(UserError, match=r"trees/train.txt, line 2: not a sentiment tree"):
        list(stanford_sentiment.read(generated(texts)))


trees = st.recursive(
    st.text(st.characters(exclude_characters="() \t", exclude_categories=["Cs"]), min_size=1).map(lambda word: [word]),
    lambda children: st.lists(children, min_size=2, max_size=3).map(lambda nodes: nodes),
    max_leaves=12,
)


@given(trees)
def test_the_leaves_of_a_tree_are_all_its_words_in_order(tree):
    def written(node):
        return f"(2 {node[0] if isinstance(node[0], str) else ' '.join(map(written, node))})"

    def words_of(node):
        return node if isinstance(node[0], str) else [word for child in node for word in words_of(child)]

    assert stanford_sentiment.leaves_of(written(tree)) == words_of(tree)


def test_an_answer_that_is_no_label_is_named_with_the_labels():
    texts = dict.fromkeys(babi.members(1).values(), "1 Mary went home.\n2 Where is Mary? \tcellar\t1\n")
    with pytest.raises(UserError, match=r"line 2: the answer 'cellar' is none of .*bathroom"):
        list(load_task("babi-1").read(generated(texts)))


def test_blank_lines_and_blanks_at_the_end_change_no_babi_story():
    plain = (
        "1 Mary went home.\n2 John left.\n3 Where is Mary? \tkitchen\t1\n1 John left.\n2 Where is John?\toffice\t1\n"
    )
    loose = "\n\n" + plain.replace(".\n", ". \n  \n").replace("\t1\n", "\t1 \r\n\n")
    read = load_task("babi-1").read
    names = babi.members(1).values()
    examples = list(read(generated(dict.fromkeys(names, plain))))
    assert examples == list(read(generated(dict.fromkeys(names, loose)))) and len(examples) == 4


@pytest.mark.parametrize("number", [0, 4, 10**30])
def test_a_babi_story_with_a_line_lost_is_refused(number):
    texts = dict.fromkeys(babi.members(1).values(), f"1 Mary went home.\n2 John left.\n{number} John went home.\n")
    with pytest.raises(UserError, match="line 3: "):
        list(load_task("babi-1").read(generated(texts)))


@pytest.mark.parametrize(
    "where", [{"text": "a " * 10_001}, {"query": "a " * 10_001}, {"text": "(" * 10_001}, {"text": " " * 1_000_001}]
)
def test_an_observation_that_is_longer_than_any_real_one_is_left_out_and_said(where, tmp_path):
    longest = example("train", "a " * 10_000, "a " * 10_000)
    examples = [longest, replace(longest, **where), example("val", "a"), example("test", "a")]
    data = toy(examples)
    assert [len(split) for split in data.splits.values()] == [1, 1, 1]
    (warning,) = data.warnings
    assert "observations of train that have more than 10,000 tokens are left out: 1" in warning


def test_a_limit_of_the_task_itself_is_no_warning():
    data = toy([example("train", "a b c"), example("train", "a"), example("val", "a"), example("test", "a")], longest=2)
    assert len(data.splits["train"]) == 1 and not data.warnings


def test_what_is_left_out_is_said_when_nothing_is_left():
    short = "\n".join(["(3 (2 a) (2 b))"] * 7 + ["(2 (2 a) (2 b))"] * 5)
    texts = dict.fromkeys(stanford_sentiment.MEMBERS, short)
    with pytest.raises(UserError) as error:
        encoding.encode(load_task("sst"), generated(texts))
    for part in ("12 of trees/train.txt", "7 of five tokens or less", "5 neutral"):
        assert part in str(error.value)
    with pytest.raises(UserError, match="2 of more than 4 tokens, 1 of fewer than 3 tokens"):
        toy([example("train", text) for text in ("a", "a a a a a", "a a a a a")], shortest=3, longest=4)
    unlabelled = [example(split, "a", label=0) for split in ("train", "val", "test")]
    with pytest.raises(UserError, match=r"none of the 1 train observations of .* is positive; .*read"):
        toy(unlabelled, labels=("negative", "positive"))


def few_questions_at(folder, train=20, test=10):
    """Files in the place of the official ones, with fewer questions."""
    story = "1 Mary went home.\n2 Where is Mary? \tkitchen\t1\n"
    for name, number in zip(babi.members(1).values(), (train, test), strict=True):
        (folder / "babi" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "babi" / name).write_text(story * number)


def test_another_number_of_records_than_was_published_is_said_each_time(tmp_path, caplog):
    few_questions_at(tmp_path)
    for _ in range(2):
        caplog.clear()
        data = encoding.load(load_task("babi-1"), "official", tmp_path, tmp_path / "cache")
        assert data.warnings == (
            "qa1_single-supporting-fact_train.txt has 20 questions, but 10,000 were published",
            "qa1_single-supporting-fact_test.txt has 10 questions, but 1,000 were published",
        )
        assert all(warning in caplog.text for warning in data.warnings)
    assert encoding.find("babi-1", "official", data.digest, tmp_path / "cache").warnings == data.warnings


def test_the_published_number_of_records_is_no_warning_and_a_simulation_has_none(tmp_path):
    few_questions_at(tmp_path, 10_000, 1_000)
    assert not encoding.load(load_task("babi-1"), "official", tmp_path, tmp_path / "cache").warnings
    toy_world = {name: "1 Mary went home.\n2 Where is Mary? \tkitchen\t1\n" * 9 for name in babi.members(1).values()}
    task = replace(load_task("babi-1"), sources={"simulated": lambda: toy_world})
    assert not encoding.load(task, "simulated", tmp_path, tmp_path / "cache").warnings


def test_the_published_numbers_of_records_are_those_of_the_official_files():
    """A file without its number would be read without a word where half of it is missing."""
    for name, numbers in {
        "sst": [8_544, 1_101, 2_210],
        "imdb": [12_500] * 4,
        "snli": [549_367, 9_842, 9_824],
        "babi-1": [10_000, 1_000],
        "babi-2": [10_000, 1_000],
        "babi-3": [10_000, 1_000],
        "mimic-anemia": [651_047, 2_083_180],
        "mimic-diabetes": [651_047, 2_083_180, 8_066, 1_573, 1_729],
    }.items():
        task = load_task(name)
        assert list(task.published.values()) == numbers and len(numbers) == len(task.members)


def test_warnings_are_no_part_of_the_content_and_published_numbers_none_of_the_identity(tmp_path):
    few_questions_at(tmp_path)
    task = load_task("babi-1")
    said = encoding.load(task, "official", tmp_path, tmp_path / "cache")
    quiet = encoding.load(replace(task, published={}), "official", tmp_path, tmp_path / "other")
    assert said.digest == quiet.digest and not quiet.warnings
    assert replace(task, published={}, records="").described() == task.described()


def test_babi_stories_grow_and_start_again():
    text = "1 Mary went home.\n2 John left.\n3 Where is Mary? \tkitchen\t1\n4 Mary left.\n"
    text += "5 Where is Mary? \toffice\t4\n1 John went home.\n2 Where is John? \tgarden\t1\n"
    names = babi.members(1)
    examples = list(load_task("babi-1").read(generated(dict.fromkeys(names.values(), text))))
    test = [one for one in examples if one.split == "test"]
    assert [one.text for one in test] == [
        "Mary went home . John left",
        "Mary went home . John left . Mary left",
        "John went home",
    ]
    assert test[0].query == "Where is Mary" and babi.LABELS[test[1].label] == "office"


def test_each_babi_question_is_in_one_split_and_15_percent_of_train_are_for_validation():
    places = {part: [f"Mary went to {part} {number}" for number in range(40)] for part in ("train", "test")}
    texts = {}
    for part, name in babi.members(1).items():
        texts[name] = "".join(f"1 {place}.\n2 Where is Mary? \tkitchen\t1\n" for place in places[part])
    read = load_task("babi-1").read
    examples = list(read(generated(texts)))
    train, val, test = ([one.text for one in examples if one.split == split] for split in SPLITS)
    assert sorted(train + val) == sorted(places["train"]) and test == places["test"]
    assert len(val) == 6
    assert list(read(generated(texts))) == examples


@pytest.mark.parametrize(("n", "share"), [(0, 0.2), (1, 0.2), (1, 0.8), (40, 0.15), (301, 0.5), (7, 1.0)])
def test_what_is_drawn_is_the_rounded_share_and_the_same_at_every_call(n, share):
    numbers = drawn(n, share, "validation")
    assert numbers <= set(range(n)) and len(numbers) == round(share * n)
    assert drawn(n, share, "validation") == numbers


def test_what_is_drawn_for_a_purpose_is_the_same_in_every_version():
    """Otherwise, data would be other ones than those of the records that are there."""
    assert sorted(drawn(40, 0.15, "validation")) == [4, 11, 19, 27, 32, 39]
    assert drawn(40, 0.15, "test") != drawn(40, 0.15, "validation")


@pytest.mark.parametrize("line", ["2 Where is Mary? \tnowhere\t1", "2 Where is Mary? ", "<html>", "Mary left."])
def test_a_line_that_is_no_statement_and_no_question_is_named(line):
    texts = dict.fromkeys(babi.members(1).values(), f"1 Mary went home.\n{line}\n3 John left.\n")
    with pytest.raises(UserError, match="line 2"):
        list(load_task("babi-1").read(generated(texts)))


def test_every_declaration_is_under_its_own_name_and_is_json():
    for name in TASKS:
        assert load_task(name).name == name
        assert json.loads(json.dumps(load_task(name).described())) == load_task(name).described()


def replay(story, number, question):
    """The answer to `question` by following a story of sentences, as a reader would."""
    place, holder, visited = {}, {}, {}
    for sentence in story:
        person, *rest = sentence.split()
        if rest[-2] == "the" and rest[-1] in babi_simulation.PLACES:
            place[person] = rest[-1]
            for name, by in holder.items():
                if by == person:
                    visited.setdefault(name, []).append(rest[-1])
            continue
        name = next(word for word in rest if word in babi_simulation.OBJECTS)
        if any(verb in sentence for verb in babi_simulation.DROP):
            assert holder.pop(name) == person
        else:
            assert name not in holder
            holder[name] = person
            if person in place and not visited.get(name):
                visited[name] = [place[person]]
            elif person in place:
                assert visited[name][-1] == place[person]  # nobody takes what is elsewhere
    words = question.split()
    if number == 1:
        return place[words[2]]
    if number == 2:
        return visited[words[3]][-1]
    path = visited[words[3]]
    assert path.count(words[6]) == 1  # else there would be two answers
    return path[path.index(words[6]) - 1]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_simulated_questions_have_the_answer_a_reader_finds(number, monkeypatch):
    monkeypatch.setattr(babi_simulation, "QUESTIONS", {"train": 800, "test": 200})
    text = {name: babi_simulation.write(number, part) for part, name in babi.members(number).items()}
    examples = list(load_task(f"babi-{number}").read(generated(text)))
    assert len(examples) == 1000
    for one in examples:
        answer = replay(one.text.split(" . "), number, one.query)
        assert babi.LABELS[one.label] == answer
    answers = np.bincount([one.label for one in examples])
    assert answers.max() < 0.3 * len(examples)  # no place is a good guess
    known = set(babi.LABELS) | {"?"}
    assert {word for one in examples for word in whitespace(one.text) + whitespace(one.query)} <= known


def test_simulated_support_names_the_facts():
    lines = babi_simulation.write(2, "test").splitlines()[:400]
    story: list[str] = []
    for line in lines:
        if line.startswith("1 "):
            story = []
        story.append(line)
        if "\t" in line:
            question, answer, support = line.split("\t")
            thing = re.search(r"the (\w+)\?", question)[1]
            handled, moved = (story[int(number) - 1] for number in support.split())
            assert thing in handled and moved.endswith(f"the {answer}.")


@pytest.fixture(scope="module")
def raw_dir(request):
    return request.getfixturevalue("real_data")


@pytest.mark.slow
def test_real_sst_has_the_published_sizes(raw_dir, tmp_path):
    data = encoding.load(load_task("sst"), "official", raw_dir, tmp_path)
    assert [len(split) for split in data.splits.values()] == [6579, 848, 1776]
    assert all(0.45 < split.label.mean() < 0.56 for split in data.splits.values())
    assert not data.warnings  # all trees that were published
    texts = [one.text for one in load_task("sst").read(raw_files.open_raw(SST, raw_dir, load_task("sst").members))]
    for words in ("Contempt and 8 1 2", "its nearly 2 1 2 hour", "of its 2 1 2 hour"):  # with U+00A0 in a leaf
        assert sum(words in text for text in texts) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_real_babi_has_the_published_sizes(raw_dir, tmp_path, number):
    data = encoding.load(load_task(f"babi-{number}"), "official", raw_dir, tmp_path)
    assert [len(split) for split in data.splits.values()] == [8500, 1500, 1000]


def test_the_simulation_uses_words_and_form_of_the_official_files(raw_dir):
    official = (raw_dir / "babi" / babi.members(2)["train"]).read_text()
    form = re.compile(r"\d+ (?:[A-Z]\w+ [\w ]+\.|Where is the \w+\? \t\w+\t\d+ \d+)")
    for text in (official, babi_simulation.write(2, "train")):
        assert all(form.fullmatch(line) for line in text.splitlines())
    assert set(re.findall(r"[A-Za-z]+", babi_simulation.write(2, "train"))) <= set(re.findall(r"[A-Za-z]+", official))
