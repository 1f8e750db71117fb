"""IMDB, SNLI, and the script that prepares all tasks ahead of the runs."""

import json
import re
import tarfile
from io import BytesIO

import pytest

from nlproar.dataset import encoding, imdb, load_task, stanford_nli
from nlproar.dataset.raw import generated
from nlproar.dataset.tokenizer import keras
from nlproar.errors import UserError


def test_keras_tokens_are_lower_case_without_its_punctuation():
    assert keras("Don't!<br />It's 10/10\tgreat_stuff") == ["don't", "br", "it's", "10", "10", "great", "stuff"]


def reviews(n=20, length=10):
    """The files of IMDB. Each review begins with the names of its two folders."""
    files = {}
    for side in ("train", "test"):
        for label in ("neg", "pos"):
            text = " ".join([side, label, *["word"] * (length - 2)])
            files |= {f"aclImdb/{side}/{label}/{i}_1.txt": text for i in range(n)}
    return files


def test_imdb_labels_come_from_the_folder_and_order_does_not_matter():
    files = reviews()
    examples = list(imdb.read(generated(files)))
    count = {split: sum(one.split == split for one in examples) for split in ("train", "val", "test")}
    assert count == {"train": 32, "val": 8, "test": 8}
    for one in examples:
        side, label = one.text.split()[:2]
        assert one.label == (label == "pos") and (one.split == "test") == (side == "test")
    assert sum(one.label for one in examples if one.split != "test") == 20
    assert list(imdb.read(generated(dict(reversed(files.items()))))) == examples


@pytest.mark.parametrize(("length", "kept"), [(6, False), (7, True), (399, True), (400, False)])
def test_imdb_reviews_of_more_than_6_and_less_than_400_tokens_are_used(length, kept):
    files = reviews() | {"aclImdb/train/pos/0_1.txt": "x " * length, "aclImdb/train/neg/0_1.txt": "y " * length}
    arrays = encoding.encode(load_task("imdb"), generated(files))
    assert sum(len(arrays[f"{split}.label"]) for split in ("train", "val")) == 38 + 2 * kept


def test_imdb_counts_the_reviews_of_each_folder():
    raw = generated(reviews(20, length=3))
    with pytest.raises(UserError, match=r"20 of aclImdb/train/neg.*32 of fewer than 7 tokens"):
        encoding.encode(load_task("imdb"), raw)
    warnings = raw.tally.warnings(load_task("imdb").published, "reviews")
    assert warnings[0] == "aclImdb/train/neg has 20 reviews, but 12,500 were published" and len(warnings) == 4


def pairs(**changes):
    line = {"gold_label": "neutral", "sentence1": "A man, 25, rides.", "sentence2": "He is old.", **changes}
    return dict.fromkeys(stanford_nli.MEMBERS, json.dumps(line) + "\n")


def test_snli_reads_premise_as_text_and_drops_pairs_without_agreement():
    (one, *_) = list(stanford_nli.read(generated(pairs())))
    assert (one.text, one.query, one.label) == ("A man, 25, rides.", "He is old.", 2)
    assert load_task("snli").tokenize(one.text) == ["a", "man", ",", "[DIGITS]", ",", "rides", "."]
    assert not list(stanford_nli.read(generated(pairs(gold_label="-"))))


NO_PAIRS = {
    "<!DOCTYPE html>": "not a JSON object",
    '{"gold_label": "neutral", ': "not a JSON object",
    "[1]": "not a JSON object",
    "[" * 100_000: "not a JSON object",
    "9" * 5_000: "not a JSON object",
    '{"gold_label": "neutral"}': "no sentence1",
    '{"gold_label": "neutral", "sentence1": null, "sentence2": "b"}': "sentence1 is not a text",
    '{"gold_label": "neutral", "sentence1": "a", "sentence2": 7}': "sentence2 is not a text",
    '{"gold_label": "neutral", "sentence1": "\\ud800", "sentence2": "b"}': "sentence1 holds half of a character",
    '{"gold_label": "maybe", "sentence1": "a", "sentence2": "b"}': 'the label is "maybe", not one of entailment',
    '{"gold_label": -1, "sentence1": "a", "sentence2": "b"}': "the label is -1, not one of entailment, contradiction",
    '{"gold_label": null, "sentence1": "a", "sentence2": "b"}': "the label is null, not one of entailment",
    '{"gold_label": [2], "sentence1": "a", "sentence2": "b"}': r"the label is \[2\], not one of entailment",
}


@pytest.mark.parametrize("line", NO_PAIRS, ids=lambda line: line[:60])
def test_a_line_that_is_no_pair_is_named_in_plain_words(line):
    name = next(iter(stanford_nli.MEMBERS))
    files = pairs() | {name: pairs()[name] + line + "\n"}
    with pytest.raises(UserError, match=f"{name}, line 2: {NO_PAIRS[line]}") as error:
        list(stanford_nli.read(generated(files)))
    assert not re.search("tuple|concatenate|Error|char ", str(error.value))


def archive_of_reviews(folder):
    folder.mkdir(parents=True)
    with tarfile.open(folder / "aclImdb_v1.tar.gz", "w:gz") as archive:
        for name, text in reviews().items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, BytesIO(text.encode()))


def test_preparing_does_the_rest_when_one_cannot_be_had_and_says_so(script, tmp_path):
    archive_of_reviews(tmp_path / "raw" / "imdb")
    vectors = tmp_path / "raw" / "vectors"
    vectors.mkdir()
    (vectors / "wiki.simple.vec").write_text("1 2\nword 0.5 1\n")
    place = ("--persistent-dir", tmp_path)
    done = script("download", "snli", "imdb", *place, check=False)
    assert done.returncode == 1 and "imdb: ready" in done.stdout and "snli: could not download" in done.stdout
    again = script("download", "imdb", *place)
    assert "encoding" not in again.stderr and "reading" not in again.stderr
    mimic = script("download", "mimic-anemia", *place, check=False)
    assert mimic.returncode == 1 and "gettingstarted/access" in mimic.stdout
    assert script("download", "sat", *place, check=False).returncode == 2


@pytest.mark.slow
def test_real_imdb_has_the_published_size(real_data, tmp_path):
    data = encoding.load(load_task("imdb"), "official", real_data, tmp_path)
    assert len(data.splits["train"]) + len(data.splits["val"]) == 21_516
    assert 0.19 < len(data.splits["val"]) / 21_516 < 0.21 and 4_200 < len(data.splits["test"]) < 4_500


@pytest.mark.slow
def test_real_snli_reads_every_pair_of_the_files(real_data, tmp_path):
    data = encoding.load(load_task("snli"), "official", real_data, tmp_path)
    assert [len(split) for split in data.splits.values()] == [11_508, 4_912, 4_912]
