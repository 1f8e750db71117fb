"""Vectors of the vocabulary's words come from files of any form; a bad file is named with its line."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pytest

from nlproar.dataset import load_task, vectors
from nlproar.dataset.encoding import Dataset
from nlproar.dataset.vocabulary import PAD, Vocabulary
from nlproar.errors import UserError

TASK = load_task("sst")
WORDS = Vocabulary(("apple", "bean", "é"))
PLAIN = "the 0 0 0\napple 1 2 3 \né 4 5 -6e-1\napple 9 9 9\n"
EXPECTED = {"apple": [1, 2, 3], "é": [4, 5, -0.6]}


def written(path, text):
    data = text.encode()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("readme.md", "no vectors")
            archive.writestr("inner.txt", data)
    else:
        pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(data))
    return path


def test_numbers_may_be_separated_by_tabs(tmp_path):
    arrays = vectors.read(written(tmp_path / "f.txt", "apple\t1\t2\n"), WORDS)
    assert arrays["vectors"][WORDS.ids["apple"]].tolist() == [1, 2]


@pytest.mark.parametrize("suffix", ["vec", "txt", "zip", "txt.gz", "vec.bz2", "txt.xz"])
@pytest.mark.parametrize("header", ["", "4 3\n"])
def test_any_form_gives_the_same_vectors(tmp_path, suffix, header):
    arrays = vectors.read(written(tmp_path / f"file.{suffix}", header + PLAIN), WORDS)
    found = {word: arrays["vectors"][i].tolist() for word, i in WORDS.ids.items() if arrays["known"][i]}
    assert found == {word: pytest.approx(values) for word, values in EXPECTED.items()}


def test_a_word_with_spaces_is_not_its_first_part(tmp_path):
    arrays = vectors.read(written(tmp_path / "f.txt", "a 1 2\nbean soup 1 2\nbean 3 4\n"), WORDS)
    assert arrays["vectors"][WORDS.ids["bean"]].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no vector"),
        ("a 1 2\nbean 1 2 3\n", "line 2: 3 numbers"),
        ("a 1 2\nbean 1\n", "line 2: 1 numbers"),
        ("a 1 2\nbean 1 x\n", "line 2: not 2 numbers"),
        ("a 1 2\nbean 1 nan\n", "line 2: a number that is not finite"),
        ("a 1 2\nbean 1 1e99\n", "line 2: a number that is not finite"),
        ("<!DOCTYPE html>\n<html>\n", "none of its words"),
    ],
)
def test_a_bad_file_is_named_and_leaves_no_cache(tmp_path, text, message):
    file = written(tmp_path / "bad.txt", text)
    with pytest.raises(UserError, match=message) as error:
        vectors.from_file(file, WORDS, tmp_path / "cache")
    assert str(file) in str(error.value)
    assert not list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zip"])
def test_a_truncated_archive_is_named(tmp_path, suffix):
    file = written(tmp_path / f"f.{suffix}", PLAIN * 1000)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a whole archive"):
        vectors.read(file, WORDS)


def test_words_without_a_vector_are_zero_or_drawn_and_padding_is_zero(tmp_path):
    file = written(tmp_path / "f.txt", PLAIN)
    found = vectors.from_file(file, WORDS, tmp_path)
    zeros = vectors.initial_embedding(**found, unknown="zeros", seed=1)
    normal = vectors.initial_embedding(**found, unknown="normal", seed=1)
    bean = WORDS.ids["bean"]
    assert zeros.shape == (len(WORDS), 3) and not zeros[bean].any() and normal[bean].any()
    assert (zeros[WORDS.ids["apple"]] == normal[WORDS.ids["apple"]]).all()
    none = vectors.no_vectors(WORDS, 50)
    drawn = [vectors.initial_embedding(**none, unknown="normal", seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].shape == (len(WORDS), 50)
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any() and not drawn[0][PAD].any()


def test_a_file_is_read_once(tmp_path, monkeypatch):
    file = written(tmp_path / "f.txt", PLAIN)
    first = vectors.from_file(file, WORDS, tmp_path)
    monkeypatch.setattr(vectors, "read", pytest.fail)
    assert (vectors.from_file(file, WORDS, tmp_path)["vectors"] == first["vectors"]).all()


def identity(tmp_path, name, file=None, words=WORDS, seed=0):
    """Of vectors for the words `words`, with `tmp_path` as the persistent directory."""
    dataset = Dataset(words, {}, "digest of the data")
    return vectors.identity(name, file and str(file), dataset, TASK, seed, tmp_path / "raw", tmp_path / "cache")


def test_the_identity_of_vectors_from_a_file_is_that_of_the_numbers_a_run_starts_from(tmp_path):
    texts = {"v.txt": PLAIN, "v.zip": PLAIN, "v.vec.gz": "4 3\n" + PLAIN, "more.txt": PLAIN + "unused 7 7 7\n"}
    same = {identity(tmp_path, name, written(tmp_path / name, text)) for name, text in texts.items()}
    other = written(tmp_path / "v.vec", PLAIN.replace("2", "2.5"))
    fewer = written(tmp_path / "f.txt", PLAIN.replace("é", "e"))
    longer = written(tmp_path / "l.txt", "the 0 0 0 0\napple 1 2 3 0\n")
    assert len(same) == 1 and len(same.pop()) == 12
    assert len({identity(tmp_path, "x", file) for file in (tmp_path / "v.txt", other, fewer, longer)}) == 4
    assert identity(tmp_path, "x", other, Vocabulary(("the",))) != identity(tmp_path, "x", other)


def test_the_identity_of_named_vectors_changes_with_the_file_and_needs_it(tmp_path):
    with pytest.raises(UserError, match="fasttext are not there"):
        identity(tmp_path, "fasttext")
    (tmp_path / "raw" / "vectors").mkdir(parents=True)
    file = written(tmp_path / "raw" / "vectors" / "wiki.simple.vec", PLAIN)
    first = identity(tmp_path, "fasttext")
    assert first == identity(tmp_path, "another name", written(tmp_path / "v.txt", PLAIN))
    written(file, PLAIN.replace("-6e-1", "6e-1"))
    assert first != identity(tmp_path, "fasttext")


def test_the_identity_of_word2vec_is_its_data_and_seed_and_random_vectors_have_none(tmp_path):
    first = identity(tmp_path, "word2vec")
    assert first == identity(tmp_path, "word2vec") != identity(tmp_path, "word2vec", seed=1)
    assert identity(tmp_path, "random") is None


def test_real_vectors_hold_most_words_of_sst(real_data, tmp_path):
    vocabulary = Vocabulary.of(["film", "the", "gorgeously", "zzzzqqq"])
    arrays = vectors.read(real_data / "vectors" / "glove.6B.50d.subset.zip", vocabulary)
    assert arrays["known"].sum() == 3 and arrays["vectors"].shape == (len(vocabulary), 50)
    assert np.linalg.norm(arrays["vectors"][vocabulary.ids["film"]]) > 1
