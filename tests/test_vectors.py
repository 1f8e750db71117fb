"""Vectors of the vocabulary's words come from files of any form; a bad file is named with its line."""

import bz2
import gzip
import hashlib
import lzma
import pickle
import re
import tarfile
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from nlproar.dataset import vector_files, vector_text, vectors
from nlproar.dataset.encoding import Dataset, Split
from nlproar.dataset.sources import VECTORS
from nlproar.dataset.vocabulary import MASK, PAD, SPECIALS, UNK, Vocabulary
from nlproar.errors import UserError

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
    found = vectors.read(written(tmp_path / "f.txt", "apple\t1\t2\n"), WORDS)
    assert known(found) == {"apple": [1, 2]}


def known(found):
    """The words that were found, with their vectors."""
    return {word: found.vectors[i].tolist() for word, i in WORDS.ids.items() if found.known[i]}


@pytest.mark.parametrize("suffix", ["vec", "txt", "zip", "txt.gz", "vec.bz2", "txt.xz"])
@pytest.mark.parametrize("header", ["", "4 3\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_form_gives_the_same_vectors(tmp_path, suffix, header, mark):
    found = vectors.read(written(tmp_path / f"file.{suffix}", mark + header + PLAIN), WORDS)
    assert known(found) == {word: pytest.approx(values) for word, values in EXPECTED.items()}
    assert (found.lines, found.announced) == (4, 4 if header else None)


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    assert known(vectors.read(written(tmp_path / "f.txt", "\ufeffbean 1 2\napple 3 4\n"), WORDS)) == {
        "bean": [1, 2],
        "apple": [3, 4],
    }


def test_a_file_is_the_same_whatever_the_blocks_it_is_read_in(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_text, "_LONGEST_LINE", 64)
    file = written(tmp_path / "f.txt", "\n".join(f"w{i} {i} {-i}" for i in range(200)) + "\nbean 7 8")
    for size in (40, 64, 100, 1 << 20):
        monkeypatch.setattr(vector_text, "_BLOCK", size)
        found = vectors.read(file, WORDS)
        assert known(found) == {"bean": [7, 8]} and found.lines == 201


def test_words_with_blanks_are_not_their_first_part_and_blame_no_other_line(tmp_path):
    lines = ["bean soup 1 2", "a 1 2", "", " 1 2", "1 1 2", "apple pie 5 6", "bean 3 4"]
    for first in range(len(lines)):
        text = "\n".join(lines[first:] + lines[:first]) + "\n"
        words = Vocabulary(("apple", "bean", "1"))
        found = vectors.read(written(tmp_path / "f.txt", text), words)
        assert found.known.sum() == 2 and found.lines == 6
        assert found.vectors[words.ids["bean"]].tolist() == [3, 4]
        assert found.vectors[words.ids["1"]].tolist() == [1, 2]


def test_the_length_of_a_vector_is_found_where_most_of_the_first_words_have_blanks(tmp_path):
    lines = ["new york 1 2", "los angeles 3 4", "rio grande 5 6", "bean 7 8"]
    found = vectors.read(written(tmp_path / "f.txt", "\n".join(lines) + "\n"), WORDS)
    assert found.vectors.shape[1] == 2 and known(found) == {"bean": [7, 8]}


def test_a_header_that_states_another_length_than_the_lines_have_is_refused_with_both(tmp_path):
    with pytest.raises(UserError, match=r"first line announces 300 numbers .* lines have 3"):
        vectors.read(written(tmp_path / "f.vec", "4 300\n" + PLAIN), WORDS)


def test_a_file_with_other_than_the_announced_words_is_read_with_a_warning_at_every_run(tmp_path, caplog):
    for announced, hint in ((5, "is it cut off"), (3, "it has 4")):
        file = written(tmp_path / f"{announced}.vec", f"{announced} 3\n" + PLAIN)
        for _ in range(2):
            caplog.clear()
            vectors.from_file(file, WORDS, tmp_path)
            assert f"announces {announced} words, and it has 4" in caplog.text and hint in caplog.text
    caplog.clear()
    vectors.from_file(written(tmp_path / "4.vec", "4 3\n" + PLAIN), WORDS, tmp_path)
    assert "announces" not in caplog.text


def test_a_part_of_the_published_glove_is_used_with_a_warning(tmp_path, caplog):
    vectors.from_file(written(tmp_path / "glove.840B.300d.txt", PLAIN), WORDS, tmp_path)
    assert "has 4 words, the published file has 2,196,017" in caplog.text


def test_the_log_counts_all_lines(tmp_path, caplog):
    with caplog.at_level("INFO"):
        vectors.read(written(tmp_path / "f.txt", PLAIN), WORDS)
        vectors.read(written(tmp_path / "g.txt", "a 1\n" * 23_456 + "bean 1\n"), WORDS)
    assert "reading f.txt: 4 lines" in caplog.text and "reading g.txt: 23,457 lines" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("3 2\n", "holds a header, but no vector"),
        ("\n\n", "holds no vector"),
        ("word,1,2\nbean,3,4\n", "separated by blanks"),
        ("some text that is\nno vector 1\nat all\n", "most of its first lines"),
        ("a 1 2\rbean 3 4\r", "carriage return"),
        ("x" * 3_000_000, "no end of line"),
        ("a 1 2\nbean 1 2 3\n", "line 2: 3 numbers"),
        ("a 1 2\nbean 1\n", "line 2: 1 numbers"),
        ("a 1 2\nbean 1 x\n", "line 2: not 2 numbers"),
        ("a 1 2\nbean 1 nan\n", "line 2: a number that is not finite"),
        ("a 1 2\nbean 1 1e99\n", "line 2: a number that is not finite"),
        ("a 1 2\nb 1 2\n" + "bean " * 900_000, "line 3: longer than 1,048,576 bytes"),
        ("a 1 2\n", "none of its 1 words occurs in the data"),
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


@pytest.fixture
def no_network(monkeypatch):
    """Every download fails; what was asked for. This is a new process."""
    asked = []
    monkeypatch.setattr(vector_files, "_chosen", {})

    def fail(source, folder):
        asked.append(source.filename)
        raise UserError(f"could not download {source.filename}")

    monkeypatch.setattr(vector_files, "download", fail)
    return asked


def placed(tmp_path, files, name="fasttext"):
    """The file that is read of those in raw/vectors: {name: content}, where text is compressed as the name says."""
    folder = tmp_path / "raw" / "vectors"
    for filename, content in files.items():
        path = folder / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".zip":
            inner = "wiki.simple.vec" if name == "fasttext" else "glove.840B.300d.txt"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("wiki.simple.bin", b"\xba\x16\x4f\x2f")
                archive.writestr(inner, content)
        else:
            written(path, content)
    return vectors.find(name, tmp_path / "raw", tmp_path / "cache").name


WHOLE = "4 3\n" + PLAIN
CUT = WHOLE[:20]
VEC, TXT = "wiki.simple.vec", "glove.840B.300d.txt"


@pytest.mark.parametrize("name", [VEC, "wiki.simple.zip", f"{VEC}.gz", f"{VEC}.bz2", f"{VEC}.xz", f"{VEC}.zip"])
def test_the_published_vectors_are_found_under_their_names_beside_anything(tmp_path, no_network, name):
    others = ("bin", "vec.md5", "vec.part", "vec.crdownload", "vec.tmp", "bin.gz", "vec.txt", "pdf", "a.vec")
    files = {f"wiki.simple.{suffix}": b"4 3\nnot these\n" for suffix in others}
    files |= {f"._{VEC}": b"\0\5\x16\7", f".{VEC}": b"x", "wiki.simple (1).vec": b"x", f"deep/{VEC}": b"x"}
    assert placed(tmp_path, {**files, name: WHOLE}) == name
    assert set(known(vectors.read(tmp_path / "raw" / "vectors" / name, WORDS))) == {"apple", "é"}
    assert not no_network


@pytest.mark.parametrize("name", [TXT, "glove.840B.300d.zip", f"{TXT}.gz", f"{TXT}.bz2", f"{TXT}.xz"])
def test_glove_is_found_under_its_names(tmp_path, no_network, name):
    assert placed(tmp_path, {"glove.840B.300d.bin": b"x", "glove.840B.txt": b"x", name: PLAIN}, "glove") == name


@pytest.mark.parametrize(
    "name", ["wiki.simple.bin", f"{VEC}.crdownload", "wiki.simple (1).vec", f"wiki/{VEC}", f"../{VEC}"]
)
def test_where_only_a_neighbour_is_there_the_message_names_it(tmp_path, no_network, name):
    with pytest.raises(UserError, match=f"has {re.escape(name)}, which cannot be used in its place"):
        placed(tmp_path, {name: b"x"})
    assert no_network == [VEC]


def test_a_link_to_nowhere_is_named(tmp_path, no_network):
    folder = tmp_path / "raw" / "vectors"
    folder.mkdir(parents=True)
    (folder / VEC).symlink_to("/data/old/wiki.simple.vec")
    with pytest.raises(UserError, match=f"{VEC} is a link to /data/old/wiki.simple.vec, which is not there"):
        placed(tmp_path, {})
    assert not no_network


@pytest.mark.parametrize(
    ("files", "read", "reason"),
    [
        ({VEC: CUT, "wiki.simple.zip": WHOLE}, "wiki.simple.zip", "20 bytes"),
        ({VEC: CUT, f"{VEC}.gz": WHOLE}, f"{VEC}.gz", "announces 4 words and has 2"),
        ({VEC: b"<html>", f"{VEC}.xz": WHOLE}, f"{VEC}.xz", "an HTML page"),
        ({VEC: WHOLE, f"{VEC}.gz": CUT}, VEC, "complete"),
        ({VEC: WHOLE, "wiki.simple.zip": WHOLE}, VEC, "complete"),
        ({VEC: WHOLE, "wiki.simple.zip": b"PK\3\4 cut off"}, VEC, "cannot be read"),
        ({VEC: CUT, f"{VEC}.zip": b"PK\3\4 cut off", f"{VEC}.gz": WHOLE}, f"{VEC}.gz", "announces 4 words"),
        ({f"{VEC}.gz": WHOLE, "wiki.simple.zip": WHOLE}, f"{VEC}.gz", ""),
        ({TXT: PLAIN[:20], "glove.840B.300d.zip": PLAIN}, "glove.840B.300d.zip", "20 bytes"),
        ({TXT: PLAIN[:20], f"{TXT}.gz": PLAIN}, f"{TXT}.gz", "cannot be verified"),
        ({TXT: PLAIN, "glove.840B.300d.zip": PLAIN}, TXT, "complete"),
    ],
)
def test_of_several_files_one_that_is_complete_is_read_and_one_line_says_so(
    tmp_path, no_network, caplog, files, read, reason
):
    name = "glove" if TXT in files else "fasttext"
    with caplog.at_level("INFO"):
        assert placed(tmp_path, files, name) == read
        assert placed(tmp_path, {}, name) == read  # a run asks several times
    (line,) = [line for line in caplog.messages if "is read, not" in line]
    assert reason in line and all(other in line for other in files)


def test_an_archive_with_the_published_checksum_is_read(tmp_path, no_network, monkeypatch, caplog):
    files = {TXT: PLAIN, "glove.840B.300d.zip": PLAIN}
    assert placed(tmp_path, files, "glove") == TXT
    file = tmp_path / "raw" / "vectors" / "glove.840B.300d.zip"
    source = replace(VECTORS["glove"], sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(VECTORS, "glove", source)
    vector_files._chosen.clear()
    assert placed(tmp_path, {}, "glove") == file.name
    (file.parent / TXT).unlink()
    caplog.clear()
    assert placed(tmp_path, {}, "glove") == file.name and not caplog.text
    monkeypatch.setitem(VECTORS, "glove", replace(source, sha256="0" * 64))
    vector_files._chosen.clear()
    assert placed(tmp_path, {}, "glove") == file.name and "the published file has 000" in caplog.text


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


@pytest.mark.parametrize("unknown", ["zeros", "normal"])
def test_drawn_vectors_give_every_word_a_start_of_its_own(unknown):
    arrays = vectors.drawn(WORDS, 50, seed=1)
    embedding = vectors.initial_embedding(**arrays, unknown=unknown, seed=1)
    words = embedding[len(SPECIALS) :]
    assert np.unique(words, axis=0).shape == words.shape and 0.5 < words.std() < 1.5
    assert embedding[UNK].any() == embedding[MASK].any() == (unknown == "normal")
    # What a word is drawn does not depend on how the special tokens start.
    assert (words == vectors.initial_embedding(**arrays, unknown="zeros", seed=1)[len(SPECIALS) :]).all()


def test_a_file_is_read_once(tmp_path, monkeypatch):
    file = written(tmp_path / "f.txt", PLAIN)
    first = vectors.from_file(file, WORDS, tmp_path)
    monkeypatch.setattr(vectors, "read", pytest.fail)
    assert (vectors.from_file(file, WORDS, tmp_path)["vectors"] == first["vectors"]).all()


def zipped(path, **members):
    """A zip archive of files; `a_vec` is the file a.vec."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def word2vec_binary(path):
    """What gensim writes."""
    from gensim.models import KeyedVectors

    model = KeyedVectors(100)
    model.add_vectors(["the", "bean"], np.random.default_rng(0).normal(size=(2, 100)))
    model.save_word2vec_format(path, binary=True)
    return path


def tar(path):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.add(written(path.with_name("inner.txt"), PLAIN), "inner.txt")
    return path


def in_bytes(path, content):
    path.write_bytes(content)
    return path


UTF16 = PLAIN.encode("utf-16-le")
OTHER_FORMATS = {
    "word2vec.bin": (word2vec_binary, "in word2vec's binary format.* gensim converts it"),
    "few.bin": (lambda path: in_bytes(path, b"2 1\nthe \xcd\xcc\xcc=\nbean \xcd\xccL>\n"), "word2vec's binary format"),
    "w2v.bin.gz": (
        lambda path: in_bytes(path, gzip.compress(word2vec_binary(path.with_name("w.bin")).read_bytes())),
        "holds a file that is in word2vec's binary format",
    ),
    "wiki.bin": (lambda path: in_bytes(path, b"\xba\x16\x4f\x2f\x0c\0\0\0" + bytes(range(256))), "fastText's binary"),
    "page.zip": (lambda path: in_bytes(path, b"\n<!DOCTYPE html>\n<html></html>"), "an HTML page"),
    "page.txt": (lambda path: in_bytes(path, b"\xef\xbb\xbf<HTML lang='en'>\n<body>"), "an HTML page"),
    "error.vec": (lambda path: in_bytes(path, b'<?xml version="1.0"?><Error/>'), "an XML document"),
    "error.txt": (lambda path: in_bytes(path, b'{"message": "Not Found"}'), "JSON"),
    "pointer.vec": (
        lambda path: in_bytes(path, b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n"),
        "a Git LFS pointer",
    ),
    "link.txt": (lambda path: in_bytes(path, b"../data/glove.txt\n"), "nothing but a path"),
    "v.tar": (tar, "a tar archive"),
    "v.tar.gz": (tar, "holds a file that is a tar archive"),
    "v.7z": (lambda path: in_bytes(path, b"7z\xbc\xaf\x27\x1c\0\4" + bytes(50)), "a 7z archive"),
    "v.rar": (lambda path: in_bytes(path, b"Rar!\x1a\x07\x01\0" + bytes(50)), "a RAR archive"),
    "v.zst": (lambda path: in_bytes(path, b"\x28\xb5\x2f\xfd" + bytes(50)), "compressed with Zstandard"),
    "twice.gz": (lambda path: in_bytes(path, gzip.compress(gzip.compress(b"a 1\n"))), "compressed with gzip"),
    "v.pkl": (lambda path: in_bytes(path, pickle.dumps({"bean": [1.0, 2.0]})), "a Python pickle"),
    "old.pkl": (lambda path: in_bytes(path, pickle.dumps({"bean": [1.0, 2.0]}, 0)), "a Python pickle"),
    "v.npy": (lambda path: in_bytes(path, b"\x93NUMPY\x01\0" + bytes(90)), "a NumPy array"),
    "v.npz": (lambda path: zipped(path, a_npy=b"x"), "a NumPy archive"),
    "v.pt": (lambda path: zipped(path, data_pkl=b"x", version=b"3"), "a PyTorch file"),
    "v.zip": (
        lambda path: zipped(path, wiki_bin=b"x"),
        r"a zip archive without a .txt or .vec file \(it holds wiki.bin",
    ),
    "two.zip": (lambda path: zipped(path, a_txt=PLAIN, b_vec=PLAIN), "holds 2 text files"),
    "none.zip": (lambda path: zipped(path), "it holds nothing"),
    "bin.zip": (
        lambda path: zipped(path, a_vec=word2vec_binary(path.with_suffix(".bin")).read_bytes()),
        "holds a file that is in word2vec's binary format",
    ),
    "v.safetensors": (
        lambda path: in_bytes(path, (40).to_bytes(8, "little") + b'{"embedding":{"dtype":"F32"}}' + bytes(80)),
        "a safetensors file",
    ),
    "v.h5": (lambda path: in_bytes(path, b"\x89HDF\r\n\x1a\n" + bytes(50)), "an HDF5 file"),
    "v.magnitude": (lambda path: in_bytes(path, b"SQLite format 3\0" + bytes(50)), "an SQLite database"),
    "v.pdf": (lambda path: in_bytes(path, b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), "a PDF document"),
    "utf16.txt": (lambda path: in_bytes(path, b"\xff\xfe" + UTF16), "text in UTF-16.* iconv"),
    "big.txt": (lambda path: in_bytes(path, PLAIN.encode("utf-16-be")), "text in UTF-16"),
    "utf32.txt": (lambda path: in_bytes(path, PLAIN.encode("utf-32")), "text in UTF-32"),
    "noise": (lambda path: in_bytes(path, np.random.default_rng(0).bytes(3_000_000)), "binary data"),
    "zeros": (lambda path: in_bytes(path, bytes(3_000_000)), "binary data"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_a_file_of_another_kind_is_named_with_what_can_be_read(tmp_path, name):
    make, words = OTHER_FORMATS[name]
    file = make(tmp_path / name)
    with pytest.raises(UserError, match=words) as error:
        vectors.read(file, WORDS)
    message = str(error.value)
    assert message.startswith(f"{file} ") and "\n" not in message
    assert "one word and its numbers a line" in message or "unpack it and name one" in message


def test_what_macos_adds_to_an_archive_is_no_second_file(tmp_path):
    file = tmp_path / "v.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("__MACOSX/._a.vec", "folder/", "folder/a.VEC", "folder/._b.txt", "a.bin"):
            archive.writestr(name, PLAIN if name.endswith("a.VEC") else b"\0\5\x16\7")
    assert set(known(vectors.read(file, WORDS))) == {"apple", "é"}


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path):
    tracemalloc.start()
    for start in ("", "bean 1 2\nbean 1 2\n"):
        with pytest.raises(UserError):
            vectors.read(written(tmp_path / "f.txt.gz", start + "1 " * 20_000_000), WORDS)
        tracemalloc.clear_traces()
        with pytest.raises(UserError):
            vectors.read(tmp_path / "f.txt.gz", WORDS)
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def identity(tmp_path, name, file=None, words=WORDS, seed=0):
    """Of vectors for the words `words`, with `tmp_path` as the persistent directory."""
    dataset = Dataset(words, {}, "digest of the data")
    return vectors.identity(name, file and str(file), dataset, 50, seed, tmp_path / "raw", tmp_path / "cache")


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
    found = vectors.read(real_data / "vectors" / "glove.6B.50d.subset.zip", vocabulary)
    assert found.known.sum() == 3 and found.vectors.shape == (len(vocabulary), 50)
    assert np.linalg.norm(found.vectors[vocabulary.ids["film"]]) > 1


def test_word2vec_needs_a_word_that_occurs_twice():
    tokens = np.array([WORDS.ids[word] for word in WORDS.words], np.int32)
    train = Split(tokens, np.array([0, len(tokens)]), np.zeros(1, int))
    with pytest.raises(UserError, match="no word occurs twice"):
        vectors.train_word2vec(Dataset(WORDS, {"train": train}, "0" * 64), 5, seed=0)
